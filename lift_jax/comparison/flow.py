"""VBench's static filter and dynamic degree, from optical flow of RAFT.

The flow is computed elsewhere, with RAFT's weights for things and 20
iterations, which VBench uses. A clip NAME.mp4 of T frames has NAME.npy:

  [T + 1, H, W, 2]   from each frame to the next, then from the first to the
                     last, then from the last to the first, in pixels

A pair of frames is as fast as the mean of its largest flow vectors:

  static    unless more than c = round(2 T / 16) pairs of neighbours are faster
            (largest 2%) than l = 3 m / 256, with m the shorter side, or one of
            the other two pairs than 2 c l
  dynamic   if at least round(4 T / 16) pairs of neighbours are faster (largest
            5%) than 6 m / 256

See vbench/static_filter.py and vbench/dynamic_degree.py in
https://github.com/Vchitect/VBench. Dynamic degree looks at 8 frames per second,
so it is only computed for clips of fewer than 12.

P pairs of frames, H height, W width; the last axis of 2 is (x, y).
"""

from collections.abc import Mapping, Sequence
import concurrent.futures
import dataclasses
import pathlib

import numpy as np

from lift_jax.comparison.clip_sets import ClipSet, Key, SampledClip
from lift_jax.comparison.file_measuring import FileMeasurer
from lift_jax.comparison.metrics import HIGHER, NEITHER, Metric
from lift_jax.comparison.model_comparison import MetricValues
from lift_jax.data import suites, video
from lift_jax.data.suites import Suite
from lift_jax.errors import UserError
from lift_jax.runtime import storage
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import StopSignal

_GROUP = 'Optical flow, given'
STATIC = Metric(
  'flow_static', "kept by VBench's static filter", _GROUP, NEITHER
)
DYNAMIC = Metric('flow_dynamic_degree', 'dynamic degree', _GROUP, HIGHER)
FLICKER = Metric(
  'flow_temporal_flickering',
  'temporal flickering of static clips',
  _GROUP,
  HIGHER,
)
_DYNAMIC = 'dynamic_degree'
_MOST_FPS = 12


def speeds(flow_phw2: np.ndarray, share: float) -> np.ndarray:
  """How fast each pair is, [P], by the largest `share` of the vectors."""
  count = int(flow_phw2.shape[1] * flow_phw2.shape[2] * share)
  found = []
  for flow_hw2 in flow_phw2:  # which may be a large file
    length_n = np.linalg.norm(flow_hw2.astype(np.float32), axis=-1).ravel()
    largest_n = np.partition(length_n, len(length_n) - count)[-count:]
    found.append(largest_n.mean(dtype=np.float64))
  return np.array(found)


def is_static(flow_phw2: np.ndarray) -> bool:
  """Whether VBench's static filter keeps a clip; see above."""
  side, num_frames = min(flow_phw2.shape[1:3]), len(flow_phw2) - 1
  limit, count = 3.0 * side / 256, round(2 * num_frames / 16)
  speed_p = speeds(flow_phw2, 0.02)
  if (speed_p[:-2] > limit).sum() > count:
    return False
  return bool((speed_p[-2:] <= limit * count * 2).all())


def is_dynamic(flow_phw2: np.ndarray) -> bool:
  """Whether VBench's dynamic degree counts a clip; see above."""
  side, num_frames = min(flow_phw2.shape[1:3]), len(flow_phw2) - 1
  fast_p = speeds(flow_phw2[:-2], 0.05) > 6.0 * side / 256
  return bool(fast_p.sum() >= round(4 * num_frames / 16))


