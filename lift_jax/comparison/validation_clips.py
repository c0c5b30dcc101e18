"""Compares the validation clips of a training run with those of its base.

The base is the model before the first step. The metrics are those of `lift
compare` that need no weights, on the files that validation writes, the rewards
of a critic if there is one, and the distance to base.
"""

from collections.abc import Callable, Mapping, Sequence
import logging
import pathlib

import numpy as np

from lift_jax.comparison import measuring, metrics
from lift_jax.comparison.clip_sets import ClipSet, Key, SampledClip
from lift_jax.comparison.model_comparison import CRITIC, critic_measured
from lift_jax.data.rubric import Scale
from lift_jax.evaluation.scores import ScoredRecord
from lift_jax.evaluation.velocity_distance import DistanceToBase
from lift_jax.models.functional import Params
from lift_jax.runtime import distributed
from lift_jax.runtime.files import write_json
from lift_jax.runtime.progress import Progress
from lift_jax.training.validation import Validation

# List of the clips in each folder, for `lift score`.
CLIPS = 'clips.json'
_BASE = 'base'
_READERS = 4

# `rate(folder)`: scores of the clips that are listed there, and their scale.
Rate = Callable[[pathlib.Path], tuple[Sequence[ScoredRecord], Scale]]
Values = dict[str, Mapping[Key, float]]


class BaseComparison:
  """Compares the clips of each validation with those of the base.

  The constructor generates and measures those of the base. Every host must call
  it and the object, and gets the same numbers.

  Args:
    validation: writes the clips.
    prompts: of the clips.
    params: of the base.
    make_distance: from latents [B, F, h, w, C] of all batches of clips.
    rate: scores clips; None for no critic.
    logger: for errors.
  """

  def __init__(
    self,
    validation: Validation,
    prompts: Sequence[str],
    params: Params,
    make_distance: Callable[[Sequence], DistanceToBase],
    rate: Rate | None,
    logger: logging.Logger,
  ):
    self._validation, self._prompts = validation, prompts
    self._rate, self._logger = rate, logger
    self._measures = measuring.open_measures(metrics.measures(), {})
    latents = validation.denoise(params)
    self._distance = make_distance(latents)
    folder = validation.root / _BASE
    validation.write(folder, latents)
    self._base = self._measure(folder)

  def __call__(self, step: int, params: Params) -> dict[str, float]:
    """Metrics of the clips of a step, which are written.

    Args:
      step: of the clips.
      params: that they were generated with.

    Returns:
      By name, after 'validation/': the mean over clips of each metric, with
      '_change' that of the difference to the base, and 'distance_to_base'.
    """
    distances = self._distance(params)[: len(self._prompts)]
    summary = {'validation/distance_to_base': float(distances.mean())}
    for name, values in self._measure(self._validation.folder(step)).items():
      base = self._base[name]
      changes = [values[key] - base[key] for key in values if key in base]
      if changes:
        summary[f'validation/{name}'] = float(np.mean(list(values.values())))
        summary[f'validation/{name}_change'] = float(np.mean(changes))
    return summary

  def _measure(self, folder: pathlib.Path) -> Values:
    """The values of each metric of the clips in a folder."""
    found = self._clips(folder)
    measurer = measuring.ClipMeasurer(folder, found, self._measures)
    # SIGTERM is noted by the training loop, which stops after this.
    measuring.measure_all(
      [measurer],
      _READERS,
      Progress(len(found.clips), 'clip', logger=self._logger, enabled=False),
      can_stop=False,
    )
    values: Values = dict(measurer.results()[0])
    if self._rate is not None:
      if distributed.is_primary():
        listed = [
          {'video': clip.video, 'caption': clip.prompt}
          for clip in found.clips.values()
        ]
        write_json(folder / CLIPS, listed)
      distributed.barrier(f'{folder / CLIPS} is written')
      records, scale = self._rate(folder)
      for one in critic_measured(CRITIC, [found], [records], scale):
        values[one.metric.name] = one.values[0]
    return values

  def _clips(self, folder: pathlib.Path) -> ClipSet:
    clips = {}
    for name, prompt in zip(self._validation.names, self._prompts, strict=True):
      key, video = (name, 0), f'{name}.mp4'
      path = folder / video
      clips[key] = SampledClip(key, prompt, (0, None), video, path, {})
    return ClipSet('clips', folder, clips)
