"""Training of the toy critic on clips of the video model.

It starts from a critic that was trained on drawn clips (`critic_model`), and
has two stages:

* the vision tower learns to measure: a linear head on the mean of a frame's
  tokens predicts positions and, averaged over the frames, attributes of the
  scene and strengths of flaws;
* then, with the vision tower frozen, the language model learns to rate. At the
  position of the label another linear head predicts which attributes are wrong
  and how strong each flaw is.

Both heads are then discarded. Labels alone would have too few bits for small
differences between strengths. Clips are mirrored and played backwards at
random.

B examples  C clips  T frames  N tokens  K answer tokens at most  D width
F flaws
"""

from collections.abc import Mapping, Sequence
import dataclasses
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lift_jax.data.hra import LABELS, read_questions
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.models import critic_protocols, critics
from lift_jax.models.critic_protocols import FrameSelection
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.toyworld import checkers, feedback, flaws, scenes
from lift_jax.toyworld.measures import Measured
from lift_jax.toyworld.pretraining import critic_model, generated
from lift_jax.toyworld.pretraining.generated import MeasuredClip
from lift_jax.toyworld.pretraining.loop import (
  Pretraining,
  StageConfig,
  pretraining,
  train,
)
from lift_jax.toyworld.scenes import Scene
from lift_jax.training.critic_step import answer_states

VISION = ('vision_tower', 'projector')

# Attributes that are visible in a single frame.
_VISIBLE = ('size', 'colour', 'shape', 'background')

# Units of the strengths of flaws in the loss: about the differences that matter
# between generated clips.
_FIDELITY_UNITS = {
  'noise': 10.0,
  'hole': 0.1,
  'blur': 0.25 / 32,
  'deformation': 0.04,
  'vanishing': 0.2,
}
_MOTION_UNITS = {
  'jitter': 0.3 / 32,
  'teleport': 1 / 32,
  'freeze': 0.1,
  'drop': 0.1,
}
_POSITION_UNIT = 1 / 32
_MAX_STRENGTH = 8.0  # in units
_SMOOTH = 0.1  # error at which a loss changes from quadratic to linear

# Weights in the losses.
_CLASS_WEIGHT, _MEASURE_WEIGHT = 0.3, 2.0
_LABEL_WEIGHT, _RATIONALE_WEIGHT = 3.0, 0.25

_MAX_ANSWER = 20  # tokens that are trained on

# How often a dimension is asked for; the most difficult one most often.
_ASKED = {'semantic': 0.4, 'motion': 0.35, 'fidelity': 0.25}
# How often a clip keeps its prompt, so that labels are about as frequent as in
# ratings of generated clips. Otherwise a prompt is drawn with uniform labels.
_OWN_PROMPT = 0.6


@dataclasses.dataclass(frozen=True)
class RefinementConfig:
  """Training data and stages.

  Attributes:
    seed: of clips, questions and the order of training.
    num_generated: clips that the video model samples.
    num_autoencoded: drawn clips that go through its autoencoder.
    sampler: settings of the sampler.
    text_places: token positions of a sequence for text.
    vision: training stage of the vision tower.
    ratings: training stage of the language model.
    dtype: of the stored weights.
  """

  seed: int
  num_generated: int
  num_autoencoded: int
  sampler: SamplerConfig
  text_places: int
  vision: StageConfig
  ratings: StageConfig
  dtype: str


def refine(
  target: pathlib.Path,
  critic: pathlib.Path,
  model: pathlib.Path,
  config: RefinementConfig,
  logger: logging.Logger,
) -> None:
  """Trains a critic further and writes its folder in the published format.

  Args:
    target: the folder to write; an existing one is replaced.
    critic: folder of the critic of drawn clips.
    model: folder of the video model.
    config: of the training.
    logger: for progress.
  """
  clips = generated.sample(
    model, config.num_generated, config.sampler, config.seed, logger
  )
  clips += generated.autoencode(
    model, config.num_autoencoded, config.seed, logger
  )
  opened = critics.open_critic(critic)
  network = functional(opened.build())
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  shardings = jax.tree.map(lambda _: here, network.abstract_params)
  params = opened.load(network, shardings, jnp.float32)
  sampler = RatingSampler(
    clips,
    opened.open_tokenizer(critic_model.TEMPLATE),
    opened.frames.select(critic_model.CLIP),
    config.text_places,
    config.seed,
  )
  with pretraining(target, config.seed, logger) as run:
    params = refine_vision(network, params, clips, config.vision, run)
    params = refine_ratings(
      network, params, sampler, len(clips), config.ratings, run
    )
    opened.write(target, params, config.dtype)


