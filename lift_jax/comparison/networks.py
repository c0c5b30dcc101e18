"""The networks of metrics: features of the frames of a clip, and of texts.

A network is loaded once, on all devices of this host, which share the frames of
a clip. It computes in fp32 with exact products. Threads may share it.

Shape suffixes: T frames, H height, W width, F features, N tokens, B texts; the
last axis of 3 is RGB.
"""

from collections.abc import Callable, Sequence
import functools
import pathlib
import threading
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import frames as frames_lib
from lift_jax.models import interpolation
from lift_jax.models.clip import model as clip
from lift_jax.models.clip import sharding as clip_sharding
from lift_jax.models.clip import tokenizer
from lift_jax.models.clip.config import ClipConfig
from lift_jax.models.clip.convert import CLIP_IGNORED, CLIP_TABLE
from lift_jax.models.dino import sharding as dino_sharding
from lift_jax.models.dino import tower as dino
from lift_jax.models.dino.config import DinoConfig
from lift_jax.models.dino.convert import DINO_TABLE
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.runtime.files import read_json
from lift_jax.weights import conversion, published_tensors, safetensors_files

# Frames that a device gets at a time.
_FRAMES = 64

_Config = TypeVar('_Config', ClipConfig, DinoConfig)


class LocalNetwork:
  """A network on devices of this host, which share each batch.

  Args:
    model: the network.
    rules: of the sharding of its parameters.
    load: from shardings to parameters.
    devices: by default all of this host.
  """

  def __init__(
    self,
    model: FunctionalModel,
    rules: partitioning.Rules,
    load: Callable[[Params], Params],
    devices: Sequence[jax.Device] | None = None,
  ):
    self.model = model
    self._mesh = partitioning.make_mesh(
      partitioning.MeshConfig(data=-1, fsdp=1), devices or jax.local_devices()
    )
    self._batch = jax.NamedSharding(self._mesh, partitioning.BATCH)
    self.params = load(
      partitioning.param_shardings(rules, model.abstract_params, self._mesh)
    )
    self._lock = threading.Lock()

  def __call__(
    self, program: Callable[..., jax.Array], *arrays: np.ndarray
  ) -> np.ndarray:
    """`program(model, params, *arrays)` in batches along the first axis."""
    count = len(arrays[0])
    shards = self._mesh.size
    batches = -(-count // (_FRAMES * shards))
    size = -(-count // (batches * shards)) * shards
    results = []
    for start in range(0, count, size):
      # The last batch is padded by repetition.
      indices = np.minimum(np.arange(start, start + size), count - 1)
      with (
        self._lock,
        jax.set_mesh(self._mesh),
        jax.default_device(None),  # measuring sets one for each thread
        jax.default_matmul_precision('highest'),
      ):
        batch = jax.device_put(
          [array[indices] for array in arrays], self._batch
        )
        results.append(jax.device_get(program(self.model, self.params, *batch)))
    return np.concatenate(results)[:count]


def resize(
  frames_thw3: jax.Array, size: int, kind: str, *, crop: bool
) -> jax.Array:
  """Frames with `size` as the shorter side, in fp32, as torchvision's Resize.

  That is without antialiasing, rounding or clipping, on tensors.

  Args:
    frames_thw3: uint8.
    size: in pixels.
    kind: see `interpolation`.
    crop: whether to return the square in the middle.
  """
  height, width = frames_thw3.shape[1:3]
  sides = interpolation.shorter_side(height, width, size)
  matrices = []
  for old, new in zip((height, width), sides, strict=True):
    matrix = interpolation.resize_matrix(old, new, kind)
    matrices.append(
      matrix[interpolation.central(new, size)] if crop else matrix
    )
  rows, columns = matrices
  frames_thw3 = frames_thw3.astype(jnp.float32)
  frames_thw3 = jnp.einsum('rh,thwc->trwc', rows, frames_thw3)
  return jnp.einsum('sw,trwc->trsc', columns, frames_thw3)


def as_images(frames_thw3: np.ndarray, size: int) -> np.ndarray:
  """CLIP's own preprocessing: the square in the middle of resized frames.

  That is by Pillow, with antialiasing and rounded to uint8.
  """
  _, height, width, _ = frames_thw3.shape
  sides = interpolation.shorter_side(height, width, size)
  resized_thw3 = frames_lib.resize_bicubic(frames_thw3, *sides)
  rows, columns = (interpolation.central(side, size) for side in sides)
  return resized_thw3[:, rows, columns]


@functools.partial(jax.jit, static_argnames=('model', 'size'))
def _dino_features(
  model: FunctionalModel, params: Params, frames_thw3: jax.Array, *, size: int
) -> jax.Array:
  frames_thw3 = resize(frames_thw3, size, interpolation.LINEAR, crop=False)
  return model(params, dino.normalise(frames_thw3))


@functools.partial(jax.jit, static_argnames=('model', 'size'))
def _clip_features(
  model: FunctionalModel, params: Params, frames_thw3: jax.Array, *, size: int
) -> jax.Array:
  frames_thw3 = resize(frames_thw3, size, interpolation.CUBIC, crop=True)
  return model(params, clip.normalise(frames_thw3), method='images')


@functools.partial(jax.jit, static_argnames='model')
def _clip_image_features(
  model: FunctionalModel, params: Params, frames_thw3: jax.Array
) -> jax.Array:
  return model(params, clip.normalise(frames_thw3), method='images')


@functools.partial(jax.jit, static_argnames='model')
def _clip_text_features(
  model: FunctionalModel,
  params: Params,
  ids_bn: jax.Array,
  length_b: jax.Array,
) -> jax.Array:
  return model(params, ids_bn, length_b, method='texts')


def _read_config(
  folder: pathlib.Path,
  from_json: Callable[[Any, str], _Config],
  expected: _Config,
  name: str,
) -> _Config:
  """The sizes in a folder; raises UserError if they are not the expected."""
  path = folder / 'config.json'
  found = from_json(read_json(path), str(path))
  if found != expected:
    raise UserError(
      f'{folder}: not {name}, with which these metrics are defined, but a '
      'network of other sizes; give its folder'
    )
  return found


def _load(
  folder: pathlib.Path,
  table: conversion.Table,
  ignored: Sequence[str],
  model: FunctionalModel,
  shardings: Params,
) -> Params:
  """The weights in fp32; raises UserError for those of another network."""
  return published_tensors.load(
    table,
    model.abstract_params,
    safetensors_files.open_tensors(folder, 'model'),
    shardings=shardings,
    dtype=jnp.float32,
    ignored=ignored,
    where=str(folder),
  )


class DinoNetwork:
  """DINO, as VBench applies it to frames.

  Args:
    folder: of the published network.
    expected: its sizes.
    name: of the published network, for errors.
    devices: by default all of this host.

  Raises:
    UserError: another network, or a damaged one.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    expected: DinoConfig,
    name: str,
    devices: Sequence[jax.Device] | None = None,
  ):
    config = _read_config(folder, DinoConfig.from_json, expected, name)
    model = functional(lambda rngs: dino.Tower(config, rngs=rngs))
    load = functools.partial(_load, folder, DINO_TABLE, (), model)
    self._network = LocalNetwork(model, dino_sharding.RULES, load, devices)
    self._size = config.image_size

  def frames(self, frames_thw3: np.ndarray) -> np.ndarray:
    """Features fp32 [T, F] of uint8 frames, which are not cropped."""
    program = functools.partial(_dino_features, size=self._size)
    return self._network(program, frames_thw3)


class ClipNetwork:
  """CLIP, as VBench applies it to frames and texts.

  Args:
    folder: of the published network.
    expected: its sizes.
    name: of the published network, for errors.
    devices: by default all of this host.

  Raises:
    UserError: another network, or a damaged one.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    expected: ClipConfig,
    name: str,
    devices: Sequence[jax.Device] | None = None,
  ):
    self.config = _read_config(folder, ClipConfig.from_json, expected, name)
    model = functional(lambda rngs: clip.Clip(self.config, rngs=rngs))
    load = functools.partial(_load, folder, CLIP_TABLE, CLIP_IGNORED, model)
    self._network = LocalNetwork(model, clip_sharding.RULES, load, devices)
    self._folder = folder

  @functools.cached_property
  def _encode(self) -> tokenizer.Tokenizer:
    return tokenizer.load_tokenizer(self._folder)

  def frames(self, frames_thw3: np.ndarray) -> np.ndarray:
    """Features fp32 [T, F] of uint8 frames, see `resize`."""
    program = functools.partial(
      _clip_features, size=self.config.vision.image_size
    )
    return self._network(program, frames_thw3)

  def images(self, frames_thw3: np.ndarray) -> np.ndarray:
    """Features fp32 [T, F] of uint8 frames, see `as_images`."""
    square_thw3 = as_images(frames_thw3, self.config.vision.image_size)
    return self._network(_clip_image_features, square_thw3)

  def text(self, text: str) -> np.ndarray:
    """Features fp32 [F] of a text; its end is cut if it is too long."""
    config = self.config.text
    ids_bn, length_b = tokenizer.tokenize(
      self._encode, [text], config.max_length, config.vocab_size
    )
    return self._network(_clip_text_features, ids_bn, length_b)[0]

  @property
  def scale(self) -> float:
    """What cosines of images and texts are multiplied by."""
    return float(np.exp(self._network.params['logit_scale']))
