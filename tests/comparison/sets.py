"""Clips of small models as `lift sample` leaves them, and VBench's results."""

from collections.abc import Callable, Mapping, Sequence
import json
import pathlib
from typing import Any

import numpy as np

from lift_jax.comparison.clip_sets import ClipSet, SampledClip
from lift_jax.data.prompts import Prompt
from lift_jax.data.suites import Suite, SuitePrompt
from lift_jax.data.vbench_dimensions import DIMENSIONS
from lift_jax.data.video_write import write_mp4
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.sampling.clips import make_clips
from lift_jax.sampling.manifest import VIDEOS, Manifest

BOOTSTRAP = BootstrapConfig(draws=200, coverage=0.95, seed=0)


def noise(num_frames: int = 4, side: int = 16, seed: int = 0) -> np.ndarray:
  """uint8 frames [T, side, side, 3] of noise."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (num_frames, side, side, 3)).astype(np.uint8)


def write_model(
  folder: pathlib.Path,
  names: Sequence[str] = ('a', 'b'),
  num_clips: int = 1,
  frames: Callable[[str, int], np.ndarray] | None = None,
  settings: Mapping[str, Any] | None = None,
  texts: Mapping[str, str] | None = None,
  fps: float = 8,
  seed: int = 0,
) -> pathlib.Path:
  """Writes a workdir of `lift sample`; returns it.

  Args:
    folder: to write.
    names: of the prompts.
    num_clips: of each prompt.
    frames: of a clip, from the name of its prompt and its index.
    settings: of the manifest; {'model': 'x'} by default.
    texts: of the prompts whose name is not their text.
    fps: of the clips.
    seed: of the noise.
  """
  (folder / VIDEOS).mkdir(parents=True)
  texts = dict.fromkeys(names) | dict(texts or {})
  prompts = [Prompt(name, texts[name] or name, name, name) for name in names]
  clips, _ = make_clips(prompts, num_clips, seed, '{prompt}-{index}')
  with Manifest(folder, settings or {'model': 'x'}) as manifest:
    for clip in clips:
      found = (
        noise() if frames is None else frames(clip.prompt.name, clip.index)
      )
      write_mp4(manifest.file(clip, VIDEOS), found, fps)
      manifest.add(clip)
  return folder


def clip_set(model: str, names: Sequence[str], num_clips: int = 1) -> ClipSet:
  """Clips without files."""
  folder = pathlib.Path('/nowhere') / model
  clips = {
    (name, index): SampledClip(
      (name, index),
      name,
      (index, None),
      f'videos/{name}-{index}.mp4',
      folder / f'videos/{name}-{index}.mp4',
      {},
    )
    for name in names
    for index in range(num_clips)
  }
  return ClipSet(model, folder, clips)


def vbench_suite(name: str = 'vbench', num_prompts: int = 3) -> Suite:
  """A few prompts, each about all dimensions, with two clips."""
  return Suite(
    name,
    tuple(
      SuitePrompt(f'prompt {index}', 'text', 2, tuple(DIMENSIONS))
      for index in range(num_prompts)
    ),
  )


def vbench_entries(
  suite: Suite, scores: Mapping[str, float], seed: int = 0
) -> dict[str, list]:
  """Result entries with these scores, in VBench's form."""
  rng = np.random.default_rng(seed)
  entries = {}
  for dimension, score in scores.items():
    keys = suite.keys
    spread = rng.normal(0, 0.002, len(keys))
    values = np.clip(score + spread - spread.mean(), 0, 1)
    scale = 100 if dimension == 'imaging_quality' else 1
    entries[dimension] = [
      score,
      [
        {'video_path': f'clips/{name}-{index}.mp4', 'video_results': x * scale}
        for (name, index), x in zip(keys, values.tolist(), strict=True)
      ],
    ]
  return entries


def write_results(
  folder: pathlib.Path, entries: Mapping[str, Any], name: str = 'run'
) -> pathlib.Path:
  """Writes a result file; returns its folder."""
  folder.mkdir(exist_ok=True)
  path = folder / f'{name}_eval_results.json'
  path.write_text(json.dumps(entries), encoding='utf-8')
  return folder
