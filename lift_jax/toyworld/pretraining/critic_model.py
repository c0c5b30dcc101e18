"""A tiny critic of the toy world, made from nothing.

Clips are drawn with flaws that are known, so that each answer is what an
honest judge would say. The critic first learns to see (`vision_tower`), then to
answer. Most examples ask one of the questions that annotators are asked, with
its three labels equally often. But a bit and a half about a clip is little to
learn from: other examples ask for a description, without a caption, of what is
shown, how the image is and how it moves, as vision language models are trained
on captions before they are asked to judge. And whether a clip fits a caption is
hard to learn while nothing tells which of five things does not: some examples
ask about one of them. There are more of both at first.

No example has a prompt that is held out, nor a clip that shows one.

B examples  C clips  T frames that a critic sees  H W height and width  N tokens
of a sequence  K answer tokens of it at most
"""

from collections.abc import Sequence
import dataclasses
import logging
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.data.hra import DIMENSIONS, LABELS, read_questions
from lift_jax.data.video import ClipInfo
from lift_jax.models import critics
from lift_jax.models.critics import Critic, FrameSelection
from lift_jax.models.frames import evenly_spaced_frames
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.llama.decoder import INIT_STDDEV
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.models.vila import folder as vila_folder
from lift_jax.models.vila import prompt, tiny_tokenizer
from lift_jax.models.vila.config import NUM_FRAMES, VilaConfig
from lift_jax.models.vila.projector import ProjectorConfig
from lift_jax.models.vila.tokenizer import PromptTokenizer
from lift_jax.toyworld import annotators, checkers, feedback, flaws, scenes
from lift_jax.toyworld.flaws import Flaw, ToyClip
from lift_jax.toyworld.measures import Measured, truth_of
from lift_jax.toyworld.pretraining import vision_tower
from lift_jax.toyworld.pretraining.loop import (
  Pretraining,
  StageConfig,
  pretraining,
  train,
)
from lift_jax.toyworld.pretraining.validate import soften
from lift_jax.toyworld.scenes import Scene
from lift_jax.training.critic_step import CriticBatch, answer_losses

TEMPLATE = 'hermes-2'  # the shorter one

# Asked about a clip without a caption.
DESCRIBE = ' Describe the clip.'

# Asked about one attribute of the caption.
COMPARE = ' Does the {} show what the text says?'

# What a critic sees is the same for all clips that have frames enough.
CLIP = ClipInfo(NUM_FRAMES, fps=8.0, height=32, width=32)

# Every word of the toy world is one token with so many.
_VOCAB_SIZE = 704

# Of embeddings at the start: about what tokens of frames have. Those of
# published configs are so faint that words are lost beside what the first layer
# adds to them, until they have grown.
_EMBEDDING_STDDEV = 0.5


@dataclasses.dataclass(frozen=True)
class CriticPretrainConfig:
  """Sizes of the critic, and what it is trained on.

  Attributes:
    seed: of clips, questions and parameters.
    num_clips: drawn once; each is asked about again and again.
    soft_share: part of them that is softened as an autoencoder does it.
    describe_share: part of the examples that ask for a description, at the
      first step and at the last of each cycle of the learning rate; it changes
      evenly in between.
    compare_share: likewise, of those that ask about one attribute.
    label_weight: what the first token of a judgement counts in the loss, as
      the reward is read from it; each other token of an answer counts 1.
    text_places: tokens of a sequence beside those of its frames. An answer
      that does not fit loses its end, which says least: shorter sequences are
      faster.
    vision_tower: sizes.
    llm: sizes; its vocabulary is that of the tokenizer.
    vision: how long and how fast it learns to see.
    training: the same, to answer.
    num_eval_clips: drawn afterwards, to see how well it judges.
    dtype: of the weights as they are stored.
  """

  seed: int
  num_clips: int
  soft_share: float
  describe_share: tuple[float, float]
  compare_share: tuple[float, float]
  label_weight: float
  text_places: int
  vision_tower: SiglipConfig
  llm: LlamaConfig
  vision: StageConfig
  training: StageConfig
  num_eval_clips: int
  dtype: str


