"""Curves of step caches: the file that `lift calibrate` writes.

It says how much the transformer changes from each step of a sampler to the
next, for one checkpoint, one size of clips and one sampler; and so which steps
a cache may skip (see `diffusion.step_cache`). It is refused for others.

N steps  K guidance branches
"""

from collections.abc import Mapping, Sequence
import json
import math
from typing import Any

import numpy as np

from lift_jax.diffusion import step_cache
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.errors import UserError
from lift_jax.models.generators import VideoModel
from lift_jax.runtime import storage
from lift_jax.runtime.files import read_json
from lift_jax.runtime.journal import differences
from lift_jax.sampling.config import VideoConfig
from lift_jax.sampling.fingerprints import model_fingerprint, sampler_settings

# In the order of `programs.StepChanges.residual_kn`.
BRANCHES = ('negative', 'positive')


def measured_for(
  model: VideoModel, video: VideoConfig, sampler: SamplerConfig
) -> dict[str, Any]:
  """What a curve belongs to, as JSON values."""
  settings = {
    'checkpoint': model_fingerprint(model),
    'video': {
      name: getattr(video, name) for name in ('height', 'width', 'num_frames')
    },
    'sampler': sampler_settings(sampler.uncached),
  }
  return json.loads(json.dumps(settings))


def make(
  measured_for: Mapping[str, Any],
  num_clips: int,
  residual_kn: np.ndarray,
  output_n: np.ndarray,
  time_n: np.ndarray,
) -> dict[str, Any]:
  """The content of a curve's file.

  Args:
    measured_for: see `measured_for`.
    num_clips: that were measured.
    residual_kn: see `programs.StepChanges`, as the next two.
    output_n: of the predictions.
    time_n: of the time embeddings.
  """
  branches = BRANCHES[-len(residual_kn) :]
  coefficients = step_cache.fit_polynomial(time_n[1:], output_n[1:])
  return {
    **measured_for,
    'num_clips': num_clips,
    'residual_ratios': {
      branch: ratios_n.tolist()
      for branch, ratios_n in zip(branches, residual_kn, strict=True)
    },
    'output_changes': output_n.tolist(),
    'time_changes': time_n.tolist(),
    'coefficients': coefficients.tolist(),
  }


def check_can_cache(model: VideoModel) -> None:
  """Raises UserError if no step of the model's sampler can be skipped."""
  if not model.can_cache:
    raise UserError(
      f'sampler.cache: models of the family {model.family!r} compute every '
      "step; set sampler.cache = 'none'"
    )


def computed_steps(
  model: VideoModel, video: VideoConfig, sampler: SamplerConfig
) -> np.ndarray | None:
  """Which steps of a sampler are computed, bool [N]; None without a cache.

  Raises:
    UserError: the model has no cache, or its curve is missing, damaged, or was
      measured for something else.
  """
  if sampler.cache == 'none':
    return None
  check_can_cache(model)
  path = storage.to_path(sampler.cache_curve)
  curve = read_json(path)
  wanted = measured_for(model, video, sampler)
  found = {key: curve.get(key) for key in wanted}
  for name, old, new in differences(found, wanted):
    raise UserError(
      f'{path}: measured with {name} = {old!r}, which is now {new!r}; run lift '
      'calibrate with these settings, or give another sampler.cache_curve'
    )
  num_steps = len(model.schedule.make_steps(sampler).index)
  starts = [part.start for part, _ in sampler.phases(num_steps)]
  try:
    if sampler.cache == 'teacache':
      return step_cache.teacache_steps(
        _numbers(curve['time_changes'], num_steps),
        _numbers(curve['coefficients'], step_cache.DEGREE + 1),
        sampler.cache_threshold,
        starts,
      )
    ratios = curve['residual_ratios'].values()
    return step_cache.magcache_steps(
      np.stack([_numbers(ratios_n, num_steps) for ratios_n in ratios]),
      sampler.cache_threshold,
      sampler.cache_max_skips,
      sampler.cache_retention,
      starts,
    )
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise UserError(
      f'{path}: not a curve of {num_steps} steps ({error}); run lift calibrate '
      'again'
    ) from None


def _numbers(values: Sequence[float], count: int) -> np.ndarray:
  """`count` finite numbers, or a ValueError."""
  if len(values) != count or not all(map(math.isfinite, values)):
    raise ValueError(f'{count} numbers are needed')
  return np.array(values, np.float64)
