"""Clips of the toy world's video model, for its critic to learn from.

Their flaws are of any strength, most of them close to the boundary between two
labels, while drawn flaws have one of two strengths. So a critic of drawn clips
alone rates generated ones badly. What a clip shows is measured by the checkers.

C clips  B clips of a batch  T frames  H W height and width
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import partitioning
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.generators import VideoModel, open_model
from lift_jax.partitioning import MeshConfig
from lift_jax.runtime.progress import Progress
from lift_jax.sampling.config import VideoConfig
from lift_jax.sampling.generator import Generator
from lift_jax.toyworld import flaws, scenes
from lift_jax.toyworld.flaws import Flaw
from lift_jax.toyworld.measures import Measured, measure

_BATCH = 32
_VIDEO = VideoConfig(height=32, width=32, num_frames=9, tiling=False)
# Strengths of drawn flaws, as shares of the largest.
_STRENGTHS = (0.1, 1.15)
_FLAWLESS_SHARE = 0.35  # in each dimension


@dataclasses.dataclass(frozen=True)
class MeasuredClip:
  """A clip, its prompt, and what it shows.

  Attributes:
    asked: the scene of the prompt.
    frames_thw3: uint8 [T, H, W, 3].
    measured: by the checkers.
  """

  asked: scenes.Scene
  frames_thw3: np.ndarray
  measured: Measured


def sample(
  path: pathlib.Path,
  num_clips: int,
  sampler: SamplerConfig,
  seed: int,
  logger: logging.Logger,
) -> list[MeasuredClip]:
  """Samples clips of training prompts.

  Args:
    path: folder of the video model.
    num_clips: rounded up to full batches.
    sampler: settings of the sampler.
    seed: of prompts and noise.
    logger: for progress.
  """
  config = ModelConfig(
    path=str(path),
    adapter='',
    random=None,
    compute_dtype='float32',
    attention='auto',
  )
  mesh = partitioning.make_mesh(
    MeshConfig(data=1, fsdp=1, context=1, tensor=1), jax.devices()[:1]
  )
  model = open_model(path)
  generator = Generator(
    model, config, mesh, _VIDEO, sampler, negative='', offload=False
  )
  rng = np.random.default_rng(seed)
  batches = list(_prompts(num_clips, rng))
  texts = generator.embed([scene.caption for scene in b] for b in batches)
  latents = generator.denoise(
    (text_bsd, rng.integers(2**31, size=_BATCH).tolist(), None)
    for text_bsd in texts
  )
  return _measured(batches, generator.decode(latents), logger)


def autoencode(
  path: pathlib.Path, num_clips: int, seed: int, logger: logging.Logger
) -> list[MeasuredClip]:
  """Draws clips with flaws of any strength and autoencodes them.

  Args:
    path: folder of the video model.
    num_clips: rounded up to full batches.
    seed: of clips and latents.
    logger: for progress.
  """
  model = open_model(path)
  rng = np.random.default_rng((seed, 1))
  batches = list(_prompts(num_clips, rng))
  return _measured(batches, _autoencoded(model, batches, rng), logger)


def _prompts(
  num_clips: int, rng: np.random.Generator
) -> Iterator[list[scenes.Scene]]:
  training = scenes.training_scenes()
  for _ in range(-(-num_clips // _BATCH)):
    yield [training[i] for i in rng.integers(len(training), size=_BATCH)]


def _autoencoded(
  model: VideoModel,
  batches: Sequence[Sequence[scenes.Scene]],
  rng: np.random.Generator,
) -> Iterator[np.ndarray]:
  network = model.declare('vae')
  params = model.load('vae', network, None, jnp.float32)

  @jax.jit
  def autoencode_batch(params, frames_bthw3, key):
    video = frames_bthw3.astype(jnp.float32) / 127.5 - 1
    mean, logvar = network(params, video, method='encode')
    noise = jax.random.normal(key, mean.shape)
    latents = mean + jnp.exp(0.5 * logvar) * noise
    decoded = network(params, latents, method='decode')
    levels = jnp.round(127.5 * (jnp.clip(decoded, -1, 1) + 1))
    return levels.astype(jnp.uint8)

  for number, batch in enumerate(batches):
    drawn = [
      flaws.make_clip(
        scene,
        scene,
        _draw_flaw(flaws.FIDELITY_KINDS, rng),
        _draw_flaw(flaws.MOTION_KINDS, rng),
        rng,
      ).frames_thw3
      for scene in batch
    ]
    key = jax.random.key(number)
    yield np.asarray(autoencode_batch(params, np.stack(drawn), key))


def _draw_flaw(kinds: Sequence[str], rng: np.random.Generator) -> Flaw | None:
  if rng.random() < _FLAWLESS_SHARE:
    return None
  share = float(rng.uniform(*_STRENGTHS))
  return _ScaledFlaw(str(rng.choice(kinds)), 'Bad', share)


@dataclasses.dataclass(frozen=True)
class _ScaledFlaw(Flaw):
  """A flaw of another strength; its label is unknown."""

  share: float

  @property
  def strength(self) -> float:
    return self.share * super().strength


def _measured(
  batches: Sequence[Sequence[scenes.Scene]],
  videos: Iterator[np.ndarray],
  logger: logging.Logger,
) -> list[MeasuredClip]:
  clips = []
  with Progress(_BATCH * len(batches), 'clip', logger=logger) as progress:
    for batch, video_bthw3 in zip(batches, videos, strict=True):
      clips += [
        MeasuredClip(scene, frames_thw3, measure(frames_thw3))
        for scene, frames_thw3 in zip(batch, video_bthw3, strict=True)
      ]
      progress.update(len(batch))
  return clips


def mirrored(clip: MeasuredClip) -> MeasuredClip:
  """The clip with left and right exchanged."""
  path_t2 = clip.measured.path_t2
  return _moving(
    clip,
    clip.frames_thw3[:, :, ::-1],
    None if path_t2 is None else np.abs((0, 1) - path_t2),
    lambda degrees: 180 - degrees,
  )


def backwards(clip: MeasuredClip) -> MeasuredClip:
  """The clip played backwards."""
  path_t2 = clip.measured.path_t2
  return _moving(
    clip,
    clip.frames_thw3[::-1],
    None if path_t2 is None else path_t2[::-1],
    lambda degrees: 180 + degrees,
  )


def _moving(
  clip: MeasuredClip,
  frames_thw3: np.ndarray,
  path_t2: np.ndarray | None,
  turn: Callable[[int], int],
) -> MeasuredClip:
  """A clip with other directions; its flaws are the same."""
  names = {degrees: name for name, degrees in scenes.MOTIONS.items()}
  turned = {
    name: names[turn(degrees) % 360] for name, degrees in scenes.MOTIONS.items()
  }
  shown = dict(clip.measured.shown)
  if shown['motion'] is not None:
    shown['motion'] = turned[shown['motion']]
  return MeasuredClip(
    dataclasses.replace(clip.asked, motion=turned[clip.asked.motion]),
    frames_thw3,
    dataclasses.replace(clip.measured, shown=shown, path_t2=path_t2),
  )