def make_critic(
  target: pathlib.Path, config: CriticPretrainConfig, logger: logging.Logger
) -> None:
  """Trains a critic and writes its folder, in the published layout.

  Args:
    target: the folder to write; one that is there is replaced.
    config: of the training.
    logger: takes the progress.
  """
  with (
    tempfile.TemporaryDirectory() as scratch,
    pretraining(target, config.seed, logger) as run,
  ):
    draft = write_draft(pathlib.Path(scratch), config)
    tokenizer = draft.open_tokenizer(TEMPLATE)
    model = functional(draft.build())
    logger.info('pretrain: drawing %d clips', config.num_clips)
    frames_cthw3, truths = draw_clips(
      config.num_clips, config.soft_share, config.seed
    )
    params = vision_tower.train_vision(
      model,
      _init(model, config.seed),
      frames_cthw3,
      truths,
      config.vision,
      run,
    )
    params = _train_critic(
      model,
      params,
      ExampleSampler(
        frames_cthw3, truths, tokenizer, draft.frames.select(CLIP), config
      ),
      config,
      run,
    )
    accuracy = label_accuracy(model, params, draft, config)
    logger.info(
      'pretrain: right labels on %d new clips of prompts held out: %s',
      config.num_eval_clips,
      ', '.join(f'{name} {rate:.1%}' for name, rate in accuracy.items()),
    )
    draft.write(target, params, config.dtype)


def write_draft(path: pathlib.Path, config: CriticPretrainConfig) -> Critic:
  """A critic without weights: its tokenizer, and its configs."""
  llm_path = path / vila_folder.LLM
  template = prompt.get_template(TEMPLATE)
  tiny_tokenizer.write(llm_path, texts(), _VOCAB_SIZE, template)
  tower = config.vision_tower
  tokenizer = PromptTokenizer(llm_path, TEMPLATE, 1)
  llm = dataclasses.replace(config.llm, vocab_size=tokenizer.vocab_size)
  sizes = VilaConfig(
    tower, ProjectorConfig(vision_width=tower.width, width=llm.width), llm
  )
  vila_folder.write_configs(path, sizes, {})
  return critics.open_critic(path)


def texts() -> list[str]:
  """Texts with every word of captions, questions and answers."""
  every = [scene.caption for scene in scenes.all_scenes()]
  every += [*read_questions(feedback.questions_path()).values(), DESCRIBE]
  every += [COMPARE.format(name) for name in scenes.ATTRIBUTES]
  asked, *others = scenes.all_scenes()
  clean = truth_of(asked, None, None)
  measured = [clean, *(truth_of(other, None, None) for other in others)]
  for label in ('Normal', 'Bad'):
    for kind in flaws.FIDELITY_KINDS:
      measured.append(truth_of(asked, Flaw(kind, label), None))
    for kind in flaws.MOTION_KINDS:
      measured.append(truth_of(asked, None, Flaw(kind, label)))
  # What only generated clips have: a shape that is there half of the time or
  # never, and nothing that is like what was asked for.
  for fidelity in ({'vanishing': 0.1}, {'vanishing': 0.5}, {}):
    measured.append(dataclasses.replace(clean, fidelity=fidelity))
  unlike = dict.fromkeys(scenes.ATTRIBUTES)
  measured.append(dataclasses.replace(clean, shown=unlike))
  verdicts = [checkers.judge(asked, one) for one in measured]
  every += [one.rationale for each in verdicts for one in each.values()]
  every += annotators.vague_texts()
  return list(dict.fromkeys(every))


def draw_clips(
  num_clips: int, soft_share: float, seed: int
) -> tuple[np.ndarray, list[Measured]]:
  """uint8 [C, T, H, W, 3], and the truth about each clip.

  Clips show scenes that may be trained on; labels are drawn evenly.
  """
  rng = np.random.default_rng(seed)
  known = scenes.training_scenes()
  frames, truths = [], []
  for _ in range(num_clips):
    scene = known[rng.integers(len(known))]
    clip = flaws.draw_clip(scene, rng, _draw_labels(rng) | {'semantic': 'Good'})
    frames.append(_seen(clip, rng.random() < soft_share, rng))
    truths.append(truth_of(clip.shown, clip.fidelity, clip.motion))
  return np.stack(frames), truths


def _draw_labels(rng: np.random.Generator) -> dict[str, str]:
  return {dimension: str(rng.choice(LABELS)) for dimension in DIMENSIONS}