class FlowMeasurer(FileMeasurer):
  """Measures the flow of one model's clips.

  Args:
    workdir: see `FileMeasurer`.
    found: the clips.
    folder: of their flow.
    suite: whose prompts say which clips need flow.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    found: ClipSet,
    folder: pathlib.Path,
    suite: Suite,
  ):
    about = _about(suite, suites.FLICKER) | _about(suite, _DYNAMIC)
    clips = {k: clip for k, clip in found.clips.items() if k[0] in about}
    found = dataclasses.replace(found, clips=clips)
    super().__init__(workdir, 'flow', found, {'flow': str(folder)})
    self._folder = folder

  def file(self, clip: SampledClip) -> pathlib.Path:
    return self._folder / f'{clip.path.stem}.npy'

  def run(
    self, num_readers: int, stop: StopSignal | None, progress: Progress
  ) -> bool:
    mine, todo = self._share()
    progress.skip(len(mine) - len(todo))

    def measure(clip: SampledClip) -> bool:
      if stop is not None and stop.received:
        return False
      stamp = storage.file_signature(self.file(clip))
      self._add(clip, stamp, self._measure(clip))
      return True

    with (
      self._journal,
      concurrent.futures.ThreadPoolExecutor(num_readers) as pool,
    ):
      for is_done in pool.map(measure, todo):
        if not is_done:
          return False
        progress.update(1)
    return True

  def _measure(self, clip: SampledClip) -> dict[str, float]:
    path = self.file(clip)
    if storage.file_signature(path) is None:
      raise UserError(
        f'{path}: no such file; give the flow of all clips in flow.folders'
      )
    with storage.local_file(clip.path) as local:
      info = video.probe(local, where=clip.video)
    with storage.local_file(path) as local:
      flow_phw2 = _read(local, path)
      shape = (info.num_frames + 1, info.height, info.width, 2)
      if flow_phw2.shape != shape:
        raise UserError(
          f'{path}: has shape {flow_phw2.shape}, but {clip.video} needs '
          f'{shape}: its frames, first to last and last to first; compute it '
          'again'
        )
      values = {STATIC.name: float(is_static(flow_phw2))}
      if info.fps and info.fps < _MOST_FPS:
        values[DYNAMIC.name] = float(is_dynamic(flow_phw2))
    return values


def _read(local: pathlib.Path, path: pathlib.Path) -> np.ndarray:
  """The array in a file; `path` is its name in messages."""
  try:
    array = np.load(local, mmap_mode='r', allow_pickle=False)
  except (OSError, ValueError) as error:
    raise UserError(
      f'{path}: not an array ({error}); compute it again'
    ) from None
  if array.dtype.kind != 'f' or not all(np.isfinite(x).all() for x in array):
    raise UserError(f'{path}: not all are finite numbers; compute it again')
  return array


def flow_measured(
  measurers: Sequence[FlowMeasurer],
  flicker: Sequence[Mapping[Key, float]],
  suite: Suite,
) -> list[MetricValues]:
  """The metrics that flow gives, on the prompts that VBench has for them.

  Args:
    measurers: of each model; all clips are measured.
    flicker: temporal flickering of each clip, by model.
    suite: the prompts.
  """
  if not measurers:
    return []
  results = [measurer.results() for measurer in measurers]
  about_flicker = _about(suite, suites.FLICKER)

  def values(name: str, about: set[str]) -> tuple[dict[Key, float], ...]:
    return tuple(
      {
        key: found[name]
        for key, found in of_model.items()
        if key[0] in about and name in found
      }
      for of_model in results
    )

  static = values(STATIC.name, about_flicker)
  return [
    MetricValues(STATIC, static),
    MetricValues(DYNAMIC, values(DYNAMIC.name, _about(suite, _DYNAMIC))),
    MetricValues(FLICKER, tuple(map(kept_flicker, flicker, static))),
  ]


def _about(suite: Suite, dimension: str) -> set[str]:
  """Names of the prompts of a dimension; of other suites than VBench's, all."""
  return {
    prompt.name
    for prompt in suite.prompts
    if not prompt.dimensions or dimension in prompt.dimensions
  }


def kept_flicker(
  flicker: Mapping[Key, float], static: Mapping[Key, float]
) -> dict[Key, float]:
  """Flicker of the clips that VBench scores, numbered anew.

  Of each prompt it keeps the first five static clips, in the order of their
  names.
  """
  kept: dict[Key, float] = {}
  counts: dict[str, int] = {}
  for name, index in sorted(static, key=lambda key: (key[0], str(key[1]))):
    number = counts.get(name, 0)
    if static[name, index] and number < suites.NUM_CLIPS:
      kept[name, number] = flicker[name, index]
      counts[name] = number + 1
  return kept
