"""Pretraining of the toy critic's vision tower and projector.

Published critics are built on pretrained vision towers. Here tower and
projector are pretrained on single frames: a linear head on the mean of a
frame's tokens predicts the attributes of the scene, the flaw of the image and
the position of the shape, and is then discarded.

C clips  T frames of each  H W height and width  A attributes  D token width
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.toyworld import flaws, scenes
from lift_jax.toyworld.measures import Measured
from lift_jax.toyworld.pretraining.loop import (
  Pretraining,
  StageConfig,
  classification,
  train,
)

# Attributes of a scene that are visible in a single frame.
_ATTRIBUTES = ('size', 'colour', 'shape', 'background')
_FIDELITY = tuple(
  (kind, label) for kind in flaws.FIDELITY_KINDS for label in ('Normal', 'Bad')
)

# Minimum difference of the shape's pixels from the background, in levels; above
# that of most noise.
_MIN_CONTRAST = 60.0

# Weight of the position error, in units of half an image, in the loss.
_POSITION_WEIGHT = 2.0

_PARTS = ('vision_tower', 'projector')


def num_classes() -> list[int]:
  """Number of classes of each of the A classification tasks."""
  attributes = [len(scenes.values_of(name)) for name in _ATTRIBUTES]
  return [*attributes, 1 + len(_FIDELITY)]


def classes_of(truths: Sequence[Measured]) -> np.ndarray:
  """int32 [C, A]: values of attributes, and the flaw of the image or 0."""
  classes = []
  for truth in truths:
    attributes = [
      scenes.values_of(name).index(truth.shown[name]) for name in _ATTRIBUTES
    ]
    flaw = [
      number
      for number, (kind, label) in enumerate(_FIDELITY, 1)
      if truth.fidelity[kind] == flaws.STRENGTHS[kind][label]
    ]
    classes.append([*attributes, *(flaw or [0])])
  return np.array(classes, np.int32)


def shape_positions(frames_cthw3: np.ndarray) -> np.ndarray:
  """fp32 [C, T, 2]: position of the shape in each frame, x and y in [-1, 1].

  The mean position of pixels that differ from the border of the image, or zero
  if there are none.
  """
  edge_ctn3 = np.concatenate(
    [
      frames_cthw3[:, :, 0],
      frames_cthw3[:, :, -1],
      frames_cthw3[:, :, :, 0],
      frames_cthw3[:, :, :, -1],
    ],
    axis=2,
  )
  background_ct113 = np.median(edge_ctn3, axis=2)[:, :, None, None]
  contrast_cthw = np.abs(frames_cthw3 - background_ct113).sum(-1)
  weight_cthw = np.maximum(contrast_cthw - _MIN_CONTRAST, 0)
  total_ct = np.maximum(weight_cthw.sum((2, 3)), 1e-6)
  positions = []
  for axis, size in ((2, frames_cthw3.shape[3]), (3, frames_cthw3.shape[2])):
    coordinates = np.linspace(-1, 1, size)
    positions.append((weight_cthw.sum(axis) * coordinates).sum(-1) / total_ct)
  return np.stack(positions, axis=-1).astype(np.float32)


def train_vision(
  model: FunctionalModel,
  params: Params,
  frames_cthw3: np.ndarray,
  truths: Sequence[Measured],
  config: StageConfig,
  run: Pretraining,
) -> Params:
  """Trains vision tower and projector; returns the parameters of the critic.

  Args:
    model: the critic.
    params: initial parameters, donated; the language model is frozen.
    frames_cthw3: uint8 [C, T, H, W, 3].
    truths: about each clip.
    config: of the stage.
    run: the pretraining that it is a stage of.
  """
  classes_ca, sizes = classes_of(truths), num_classes()
  # In parts, as all frames in fp64 would be gigabytes.
  positions_ct2 = np.concatenate(
    [shape_positions(part) for part in np.array_split(frames_cthw3, 64)]
  )
  width = jax.eval_shape(
    lambda: model(params, frames_cthw3[:1], method='encode_frames')
  ).shape[-1]
  vision = {part: params[part] for part in _PARTS}
  frozen = {part: value for part, value in params.items() if part not in vision}
  head = jnp.zeros((width + 1, sum(sizes) + 2))

  def loss_fn(trained, frames_bthw3, classes_ba, positions_bt2, key):
    del key
    batch, num_frames = frames_bthw3.shape[:2]
    tokens = model(
      trained['vision'] | frozen, frames_bthw3, method='encode_frames'
    )
    frame_btd = jnp.mean(tokens.reshape(batch, num_frames, -1, width), axis=2)
    # RMS norm, as before the first layer of the decoder.
    rms_bt1 = jnp.sqrt(jnp.mean(frame_btd**2, axis=-1, keepdims=True) + 1e-6)
    out_bt = frame_btd / rms_bt1 @ trained['head'][:-1]
    out_bt = out_bt + trained['head'][-1][None, None]
    *logits, predicted_bt2 = jnp.split(out_bt, np.cumsum(sizes), axis=-1)
    loss, accuracies = classification(logits, classes_ba)
    position_error = jnp.mean(jnp.abs(predicted_bt2 - positions_bt2))
    names = (*_ATTRIBUTES, 'fidelity')
    metrics = dict(zip(names, accuracies, strict=True))
    return (
      loss + _POSITION_WEIGHT * position_error,
      metrics | {'position error': position_error},
    )

  trained = train(
    'vision',
    {'vision': vision, 'head': head},
    loss_fn,
    lambda indices, _: (
      frames_cthw3[indices],
      classes_ca[indices],
      positions_ct2[indices],
    ),
    len(truths),
    config,
    run,
  )
  return frozen | trained['vision']
