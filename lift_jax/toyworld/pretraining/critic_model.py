"""Pretraining of the toy world's critic from scratch.

Clips are rendered with known flaws, so that the answers are known. The vision
tower is trained first (`vision_tower`), then the full critic. There are three
types of examples:

* the questions that annotators are asked, with all labels equally often;
* descriptions of content, image quality and motion, without a caption, as a
  label has only 1.6 bits to learn from;
* questions about a single attribute of the caption, as a label for the full
  caption does not tell which of five attributes differs.

The last two are more frequent at the start of training. No example has a
held-out prompt, or a clip of one.

B examples  C clips  T frames that a critic reads  H W height and width  N
tokens of a sequence  K answer tokens at most
"""

from collections.abc import Sequence
import dataclasses
import logging
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.data.hra import DIMENSIONS, LABELS, read_questions
from lift_jax.data.video import ClipInfo
from lift_jax.models import critic_protocols, critics
from lift_jax.models.critic_protocols import FrameSelection
from lift_jax.models.critics import Critic
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.llama.decoder import INIT_STDDEV
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.models.vila import folder as vila_folder
from lift_jax.models.vila import prompt, tiny_tokenizer
from lift_jax.models.vila.config import VilaConfig
from lift_jax.models.vila.projector import ProjectorConfig
from lift_jax.models.vila.tokenizer import PromptTokenizer
from lift_jax.toyworld import annotators, checkers, feedback, flaws, scenes
from lift_jax.toyworld.flaws import Flaw
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

# Question about a clip without a caption.
DESCRIBE = ' Describe the clip.'

# Question about one attribute of the caption.
COMPARE = ' Does the {} show what the text says?'

# All clips have as many frames, and the critic reads all of them: a jump or a
# halt may be between any two.
NUM_FRAMES = 9
CLIP = ClipInfo(NUM_FRAMES, fps=8.0, height=32, width=32)

# Large enough for every word of the toy world to be one token.
_VOCAB_SIZE = 704

# Of initial embeddings: about that of image tokens. With the published value
# they would be negligible next to the output of the first layer.
_EMBEDDING_STDDEV = 0.5


