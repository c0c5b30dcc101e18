"""What the guards against reward hacking measure on clips; see `guards`."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from lift_jax.data import video
from lift_jax.evaluation import diversity, guards, motion
from lift_jax.evaluation.velocity_distance import NoisyClip, VelocityDistance
from lift_jax.runtime import storage
from lift_jax.sampling import manifest
from lift_jax.sampling.manifest import ListedClip


def measure(
  folder: pathlib.Path, scores: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, dict[str, float]]:
  """Rewards, motion and diversity, by metric and prompt.

  Args:
    folder: workdir of a `lift sample` job.
    scores: by metric, the records of a `lift score` job on its clips. A clip
      without a reward does not count.
  """
  clips = manifest.read(folder)
  values = {
    metric: {
      record['video']: record['soft_reward']
      for record in records
      if 'soft_reward' in record
    }
    for metric, records in scores.items()
  }
  difference, static, features = {}, {}, {}
  for clip in clips:
    frames = video.decode(clip.path, where=str(clip.path)).frames
    measured = motion.measure(frames)
    difference[clip.video] = measured.difference
    static[clip.video] = float(measured.is_static)
    features.setdefault(clip.prompt, []).append(diversity.grid_features(frames))
  values |= {guards.DIFFERENCE: difference, guards.STATIC: static}
  result = {metric: _by_prompt(clips, own) for metric, own in values.items()}
  distances = {
    prompt: diversity.pairwise_distance(np.stack(own))
    for prompt, own in features.items()
  }
  result[guards.DIVERSITY] = {
    prompt: distance
    for prompt, distance in distances.items()
    if distance is not None
  }
  return result


def anchor_distances(
  folder: pathlib.Path, distance: VelocityDistance
) -> dict[str, float]:
  """Distance of the velocities of a model to those of base, by prompt.

  Args:
    folder: workdir of a `lift sample` job with latents.
    distance: of the model to the one that sampled them.
  """
  clips = manifest.read(folder)
  distances = distance(
    [
      NoisyClip(
        read_latents(folder / manifest.LATENTS / f'{clip.path.stem}.npy'),
        clip.caption,
        clip.seed,
      )
      for clip in clips
    ]
  )
  names = [clip.video for clip in clips]
  return _by_prompt(clips, dict(zip(names, distances, strict=True)))


def read_latents(path: pathlib.Path) -> np.ndarray:
  """Scaled latents [F, h, w, C], see `sampling.noise.write_latents`."""
  return np.moveaxis(np.load(storage.local_copy(path)), 1, -1)


def _by_prompt(
  clips: Sequence[ListedClip], values: Mapping[str, float]
) -> dict[str, float]:
  """Means over the clips of each prompt that have a value."""
  found: dict[str, list[float]] = {}
  for clip in clips:
    if clip.video in values:
      found.setdefault(clip.prompt, []).append(values[clip.video])
  return {prompt: float(np.mean(own)) for prompt, own in found.items()}