def _seen(clip: ToyClip, is_soft: bool, rng: np.random.Generator) -> np.ndarray:
  """uint8 [T, H, W, 3], what a critic sees of a clip."""
  chosen = evenly_spaced_frames(len(clip.frames_thw3), NUM_FRAMES)
  frames_thw3 = clip.frames_thw3[chosen]
  return soften(frames_thw3, rng) if is_soft else frames_thw3


class ExampleSampler:
  """Draws a question about a clip, with its answer, each time it is asked.

  Args:
    frames_cthw3: of the clips.
    truths: about them.
    tokenizer: of the critic.
    selection: what the critic sees of each clip.
    config: of the training.
  """

  def __init__(
    self,
    frames_cthw3: np.ndarray,
    truths: Sequence[Measured],
    tokenizer: PromptTokenizer,
    selection: FrameSelection,
    config: CriticPretrainConfig,
  ):
    self.num_clips = len(truths)
    self._frames_cthw3 = frames_cthw3
    self._truths = truths
    self._tokenizer = tokenizer
    self._selection = selection
    self._config = config
    self._questions = read_questions(feedback.questions_path())
    self._known = frozenset(scenes.training_scenes())

  def __call__(self, numbers: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
    """Arrays of these clips, one example for each.

    Args:
      numbers: of the clips.
      step: of the training; decides what is drawn.

    Returns:
      As in `CriticBatch`, frames [B, T, H, W, 3], tokens [B, N], targets
      [B, N]; and the weight of the first token of each answer [B].
    """
    rng = np.random.default_rng((self._config.seed, 1, step))
    training = self._config.training
    progress = training.optimizer.cycles * step / training.steps % 1.0
    drawn = [
      self.draw(self._truths[number], rng, progress) for number in numbers
    ]
    tokens_bn, is_target_bn = pad_sequences(
      [
        self._tokenizer.training(
          caption,
          question,
          self._selection,
          answer,
          # As in published feedback, and as critics are asked.
          space_before_caption=bool(rng.integers(2)),
        )
        for caption, question, answer in drawn
      ],
      self._tokenizer.pad_id,
      self._selection.num_positions + self._config.text_places,
    )
    weight_b = [
      1.0 if question == DESCRIBE else self._config.label_weight
      for _, question, _ in drawn
    ]
    return (
      self._frames_cthw3[numbers],
      tokens_bn,
      is_target_bn,
      np.array(weight_b, np.float32),
    )

  def draw(
    self, truth: Measured, rng: np.random.Generator, progress: float
  ) -> tuple[str, str, str]:
    """Caption, question and answer for a clip.

    Args:
      truth: about the clip.
      rng: draws the kind of question.
      progress: share of the cycle that is behind, which decides how often.
    """
    config = self._config
    describes, compares = (
      first + (last - first) * progress
      for first, last in (config.describe_share, config.compare_share)
    )
    shown = Scene(**truth.shown)
    kind = rng.random()
    if kind < describes:
      verdicts = checkers.judge(shown, truth)
      told = [verdicts[name].rationale for name in ('fidelity', 'motion')]
      return '', DESCRIBE, ' '.join((shown.caption, *told))
    if kind < describes + compares:
      return self._draw_compared(shown, truth, rng)
    dimension = str(rng.choice(DIMENSIONS))
    asked = self._draw_asked(shown, rng)
    verdict = checkers.judge(asked, truth)[dimension]
    answer = f'{verdict.label}. {verdict.rationale}'
    return asked.caption, self._questions[dimension], answer

  def _draw_compared(
    self, shown: Scene, truth: Measured, rng: np.random.Generator
  ) -> tuple[str, str, str]:
    """Caption, question and answer about one attribute, whatever the others."""
    name = str(rng.choice(scenes.ATTRIBUTES))
    wanted = getattr(shown, name)
    if rng.integers(2):
      others = [word for word in scenes.values_of(name) if word != wanted]
      wanted = str(rng.choice(others))
    while True:
      asked = self._draw_asked(shown, rng)
      asked = dataclasses.replace(asked, **{name: wanted})
      if asked in self._known:
        break
    differs_there = dataclasses.replace(shown, **{name: wanted})
    verdict = checkers.judge(differs_there, truth)['semantic']
    label = 'Good' if verdict.label == 'Good' else 'Bad'
    answer = f'{label}. {verdict.rationale}'
    return asked.caption, COMPARE.format(name), answer

  def _draw_asked(self, shown: Scene, rng: np.random.Generator) -> Scene:
    """A caption for a clip, which fits equally often well, half or badly."""
    label = str(rng.choice(LABELS))
    while True:
      # What passes for another as a label says does so the other way round.
      asked = flaws.draw_mismatch(shown, label, rng)
      if asked in self._known:
        return asked


def pad_sequences(
  sequences: Sequence[tuple[list[int], list[bool]]], pad_id: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
  """Tokens int32 and targets bool [B, N] of what `tokenizer.training` gives.

  The ends of sequences of more than `length` tokens N are cut off.
  """
  shape = len(sequences), length
  tokens_bn = np.full(shape, pad_id, np.int32)
  is_target_bn = np.zeros(shape, bool)
  for row, pair in enumerate(sequences):
    tokens, is_target = (values[:length] for values in pair)
    tokens_bn[row, : len(tokens)] = tokens
    is_target_bn[row, : len(tokens)] = is_target
  return tokens_bn, is_target_bn


def _init(model: FunctionalModel, seed: int) -> Params:
  params = jax.jit(model.init)(jax.random.key(seed))
  embedding = params['llm']['token_embedding']
  embedding['embedding'] *= _EMBEDDING_STDDEV / INIT_STDDEV
  return params


def _train_critic(
  model: FunctionalModel,
  params: Params,
  sampler: ExampleSampler,
  config: CriticPretrainConfig,
  run: Pretraining,
) -> Params:
  def loss_fn(params, frames, tokens_bn, is_target_bn, weight_b, key):
    del key
    # An answer takes fewer tokens than the text of its sequence.
    loss_bk, is_there_bk, is_right_bk = answer_losses(
      model,
      params,
      _batch(frames, tokens_bn, is_target_bn),
      config.text_places // 2,
    )
    weight_bk = is_there_bk.astype(jnp.float32).at[:, 0].set(weight_b)
    is_judged_b = weight_b != 1
    num_judged = jnp.maximum(jnp.sum(is_judged_b), 1)
    return jnp.sum(weight_bk * loss_bk) / jnp.sum(weight_bk), {
      'labels right': jnp.sum(is_right_bk[:, 0] * is_judged_b) / num_judged,
      'label loss': jnp.sum(loss_bk[:, 0] * is_judged_b) / num_judged,
    }

  return train(
    'critic',
    params,
    loss_fn,
    sampler,
    sampler.num_clips,
    config.training,
    run,
  )


def _batch(frames, tokens_bn, is_target_bn) -> CriticBatch:
  ones_bn = jnp.ones_like(tokens_bn)
  return CriticBatch(frames, tokens_bn, is_target_bn, ones_bn, ones_bn[:, 0])


def label_accuracy(
  model: FunctionalModel,
  params: Params,
  critic: Critic,
  config: CriticPretrainConfig,
) -> dict[str, float]:
  """How often answers begin with the right token, by dimension.

  Clips are new ones, for prompts that are held out, as drawn and unsoftened.
  """
  rng = np.random.default_rng((config.seed, 2))
  asked = scenes.held_out_scenes()
  questions = read_questions(feedback.questions_path())
  tokenizer = critic.open_tokenizer(TEMPLATE)
  selection = critic.frames.select(CLIP)

  @jax.jit
  def is_right(params, *arrays):
    return answer_losses(model, params, _batch(*arrays), 1)[2][:, 0]

  num_right = dict.fromkeys(DIMENSIONS, 0)
  for _ in range(config.num_eval_clips):
    scene = asked[rng.integers(len(asked))]
    clip = flaws.draw_clip(scene, rng, _draw_labels(rng))
    frames_thw3 = _seen(clip, False, rng)
    tokens_bn, is_target_bn = pad_sequences(
      [
        tokenizer.training(
          clip.caption,
          questions[dimension],
          selection,
          f'{label}.',
          space_before_caption=False,
        )
        for dimension, label in clip.labels.items()
      ],
      tokenizer.pad_id,
      selection.num_positions + config.text_places,
    )
    frames_bthw3 = np.stack([frames_thw3] * len(DIMENSIONS))
    right_b = is_right(params, frames_bthw3, tokens_bn, is_target_bn)
    for dimension, right in zip(clip.labels, right_b, strict=True):
      num_right[dimension] += bool(right)
  return {
    dimension: count / config.num_eval_clips
    for dimension, count in num_right.items()
  }
