"""Teaches a critic to see, before it is taught to answer.

Published critics are built on vision towers that have seen many images. Here
tower and projector learn from single frames what a clip shows, where the shape
is and what is wrong with the image: one linear map reads all of it from the
mean of a frame's tokens, and is thrown away afterwards.

C clips  T frames of each  H W height and width  A attributes  D width of tokens
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

# What a single frame can tell of a scene.
_ATTRIBUTES = ('size', 'colour', 'shape', 'background')
_FIDELITY = tuple(
  (kind, label) for kind in flaws.FIDELITY_KINDS for label in ('Normal', 'Bad')
)

# Levels by which a pixel differs from the background before it counts as part
# of the shape: more than most noise does.
_LEAST_CONTRAST = 60.0

# Of a place, half an image being 1, beside the mean of the classifications.
_PLACE_WEIGHT = 2.0

_PARTS = ('vision_tower', 'projector')


def num_classes() -> list[int]:
  """Of each of the A things that a frame is classified by."""
  attributes = [len(scenes.values_of(name)) for name in _ATTRIBUTES]
  return [*attributes, 1 + len(_FIDELITY)]


def classes_of(truths: Sequence[Measured]) -> np.ndarray:
  """int32 [C, A]: words of the scene, and the flaw of the image or none."""
  rows = []
  for truth in truths:
    row = [
      scenes.values_of(name).index(truth.shown[name]) for name in _ATTRIBUTES
    ]
    found = [
      number
      for number, (kind, label) in enumerate(_FIDELITY, 1)
      if truth.fidelity[kind] == flaws.STRENGTHS[kind][label]
    ]
    rows.append([*row, *(found or [0])])
  return np.array(rows, np.int32)


def places_of(frames_cthw3: np.ndarray) -> np.ndarray:
  """fp32 [C, T, 2]: where the shape is in each frame, x and y in [-1, 1].

  That is the mean of the pixels that differ from the edge of the image; zero
  where none does.
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
  ground_ct113 = np.median(edge_ctn3, axis=2)[:, :, None, None]
  away_cthw = np.abs(frames_cthw3 - ground_ct113).sum(-1)
  weight_cthw = np.maximum(away_cthw - _LEAST_CONTRAST, 0)
  total_ct = np.maximum(weight_cthw.sum((2, 3)), 1e-6)
  places = []
  for axis, size in ((2, frames_cthw3.shape[3]), (3, frames_cthw3.shape[2])):
    across = np.linspace(-1, 1, size)
    places.append((weight_cthw.sum(axis) * across).sum(-1) / total_ct)
  return np.stack(places, axis=-1).astype(np.float32)


def train_vision(
  model: FunctionalModel,
  params: Params,
  frames_cthw3: np.ndarray,
  truths: Sequence[Measured],
  config: StageConfig,
  run: Pretraining,
) -> Params:
  """Parameters of the critic with another vision tower and projector.

  Args:
    model: the critic.
    params: before it, donated; the language model stays as it is.
    frames_cthw3: uint8 [C, T, H, W, 3].
    truths: about each clip.
    config: how long and how fast.
    run: that it is a stage of.
  """
  classes_ca, sizes = classes_of(truths), num_classes()
  # In parts, as all of them in fp64 would be gigabytes.
  places_ct2 = np.concatenate(
    [places_of(part) for part in np.array_split(frames_cthw3, 64)]
  )
  width = jax.eval_shape(
    lambda: model(params, frames_cthw3[:1], method='encode_frames')
  ).shape[-1]
  seen = {part: params[part] for part in _PARTS}
  fixed = {part: value for part, value in params.items() if part not in seen}
  head = jnp.zeros((width + 1, sum(sizes) + 2))

  def loss_fn(trained, frames_bthw3, classes_ba, places_bt2, key):
    del key
    batch, num_frames = frames_bthw3.shape[:2]
    tokens = model(
      trained['seen'] | fixed, frames_bthw3, method='encode_frames'
    )
    frame_btd = jnp.mean(tokens.reshape(batch, num_frames, -1, width), axis=2)
    # Scaled as the norm before the first layer of the decoder scales tokens.
    size_bt1 = jnp.sqrt(jnp.mean(frame_btd**2, axis=-1, keepdims=True) + 1e-6)
    said_bt = frame_btd / size_bt1 @ trained['head'][:-1]
    said_bt = said_bt + trained['head'][-1][None, None]
    *scores, place_bt2 = jnp.split(said_bt, np.cumsum(sizes), axis=-1)
    loss, rights = classification(scores, classes_ba)
    away = jnp.mean(jnp.abs(place_bt2 - places_bt2))
    names = (*_ATTRIBUTES, 'fidelity')
    told = dict(zip(names, rights, strict=True)) | {'away': away}
    return loss + _PLACE_WEIGHT * away, told

  trained = train(
    'vision',
    {'seen': seen, 'head': head},
    loss_fn,
    lambda rows, _: (frames_cthw3[rows], classes_ca[rows], places_ct2[rows]),
    len(truths),
    config,
    run,
  )
  return fixed | trained['seen']
