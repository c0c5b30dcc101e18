"""Measures the clips of a folder, in threads, and keeps what it measured."""

import base64
from collections.abc import Callable, Mapping, Sequence
import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import pathlib
from typing import Any

import jax
import numpy as np

from lift_jax.comparison.clip_sets import (
  ClipSet,
  Key,
  SampledClip,
  check_opened,
  probe_clip,
  refuse,
)
from lift_jax.comparison.file_measuring import FileMeasurer
from lift_jax.comparison.metrics import ClipMeasure
from lift_jax.data import video
from lift_jax.data.suites import Suite, SuitePrompt
from lift_jax.data.video import ClipInfo
from lift_jax.errors import UserError, listing
from lift_jax.evaluation import diversity
from lift_jax.runtime import distributed, shutdown, storage
from lift_jax.runtime.journal import Journal, Line
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import StopSignal
from lift_jax.sampling.clips import safe_name
from lift_jax.weights import safetensors_files

# Frames of which a clip's features for diversity are kept.
_FEATURE_FRAMES = 4
_LEVELS = 255


@dataclasses.dataclass(frozen=True)
class OpenedMeasure:
  """A measure that is ready to use.

  Attributes:
    names: of its metrics.
    compute: from frames, and the text if there are texts, to their values.
    prompts: names of those whose clips are measured; None for all.
    texts: by name of the prompt; None for metrics of the frames alone.
    weights: fingerprints of its networks.
  """

  names: tuple[str, ...]
  compute: Callable[..., Sequence[float]]
  prompts: frozenset[str] | None = None
  texts: Mapping[str, str] | None = None
  weights: tuple[str, ...] = ()

  def is_about(self, prompt: str) -> bool:
    return self.prompts is None or prompt in self.prompts

  def inputs(self, prompt: str) -> tuple[str, ...]:
    """What the function gets after the frames."""
    return () if self.texts is None else (self.texts[prompt],)


def open_measures(
  measures: Sequence[ClipMeasure],
  weights: Mapping[str, pathlib.Path],
  prompts: Sequence[SuitePrompt] | None = None,
) -> list[OpenedMeasure]:
  """Loads the measures whose weights are given.

  Args:
    measures: all that there are.
    weights: folders by name.
    prompts: of the clips; None for clips of any prompts, of which measures that
      need texts are left out.

  Raises:
    UserError: weights that no measure needs, or that cannot be used.
  """
  known = {name for measure in measures for name in measure.needs}
  if unknown := weights.keys() - known:
    raise UserError(
      f'metrics.weights has {listing(unknown)}, which no metric needs; those '
      f'that are needed are {listing(known, len(known))}'
    )
  opened = []
  for measure in measures:
    text = measure.text
    if not set(measure.needs) <= weights.keys() or (text and prompts is None):
      continue
    about = texts = None
    if prompts is not None:
      measured = [prompt for prompt in prompts if measure.is_about(prompt)]
      about = frozenset(prompt.name for prompt in measured)
      if text is not None:
        texts = {prompt.name: text(prompt) for prompt in measured}
    opened.append(
      OpenedMeasure(
        measure.names,
        measure.open(weights),
        about,
        texts,
        tuple(_fingerprint(weights[name]) for name in measure.needs),
      )
    )
  return opened


def _fingerprint(weights: pathlib.Path) -> str:
  """Identifies the weights in a folder or file."""
  files = [weights] if weights.is_file() else weights.glob('*.safetensors')
  digest = hashlib.sha256()
  for file in sorted(files):
    tensors = safetensors_files.open_tensors(file, '')
    digest.update(safetensors_files.fingerprint(tensors).encode())
  return digest.hexdigest()