def _strengths(
  measures: Mapping[str, float], units: Mapping[str, float]
) -> np.ndarray:
  """Strengths of flaws in their units, [F]; zeros if nothing was measured."""
  values = [measures.get(kind, 0.0) / unit for kind, unit in units.items()]
  return np.minimum(values, _MAX_STRENGTH).astype(np.float32)


def _smooth(error: jax.Array) -> jax.Array:
  return jnp.sqrt(error**2 + _SMOOTH**2) - _SMOOTH


def _varied(clip: MeasuredClip, rng: np.random.Generator) -> MeasuredClip:
  for change in (generated.mirrored, generated.backwards):
    if rng.random() < 0.5:
      clip = change(clip)
  return clip


def _num_classes() -> list[int]:
  """Of the visible attributes, and of the label of fidelity."""
  return [*(len(scenes.values_of(name)) for name in _VISIBLE), len(LABELS)]


class VisionSampler:
  """Batches of the first stage: clips and what is measured of them."""

  def __init__(self, clips: Sequence[MeasuredClip], seed: int):
    self._clips, self._seed = clips, seed

  def __call__(self, indices: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
    """Samples a batch.

    Returns:
      frames [B, T, H, W, 3], positions [B, T, 2] from the middle in pixels of
      32, whether the clip has a shape in each frame [B], classes [B, A] with -1
      for unknown ones, strengths [B, F].
    """
    rng = np.random.default_rng((self._seed, 3, step))
    clips = [_varied(self._clips[index], rng) for index in indices]
    examples = [self._example(clip) for clip in clips]
    return tuple(map(np.stack, zip(*examples, strict=True)))

  def _example(self, clip: MeasuredClip) -> tuple[np.ndarray, ...]:
    measured = clip.measured
    path_t2 = measured.path_t2
    has_path = path_t2 is not None and bool(np.isfinite(path_t2).all())
    if not has_path:
      path_t2 = np.zeros((len(clip.frames_thw3), 2))
    label = checkers.judge(clip.asked, measured)['fidelity'].label
    classes = []
    for name in _VISIBLE:
      value = measured.shown[name]
      classes.append(
        -1 if value is None else scenes.values_of(name).index(value)
      )
    return (
      clip.frames_thw3,
      ((path_t2 - 0.5) / _POSITION_UNIT).astype(np.float32),
      np.array(has_path, np.float32),
      np.array([*classes, LABELS.index(label)], np.int32),
      _strengths(measured.fidelity, _FIDELITY_UNITS),
    )


def refine_vision(
  model: FunctionalModel,
  params: Params,
  clips: Sequence[MeasuredClip],
  config: StageConfig,
  run: Pretraining,
) -> Params:
  """Trains vision tower and projector; returns the parameters of the critic.

  Args:
    model: the critic.
    params: of a critic of drawn clips, donated.
    clips: to train on.
    config: of the stage.
    run: the pretraining that it is a stage of.
  """
  sizes = _num_classes()
  num_flaws = len(_FIDELITY_UNITS)
  vision = {part: params[part] for part in VISION}
  frozen = {part: value for part, value in params.items() if part not in vision}
  width = params['llm']['token_embedding']['embedding'].shape[-1]
  head = jnp.zeros((width + 1, sum(sizes) + num_flaws + 2))

  def loss_fn(
    trained, frames_bthw3, position_bt2, has_path_b, classes_ba, flaws_bf, key
  ):
    del key
    batch, num_frames = frames_bthw3.shape[:2]
    tokens = model(
      trained['vision'] | frozen, frames_bthw3, method='encode_frames'
    )
    mean_btd = jnp.mean(tokens.reshape(batch, num_frames, -1, width), axis=2)
    # RMS norm, as before the first layer of the decoder.
    rms_bt1 = jnp.sqrt(jnp.mean(mean_btd**2, axis=-1, keepdims=True) + 1e-6)
    out_bt = mean_btd / rms_bt1 @ trained['head'][:-1]
    out_bt += trained['head'][-1][None, None]
    *logits, strength_bf = jnp.split(
      jnp.mean(out_bt[..., :-2], axis=1), np.cumsum(sizes), axis=-1
    )
    class_loss = sum(
      jnp.mean(_cross_entropy(task, classes_ba[:, number]))
      for number, task in enumerate(logits)
    )
    position_error = (8 * out_bt[..., -2:] - position_bt2) * has_path_b[
      :, None, None
    ]
    strength_error = strength_bf - flaws_bf
    measure_loss = jnp.mean(_smooth(position_error)) + jnp.mean(
      _smooth(strength_error)
    )
    rate = jnp.mean(jnp.argmax(logits[-1], axis=-1) == classes_ba[:, -1])
    return _CLASS_WEIGHT * class_loss + _MEASURE_WEIGHT * measure_loss, {
      'position error': jnp.sqrt(jnp.mean(position_error**2)),
      'strength error': jnp.mean(jnp.abs(strength_error)),
      'fidelity accuracy': rate,
    }

  trained = train(
    'generated vision',
    {'vision': vision, 'head': head},
    loss_fn,
    VisionSampler(clips, run.seed),
    len(clips),
    config,
    run,
  )
  return frozen | trained['vision']


def _cross_entropy(logits_bk: jax.Array, class_b: jax.Array) -> jax.Array:
  """[B], 0 for unknown classes of -1."""
  losses_b = optax.softmax_cross_entropy_with_integer_labels(
    logits_bk, jnp.maximum(class_b, 0)
  )
  return jnp.where(class_b < 0, 0, losses_b)


def num_measures() -> int:
  """Number of outputs of the second head."""
  return len(scenes.ATTRIBUTES) + len(_MOTION_UNITS) + len(_FIDELITY_UNITS)


class RatingSampler:
  """Batches of the second stage: questions about clips, with their answers.

  Args:
    clips: to ask about.
    tokenizer: of the critic.
    selection: frame selection of all clips.
    text_places: token positions of a sequence for text.
    seed: of the sampling.
  """

  def __init__(
    self,
    clips: Sequence[MeasuredClip],
    tokenizer: critic_protocols.Tokenizer,
    selection: FrameSelection,
    text_places: int,
    seed: int,
  ):
    self._clips, self._tokenizer, self._seed = clips, tokenizer, seed
    self._selection = selection
    self._length = selection.num_positions + text_places
    self._questions = read_questions(feedback.questions_path())
    self._training_scenes = frozenset(scenes.training_scenes())

  def __call__(self, indices: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
    """Samples a batch with a question about each clip.

    Returns:
      As in `CriticBatch`, frames [B, T, H, W, 3], tokens [B, N], targets
      [B, N]; and the values that the head predicts, and their weights [B, M].
    """
    rng = np.random.default_rng((self._seed, 4, step))
    examples = [self.draw(self._clips[index], rng) for index in indices]
    frames, sequences, values, weights = zip(*examples, strict=True)
    tokens_bn, is_target_bn = critic_model.pad_sequences(
      sequences, self._tokenizer.pad_id, self._length
    )
    return (
      np.stack(frames), tokens_bn, is_target_bn, np.stack(values),
      np.stack(weights),
    )  # fmt: skip

  def draw(
    self, clip: MeasuredClip, rng: np.random.Generator
  ) -> tuple[np.ndarray, tuple[list[int], list[bool]], np.ndarray, np.ndarray]:
    """Samples a question: frames, sequence, values and weights of the head."""
    clip = _varied(clip, rng)
    dimension = str(rng.choice(list(_ASKED), p=list(_ASKED.values())))
    asked = self._draw_prompt(clip, rng)
    verdict = checkers.judge(asked, clip.measured)[dimension]
    sequence = self._tokenizer.training(
      asked.caption,
      self._questions[dimension],
      self._selection,
      f'{verdict.label}. {verdict.rationale}',
      # Both formats: of published feedback, and of inference.
      space_before_caption=bool(rng.integers(2)),
    )
    values, weights = _head_targets(asked, clip.measured, dimension)
    return clip.frames_thw3, sequence, values, weights

  def _draw_prompt(self, clip: MeasuredClip, rng: np.random.Generator) -> Scene:
    """Its own prompt, or one with uniform labels for the match."""
    attributes: dict[str, Any] = dict(clip.measured.shown)
    is_own = rng.random() < _OWN_PROMPT and clip.asked in self._training_scenes
    if is_own or None in attributes.values():
      return clip.asked
    shown = Scene(**attributes)
    while True:
      # The scene that is shown, Good, may be a held-out one.
      label = str(rng.choice(LABELS))
      # Mismatches are symmetric in the scenes asked for and shown.
      asked = flaws.draw_mismatch(shown, label, rng)
      if asked in self._training_scenes:
        return asked


def _head_targets(
  asked: Scene, measured: Measured, dimension: str
) -> tuple[np.ndarray, np.ndarray]:
  """Values of the second head, and their weights, 0 for other dimensions."""
  wrong = flaws.mismatches(dataclasses.asdict(asked), measured.shown)
  parts = {
    'semantic': np.array([name in wrong for name in scenes.ATTRIBUTES]),
    'motion': _strengths(measured.motion, _MOTION_UNITS),
    'fidelity': _strengths(measured.fidelity, _FIDELITY_UNITS),
  }
  weights = [
    np.full(len(part), name == dimension, np.float32)
    for name, part in parts.items()
  ]
  values = np.concatenate(list(parts.values()), dtype=np.float32)
  return values, np.concatenate(weights)


def refine_ratings(
  model: FunctionalModel,
  params: Params,
  sampler: RatingSampler,
  num_clips: int,
  config: StageConfig,
  run: Pretraining,
) -> Params:
  """Trains the language model; returns the parameters of the critic.

  Args:
    model: the critic.
    params: its parameters, donated.
    sampler: of batches.
    num_clips: that it samples from.
    config: of the stage.
    run: the pretraining that it is a stage of.
  """
  llm = params['llm']
  frozen = {part: value for part, value in params.items() if part != 'llm'}
  width = llm['token_embedding']['embedding'].shape[-1]
  num_attributes = len(scenes.ATTRIBUTES)

  def loss_fn(trained, frames, tokens_bn, is_target_bn, value_bm, weight_bm, _):
    params = frozen | {'llm': trained['llm']}
    batch = critic_model.make_batch(frames, tokens_bn, is_target_bn)
    hidden_bkd, target_bk, is_token_bk = answer_states(
      model(params, batch.frames, batch.tokens), batch, _MAX_ANSWER
    )
    logits_bkv = model(params, hidden_bkd, method='logits')
    loss_bk = optax.softmax_cross_entropy_with_integer_labels(
      logits_bkv, target_bk
    )
    weight_bk = jnp.where(is_token_bk, _RATIONALE_WEIGHT, 0)
    weight_bk = weight_bk.at[:, 0].set(_LABEL_WEIGHT)
    answer_loss = jnp.sum(weight_bk * loss_bk) / jnp.sum(weight_bk)
    out_bm = hidden_bkd[:, 0] @ trained['head'][:-1]
    out_bm += trained['head'][-1][None]
    is_attribute_1m = jnp.arange(out_bm.shape[1])[None] < num_attributes
    head_loss_bm = jnp.where(
      is_attribute_1m,
      optax.sigmoid_binary_cross_entropy(out_bm, value_bm),
      _smooth(out_bm - value_bm),
    )
    head_loss = jnp.sum(weight_bm * head_loss_bm) / jnp.sum(weight_bm)
    is_right_b = jnp.argmax(logits_bkv[:, 0], axis=-1) == target_bk[:, 0]
    return answer_loss + head_loss, {
      'label accuracy': jnp.mean(is_right_b),
      'label loss': jnp.mean(loss_bk[:, 0]),
      'head loss': head_loss,
    }

  trained = train(
    'generated ratings',
    {'llm': llm, 'head': jnp.zeros((width + 1, num_measures()))},
    loss_fn,
    sampler,
    num_clips,
    config,
    run,
  )
  return frozen | {'llm': trained['llm']}
