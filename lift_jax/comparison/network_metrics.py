"""Metrics of clips that need networks, as VBench defines them.

See vbench/{subject_consistency,background_consistency,aesthetic_quality,
appearance_style}.py in https://github.com/Vchitect/VBench. A value is that of a
clip; VBench's own total of the two consistencies weights clips by their frames.

Shape suffixes: T frames, H height, W width, F features; the last axis of 3 is
RGB.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.comparison.metrics import HIGHER, ClipMeasure, Metric, register
from lift_jax.comparison.networks import ClipNetwork, DinoNetwork
from lift_jax.data.suites import STYLE, SuitePrompt
from lift_jax.errors import UserError
from lift_jax.models.clip.config import L14, ClipConfig
from lift_jax.models.dino.config import DinoConfig
from lift_jax.weights import conversion, published_tensors, safetensors_files

# Names of the folders in `metrics.weights`.
DINO, CLIP_B32, CLIP_L14 = 'dino_b16', 'clip_b32', 'clip_l14'
AESTHETIC = 'aesthetic'

_GROUP = 'Networks, run here'
# VBench divides the logits of CLIP by its published scale.
_PUBLISHED_SCALE = 100
# The aesthetic predictor rates from 0 to 10.
_BEST_RATING = 10

Folders = Mapping[str, pathlib.Path]


@dataclasses.dataclass(frozen=True)
class NetworkSizes:
  """Sizes of the networks; the defaults are those that VBench uses."""

  dino: DinoConfig = DinoConfig()
  clip_b32: ClipConfig = ClipConfig()
  clip_l14: ClipConfig = L14


def unit(features_tf: np.ndarray) -> np.ndarray:
  """Features of length 1, in fp64."""
  features_tf = features_tf.astype(np.float64)
  length_t1 = np.linalg.norm(features_tf, axis=-1, keepdims=True)
  return features_tf / np.maximum(length_t1, 1e-12)


def consistency(features_tf: np.ndarray) -> float:
  """Mean cosine with the first and with the previous frame.

  Both are clipped below 0, and the mean is over all frames but the first.
  """
  features_tf = unit(features_tf)
  first_t = features_tf[1:] @ features_tf[0]
  previous_t = (features_tf[1:] * features_tf[:-1]).sum(-1)
  return float(np.maximum([first_t, previous_t], 0).mean())


def text_similarity(
  images_tf: np.ndarray, text_f: np.ndarray, scale: float
) -> float:
  """Mean logit of the frames and a text, over CLIP's published scale."""
  cosine_t = unit(images_tf) @ unit(text_f)
  return scale * float(cosine_t.mean()) / _PUBLISHED_SCALE


@dataclasses.dataclass(frozen=True)
class AestheticHead:
  """LAION's linear predictor of a rating from 0 to 10.

  Attributes:
    kernel_f: weights of the features of CLIP L/14.
    bias: added to their sum.
  """

  kernel_f: np.ndarray
  bias: float

  def quality(self, features_tf: np.ndarray) -> float:
    """Mean rating of the frames, as a share of the best."""
    rating_t = unit(features_tf) @ self.kernel_f + self.bias
    return float(rating_t.mean()) / _BEST_RATING


_HEAD_TABLE = (
  conversion.TensorRule('weight', 'kernel', conversion.LINEAR),
  conversion.TensorRule('bias', 'bias'),
)
_PICKLES = ('.pth', '.pt', '.bin')


def load_head(path: pathlib.Path, width: int) -> AestheticHead:
  """Loads the head from a safetensors file, or a folder with one.

  Args:
    path: of the file, or of a folder with `model.safetensors`.
    width: number of features.

  Raises:
    UserError: it is a pickle, or not such a head.
  """
  if path.suffix in _PICKLES:
    raise UserError(
      f'{path}: is a pickle, which can run code and is not read; convert it to '
      'safetensors, see docs/compare.md'
    )
  shapes = {
    'kernel': jax.ShapeDtypeStruct((width, 1), jnp.float32),
    'bias': jax.ShapeDtypeStruct((1,), jnp.float32),
  }
  head = published_tensors.load(
    _HEAD_TABLE,
    shapes,
    safetensors_files.open_tensors(path, 'model'),
    dtype=jnp.float32,
    where=str(path),
  )
  return AestheticHead(
    np.asarray(head['kernel'], np.float64)[:, 0], float(head['bias'][0])
  )


# Metrics share networks, which are loaded once.
@functools.cache
def _dino(folder: pathlib.Path, sizes: DinoConfig) -> DinoNetwork:
  return DinoNetwork(folder, sizes, 'facebook/dino-vitb16')


@functools.cache
def _clip(folder: pathlib.Path, sizes: ClipConfig, name: str) -> ClipNetwork:
  return ClipNetwork(folder, sizes, f'openai/clip-vit-{name}')


def _full_text(prompt: SuitePrompt) -> str:
  """The prompt; for VBench the short one, which it compares clips with."""
  return prompt.name if prompt.dimensions else prompt.text


def network_measures(
  sizes: NetworkSizes = NetworkSizes(),
) -> tuple[ClipMeasure, ...]:
  """The measures, with networks of these sizes."""

  def open_b32(folders: Folders) -> ClipNetwork:
    return _clip(folders[CLIP_B32], sizes.clip_b32, 'base-patch32')

  def subject(folders: Folders):
    network = _dino(folders[DINO], sizes.dino)
    return lambda frames: (consistency(network.frames(frames)),)

  def background(folders: Folders):
    network = open_b32(folders)
    return lambda frames: (consistency(network.frames(frames)),)

  def aesthetic(folders: Folders):
    network = _clip(folders[CLIP_L14], sizes.clip_l14, 'large-patch14')
    head = load_head(folders[AESTHETIC], network.config.projection_dim)
    return lambda frames: (head.quality(network.frames(frames)),)

  def similarity(folders: Folders) -> Callable[..., tuple[float]]:
    network = open_b32(folders)
    features_of = functools.cache(network.text)

    def measure(frames: np.ndarray, text: str) -> tuple[float]:
      images_tf = network.images(frames)
      return (text_similarity(images_tf, features_of(text), network.scale),)

    return measure

  def of(name: str, title: str) -> tuple[Metric]:
    return (Metric(name, title, _GROUP, HIGHER),)

  return (
    ClipMeasure(
      of('own_subject_consistency', 'subject consistency (DINO)'),
      subject,
      needs=(DINO,),
      dimension='subject_consistency',
    ),
    ClipMeasure(
      of('own_background_consistency', 'background consistency (CLIP)'),
      background,
      needs=(CLIP_B32,),
      dimension='background_consistency',
    ),
    ClipMeasure(
      of('own_aesthetic_quality', 'aesthetic quality (LAION)'),
      aesthetic,
      needs=(CLIP_L14, AESTHETIC),
      dimension='aesthetic_quality',
    ),
    ClipMeasure(
      of('own_appearance_style', 'appearance style (CLIP)'),
      similarity,
      needs=(CLIP_B32,),
      dimension=STYLE,
      text=lambda prompt: prompt.style,
    ),
    ClipMeasure(
      of('clip_text_alignment', 'text alignment (CLIP)'),
      similarity,
      needs=(CLIP_B32,),
      text=_full_text,
    ),
  )


for _measure in network_measures():
  register(_measure)