class ClipMeasurer:
  """Measures the clips of one model; results are kept in a journal.

  A clip is measured again once its file, the decoder, the set of metrics, their
  weights or texts have changed. Each host measures its share. With a suite,
  each clip is checked when it is measured: it must be like the first one.

  Args:
    workdir: gets `metrics_MODEL.jsonl`.
    found: the clips.
    measures: what to measure.
    suite: the clips that there should be.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    found: ClipSet,
    measures: Sequence[OpenedMeasure],
    suite: Suite | None = None,
  ):
    self._found, self._measures, self._suite = found, measures, suite
    name = f'metrics_{safe_name(found.model, 100)}.jsonl'
    self._journal = Journal(
      workdir / name, lambda line: line['video'], jax.process_index()
    )
    devices = jax.local_devices()
    if devices[0].platform == 'cpu':  # they share cores, but no programs
      devices = devices[:1]
    self._devices = itertools.cycle(devices)

  @property
  def num_clips(self) -> int:
    """On all hosts together."""
    return len(self._found.clips)

  def _made_by(self, clip: SampledClip) -> dict[str, Any]:
    """The fingerprint of what determines the values of a clip, but its file."""
    prompt = clip.key[0]
    made_by = [
      entry
      for measure in self._measures
      if measure.is_about(prompt)
      for entry in (*measure.names, *measure.weights, *measure.inputs(prompt))
    ]
    return {'decoder': video.DECODER, 'metrics': made_by}

  def gather(self) -> None:
    """Merges the lines of all hosts; only the primary host calls it."""
    clips = self._found.clips.values()
    self._journal.gather([clip.video for clip in clips])

  def check_first(self) -> None:
    """Checks the first clip, which is opened unless it is measured.

    Raises:
      UserError: it is cut, or its length does not suit the suite.
    """
    self._check({})

  @functools.cached_property
  def _first(self) -> dict[Key, ClipInfo | str]:
    """The first clip, which the others are compared with."""
    clip, *_ = self._found.clips.values()
    info = self._measured(clip, self._journal.read())
    return {clip.key: info or probe_clip(clip)}

  def _check(self, infos: Mapping[Key, ClipInfo | str]) -> None:
    """Raises UserError if these clips or the first are cut, or differ."""
    if self._suite is not None:
      infos = {**self._first, **infos}
      refuse(self._found, check_opened(self._found, self._suite, infos))

  def run(
    self, num_readers: int, stop: StopSignal | None, progress: Progress
  ) -> bool:
    """Measures this host's share, until all is done or `stop` is received.

    Returns:
      Whether all of it is done.

    Raises:
      UserError: a clip that cannot be decoded, has one frame, or is not as the
        others are.
    """
    lines = self._journal.read()
    clips = list(self._found.clips.values())
    mine = clips[jax.process_index() :: jax.process_count()]
    todo, measured = [], {}
    for clip in mine:
      if info := self._measured(clip, lines):
        measured[clip.key] = info
        progress.skip(1)
      else:
        todo.append(clip)
    self._check(measured)

    def measure(clip: SampledClip, device: jax.Device) -> bool:
      if stop is not None and stop.received:
        return False
      with jax.default_device(device):
        self._journal.add(self._measure(clip))
      return True

    with (
      self._journal,
      concurrent.futures.ThreadPoolExecutor(num_readers) as pool,
    ):
      try:
        # Clips take turns on the devices.
        for is_done in pool.map(measure, todo, self._devices):
          if not is_done:
            return False
          progress.update(1)
      except UserError:
        pool.shutdown(cancel_futures=True)
        raise
    return True

  def _measured(
    self, clip: SampledClip, lines: Mapping[str, Line]
  ) -> ClipInfo | None:
    """Size, frames and rate of a clip; None if it is to be measured."""
    line = lines.get(clip.video)
    if (
      line is None
      or 'clip' not in line  # as in files of earlier versions
      or line['made_by'] != self._made_by(clip)
      or tuple(line['stamp']) != storage.file_signature(clip.path)
    ):
      return None
    return ClipInfo(**line['clip'] | {'flags': tuple(line['clip']['flags'])})

  def _measure(self, clip: SampledClip) -> Line:
    stamp = storage.file_signature(clip.path)
    with storage.local_file(clip.path) as path:
      try:
        # All frames, as VBench reads them.
        decoded = video.decode(
          path, where=clip.video, choose=lambda count, _: range(count)
        )
      except UserError as error:
        self._check({clip.key: str(error)})
        raise
    frames = decoded.frames
    height, width = frames.shape[1:3]
    info = ClipInfo(len(frames), decoded.fps, height, width, decoded.flags)
    self._check({clip.key: info})
    if len(frames) < 2:
      raise UserError(
        f'{clip.where}: has one frame, so no motion; sample it again'
      )
    values = {}
    for measure in self._measures:
      if not measure.is_about(clip.key[0]):
        continue
      inputs = measure.inputs(clip.key[0])
      numbers = map(float, measure.compute(frames, *inputs))
      values |= dict(zip(measure.names, numbers, strict=True))
    few = frames[_evenly_spaced(len(frames), _FEATURE_FRAMES)]
    features_d = diversity.grid_features(few)
    return {
      'video': clip.video,
      'stamp': list(stamp or ()),
      'made_by': self._made_by(clip),
      'clip': dataclasses.asdict(info),
      'values': values,
      'features': _to_text(features_d),
    }

  def results(
    self,
  ) -> tuple[dict[str, dict[Key, float]], dict[Key, np.ndarray]]:
    """The values by metric and clip, and the features of each clip.

    Features are uint8, in 255ths.
    """
    lines = self._journal.read()
    values: dict[str, dict[Key, float]] = {
      name: {} for measure in self._measures for name in measure.names
    }
    features = {}
    for key, clip in self._found.clips.items():
      line = lines[clip.video]
      for name, value in line['values'].items():
        values[name][key] = value
      features[key] = _from_text(line['features'])
    return values, features


def _to_text(features_d: np.ndarray) -> str:
  """Features in [0, 1], in a byte each: lists of numbers are slow to read."""
  levels_d = np.rint(features_d * _LEVELS).astype(np.uint8)
  return base64.b64encode(levels_d.tobytes()).decode()


def _from_text(text: str) -> np.ndarray:
  """Features in 255ths; as floating-point numbers all of them are large."""
  return np.frombuffer(base64.b64decode(text), np.uint8)


def _evenly_spaced(num_frames: int, count: int) -> np.ndarray:
  return np.rint(np.linspace(0, num_frames - 1, count)).astype(int)


def diversity_by_prompt(
  features: Mapping[Key, np.ndarray],
) -> dict[Key, float]:
  """Mean distance of the clips of each prompt that has several, at index 0.

  Args:
    features: of each clip, see `ClipMeasurer.results`.
  """
  by_prompt: dict[str, list[np.ndarray]] = {}
  for (name, _), levels_d in features.items():
    by_prompt.setdefault(name, []).append(levels_d)
  distances = {}
  for name, of_prompt in by_prompt.items():
    distance = diversity.pairwise_distance(np.stack(of_prompt) / _LEVELS)
    if distance is not None:
      distances[name, 0] = distance
  return distances


def measure_all(
  measurers: Sequence[ClipMeasurer | FileMeasurer],
  num_readers: int,
  progress: Progress,
  *,
  can_stop: bool = True,
) -> bool:
  """Measures the clips of all models on all hosts; every host calls it.

  Args:
    measurers: of the models.
    num_readers: threads that decode and measure.
    progress: of this host's share.
    can_stop: False leaves SIGTERM to the caller.

  Returns:
    Whether all clips are measured; False after SIGTERM.
  """
  if distributed.is_primary():
    for measurer in measurers:
      measurer.gather()
  distributed.barrier('earlier metrics are merged')
  is_done = True
  with distributed.independent_work('every host has measured its clips'):
    with shutdown.stop_signal(can_stop) as stop, progress:
      for measurer in measurers:
        is_done = is_done and measurer.run(num_readers, stop, progress)
  is_done = distributed.true_everywhere(is_done)
  if distributed.is_primary():
    for measurer in measurers:
      measurer.gather()
  distributed.barrier('metrics are merged')
  return is_done
