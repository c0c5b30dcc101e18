"""Distance to base of each model, on the base's clips.

It is the mean squared difference of the velocities of two networks for the same
noisy latents; see `evaluation.velocity_distance`.
"""

from collections.abc import Sequence
import pathlib

from lift_jax.comparison.clip_sets import ClipSet, SampledClip
from lift_jax.comparison.file_measuring import FileMeasurer
from lift_jax.comparison.metrics import NEITHER, Metric
from lift_jax.comparison.model_comparison import MetricValues
from lift_jax.errors import UserError
from lift_jax.evaluation import guarded_clips
from lift_jax.evaluation.velocity_distance import NoisyClip, VelocityDistance
from lift_jax.runtime import storage
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import StopSignal
from lift_jax.sampling import manifest

METRIC = Metric(
  'distance_to_base', 'distance to base', 'Drift', NEITHER, is_share=False
)

# Clips whose latents and velocities are in memory: 6 GB of 49 frames of
# 480 x 720 with four draws. The more, the fewer exchanges of networks.
AT_A_TIME = 256


class DistanceMeasurer(FileMeasurer):
  """Measures the distance of a model to base.

  Clips are measured `AT_A_TIME`; those that were are not measured again.

  Args:
    workdir: see `FileMeasurer`.
    found: clips of base, sampled with latents.
    model: name of the other model.
    distance: of that model to the one that sampled them.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    found: ClipSet,
    model: str,
    distance: VelocityDistance,
  ):
    super().__init__(
      workdir, f'distance_{model}', found, distance.fingerprint()
    )
    self._distance = distance

  def file(self, clip: SampledClip) -> pathlib.Path:
    return self._found.folder / manifest.LATENTS / f'{clip.path.stem}.npy'

  def run(
    self, num_readers: int, stop: StopSignal | None, progress: Progress
  ) -> bool:
    mine, todo = self._share()
    progress.skip(len(mine) - len(todo))
    stamps = [storage.file_signature(self.file(clip)) for clip in todo]
    for clip, stamp in zip(todo, stamps, strict=True):
      if stamp is None:
        raise UserError(
          f'{self.file(clip)}: no such file; sample the base with '
          'output.keep_latents = True'
        )
    for first in range(0, len(todo), AT_A_TIME):
      if stop is not None and stop.received:
        return False
      part = slice(first, first + AT_A_TIME)
      found = self._distance(
        [self._noisy(clip) for clip in todo[part]],
        keep=part.stop < len(todo),
      )
      with self._journal:
        for clip, stamp, value in zip(
          todo[part], stamps[part], found, strict=True
        ):
          self._add(clip, stamp, {METRIC.name: value})
          progress.update(1)
    return True

  def _noisy(self, clip: SampledClip) -> NoisyClip:
    return NoisyClip(
      guarded_clips.read_latents(self.file(clip)), clip.prompt, clip.seed[0]
    )


def distance_measured(
  measurers: Sequence[DistanceMeasurer],
) -> list[MetricValues]:
  """The distance of each model to base, which is 0 for base itself.

  Args:
    measurers: of the other models; all clips are measured.
  """
  if not measurers:
    return []
  others = [
    {key: found[METRIC.name] for key, found in measurer.results().items()}
    for measurer in measurers
  ]
  return [MetricValues(METRIC, (dict.fromkeys(others[0], 0.0), *others))]