@dataclasses.dataclass(frozen=True)
class CriticPretrainConfig:
  """Sizes of the critic, its training data and stages.

  Attributes:
    seed: of clips, questions and parameters.
    num_clips: size of the training set.
    soft_share: fraction of clips that are softened as by an autoencoder.
    describe_share: fraction of examples that ask for a description, at the
      first and at the last step of each cycle of the learning rate; linear in
      between.
    compare_share: likewise, of examples that ask about one attribute.
    label_weight: weight in the loss of the first token of a rating, from which
      rewards are computed; other tokens of answers have weight 1.
    text_places: token positions of a sequence for text. Longer answers are
      truncated, as shorter sequences are faster.
    vision_tower: sizes.
    llm: sizes; its vocabulary is that of the tokenizer.
    vision: training stage of the vision tower.
    training: training stage of the full critic.
    num_eval_clips: held-out clips for the final evaluation.
    dtype: of the stored weights.
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
  """Trains a critic and writes its folder in the published format.

  Args:
    target: the folder to write; an existing one is replaced.
    config: of the pretraining.
    logger: for progress.
  """
  with (
    tempfile.TemporaryDirectory() as scratch,
    pretraining(target, config.seed, logger) as run,
  ):
    draft = write_draft(pathlib.Path(scratch), config)
    tokenizer = draft.open_tokenizer(TEMPLATE)
    model = functional(draft.build())
    logger.info('pretrain: rendering %d clips', config.num_clips)
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
      'pretrain: label accuracy on %d clips of held-out prompts: %s',
      config.num_eval_clips,
      ', '.join(f'{name} {rate:.1%}' for name, rate in accuracy.items()),
    )
    draft.write(target, params, config.dtype)


def write_draft(path: pathlib.Path, config: CriticPretrainConfig) -> Critic:
  """Writes tokenizer and configs of a critic, without weights."""
  llm_path = path / vila_folder.LLM
  template = prompt.get_template(TEMPLATE)
  tiny_tokenizer.write(llm_path, texts(), _VOCAB_SIZE, template)
  tower = config.vision_tower
  tokenizer = PromptTokenizer(llm_path, TEMPLATE, 1)
  llm = dataclasses.replace(config.llm, vocab_size=tokenizer.vocab_size)
  projector = ProjectorConfig(vision_width=tower.width, width=llm.width)
  sizes = VilaConfig(tower, projector, llm, NUM_FRAMES)
  vila_folder.write_configs(path, sizes, {})
  return critics.open_critic(path)


def texts() -> list[str]:
  """Texts with every word of captions, questions and answers."""
  found = [scene.caption for scene in scenes.all_scenes()]
  found += [*read_questions(feedback.questions_path()).values(), DESCRIBE]
  found += [COMPARE.format(name) for name in scenes.ATTRIBUTES]
  asked, *others = scenes.all_scenes()
  clean = truth_of(asked, None, None)
  measured = [clean, *(truth_of(other, None, None) for other in others)]
  for label in ('Normal', 'Bad'):
    for kind in flaws.FIDELITY_KINDS:
      measured.append(truth_of(asked, Flaw(kind, label), None))
    for kind in flaws.MOTION_KINDS:
      measured.append(truth_of(asked, None, Flaw(kind, label)))
  # Verdicts that only generated clips get: a shape that is missing in some or
  # all frames, and nothing that resembles the caption.
  for fidelity in ({'vanishing': 0.1}, {'vanishing': 0.5}, {}):
    measured.append(dataclasses.replace(clean, fidelity=fidelity))
  unlike = dict.fromkeys(scenes.ATTRIBUTES)
  measured.append(dataclasses.replace(clean, shown=unlike))
  for clip in measured:
    verdicts = checkers.judge(asked, clip)
    found += [verdict.rationale for verdict in verdicts.values()]
  found += annotators.vague_texts()
  return list(dict.fromkeys(found))


def draw_clips(
  num_clips: int, soft_share: float, seed: int
) -> tuple[np.ndarray, list[Measured]]:
  """Renders clips uint8 [C, T, H, W, 3], with the truth about each of them.

  Clips are of training scenes; labels are uniform.
  """
  rng = np.random.default_rng(seed)
  training = scenes.training_scenes()
  frames, truths = [], []
  for _ in range(num_clips):
    scene = training[rng.integers(len(training))]
    clip = flaws.draw_clip(scene, rng, _draw_labels(rng) | {'semantic': 'Good'})
    is_soft = rng.random() < soft_share
    frames.append(
      soften(clip.frames_thw3, rng) if is_soft else clip.frames_thw3
    )
    truths.append(truth_of(clip.shown, clip.fidelity, clip.motion))
  return np.stack(frames), truths


def _draw_labels(rng: np.random.Generator) -> dict[str, str]:
  return {dimension: str(rng.choice(LABELS)) for dimension in DIMENSIONS}


class ExampleSampler:
  """Samples questions about clips, with their answers.

  Args:
    frames_cthw3: of the clips.
    truths: about each clip.
    tokenizer: of the critic.
    selection: frame selection of all clips.
    config: of the pretraining.
  """

  def __init__(
    self,
    frames_cthw3: np.ndarray,
    truths: Sequence[Measured],
    tokenizer: critic_protocols.Tokenizer,
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
    self._training_scenes = frozenset(scenes.training_scenes())

  def __call__(self, indices: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
    """Samples a batch with one example for each of these clips.

    Args:
      indices: of the clips.
      step: of the training; seeds the sampling.

    Returns:
      As in `CriticBatch`, frames [B, T, H, W, 3], tokens [B, N], targets
      [B, N]; and the weight of the first token of each answer [B].
    """
    rng = np.random.default_rng((self._config.seed, 1, step))
    training = self._config.training
    progress = training.optimizer.cycles * step / training.steps % 1.0
    examples = [
      self.draw(self._truths[index], rng, progress) for index in indices
    ]
    tokens_bn, is_target_bn = pad_sequences(
      [
        self._tokenizer.training(
          caption,
          question,
          self._selection,
          answer,
          # Both formats: of published feedback, and of inference.
          space_before_caption=bool(rng.integers(2)),
        )
        for caption, question, answer in examples
      ],
      self._tokenizer.pad_id,
      self._selection.num_positions + self._config.text_places,
    )
    weight_b = [
      1.0 if question == DESCRIBE else self._config.label_weight
      for _, question, _ in examples
    ]
    return (
      self._frames_cthw3[indices],
      tokens_bn,
      is_target_bn,
      np.array(weight_b, np.float32),
    )

  def draw(
    self, truth: Measured, rng: np.random.Generator, progress: float
  ) -> tuple[str, str, str]:
    """Samples caption, question and answer for a clip.

    Args:
      truth: about the clip.
      rng: random generator.
      progress: completed fraction of the learning rate cycle, on which the
        frequencies of the types of questions depend.
    """
    config = self._config
    describes, compares = (
      first + (last - first) * progress
      for first, last in (config.describe_share, config.compare_share)
    )
    attributes: dict[str, Any] = dict(truth.shown)  # a truth has them all
    shown = Scene(**attributes)
    kind = rng.random()
    if kind < describes:
      verdicts = checkers.judge(shown, truth)
      rationales = [verdicts[name].rationale for name in ('fidelity', 'motion')]
      return '', DESCRIBE, ' '.join((shown.caption, *rationales))
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
    """Caption, question and answer about one attribute, ignoring the others."""
    name = str(rng.choice(scenes.ATTRIBUTES))
    wanted = getattr(shown, name)
    if rng.integers(2):
      others = [word for word in scenes.values_of(name) if word != wanted]
      wanted = str(rng.choice(others))
    while True:
      asked = self._draw_asked(shown, rng)
      asked = dataclasses.replace(asked, **{name: wanted})
      if asked in self._training_scenes:
        break
    differs_in_name = dataclasses.replace(shown, **{name: wanted})
    verdict = checkers.judge(differs_in_name, truth)['semantic']
    label = 'Good' if verdict.label == 'Good' else 'Bad'
    answer = f'{label}. {verdict.rationale}'
    return asked.caption, COMPARE.format(name), answer

  def _draw_asked(self, shown: Scene, rng: np.random.Generator) -> Scene:
    """Samples a caption for a clip, with uniform labels for their match."""
    label = str(rng.choice(LABELS))
    while True:
      # Mismatches are symmetric in the scenes asked for and shown.
      asked = flaws.draw_mismatch(shown, label, rng)
      if asked in self._training_scenes:
        return asked


def pad_sequences(
  sequences: Sequence[tuple[list[int], list[bool]]], pad_id: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
  """Tokens int32 and targets bool [B, N] of results of `tokenizer.training`.

  Sequences are truncated or padded to `length` tokens N.
  """
  shape = len(sequences), length
  tokens_bn = np.full(shape, pad_id, np.int32)
  is_target_bn = np.zeros(shape, bool)
  for index, sequence in enumerate(sequences):
    tokens, is_target = (values[:length] for values in sequence)
    tokens_bn[index, : len(tokens)] = tokens
    is_target_bn[index, : len(tokens)] = is_target
  return tokens_bn, is_target_bn


def _init(model: FunctionalModel, seed: int) -> Params:
  params = jax.jit(model.init)(jax.random.key(seed))
  embedding = params['llm']['token_embedding']
  embedding['embedding'] *= _EMBEDDING_STDDEV / INIT_STDDEV
  return params


def _answer_losses(
  model: FunctionalModel, params: Params, batch: CriticBatch, max_targets: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  hidden_bnd = model(params, batch.frames, batch.tokens)
  return answer_losses(model, params, hidden_bnd, batch, max_targets)


def _train_critic(
  model: FunctionalModel,
  params: Params,
  sampler: ExampleSampler,
  config: CriticPretrainConfig,
  run: Pretraining,
) -> Params:
  def loss_fn(params, frames, tokens_bn, is_target_bn, weight_b, key):
    del key
    # An answer is at most half of the text.
    loss_bk, is_there_bk, is_right_bk = _answer_losses(
      model,
      params,
      make_batch(frames, tokens_bn, is_target_bn),
      config.text_places // 2,
    )
    weight_bk = is_there_bk.astype(jnp.float32).at[:, 0].set(weight_b)
    is_rating_b = weight_b != 1
    num_ratings = jnp.maximum(jnp.sum(is_rating_b), 1)
    return jnp.sum(weight_bk * loss_bk) / jnp.sum(weight_bk), {
      'label accuracy': jnp.sum(is_right_bk[:, 0] * is_rating_b) / num_ratings,
      'label loss': jnp.sum(loss_bk[:, 0] * is_rating_b) / num_ratings,
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


def make_batch(frames, tokens_bn, is_target_bn) -> CriticBatch:
  """A batch without padding of the prompt, all examples alike."""
  ones_bn = jnp.ones_like(tokens_bn)
  return CriticBatch(frames, tokens_bn, is_target_bn, ones_bn, ones_bn[:, 0])


def label_accuracy(
  model: FunctionalModel,
  params: Params,
  critic: Critic,
  config: CriticPretrainConfig,
) -> dict[str, float]:
  """Accuracy of the first token of answers, by dimension.

  Clips are of held-out prompts, and not softened.
  """
  rng = np.random.default_rng((config.seed, 2))
  held_out = scenes.held_out_scenes()
  questions = read_questions(feedback.questions_path())
  tokenizer = critic.open_tokenizer(TEMPLATE)
  selection = critic.frames.select(CLIP)

  @jax.jit
  def is_right(params, *arrays):
    return _answer_losses(model, params, make_batch(*arrays), 1)[2][:, 0]

  num_right = dict.fromkeys(DIMENSIONS, 0)
  for _ in range(config.num_eval_clips):
    scene = held_out[rng.integers(len(held_out))]
    clip = flaws.draw_clip(scene, rng, _draw_labels(rng))
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
    frames_bthw3 = np.stack([clip.frames_thw3] * len(DIMENSIONS))
    right_b = is_right(params, frames_bthw3, tokens_bn, is_target_bn)
    for dimension, right in zip(clip.labels, right_b, strict=True):
      num_right[dimension] += bool(right)
  return {
    dimension: count / config.num_eval_clips
    for dimension, count in num_right.items()
  }
