"""Files of metrics that were computed elsewhere, one for each model.

  {"metrics": [{"name": "good", "title": "Good clips", "group": "Checkers",
                "better": "higher", "is_share": true}, ...],
   "decisive": "good",
   "clips": {"videos/0001-0.mp4": {"good": 1, ...}, ...}}

`better` is 'higher', 'lower' or 'neither'; a share is in [0, 1] and written in
percent. `decisive` names the metric that the verdict is about; it may be left
out, as may values of clips.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

from lift_jax.comparison.clip_sets import ClipSet, Key
from lift_jax.comparison.metrics import HIGHER, LOWER, NEITHER, Metric
from lift_jax.errors import UserError
from lift_jax.runtime.files import read_json

BETTER = {'higher': HIGHER, 'lower': LOWER, 'neither': NEITHER}
_KINDS = {'name': str, 'title': str, 'group': str, 'better': str,
          'is_share': bool}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class MetricFile:
  """The metrics of one model's clips.

  Attributes:
    metrics: by name.
    values: of each metric, by clip.
    decisive: name of the metric that the verdict is about, or ''.
  """

  metrics: Mapping[str, Metric]
  values: Mapping[str, Mapping[Key, float]]
  decisive: str


def read_metric_files(
  paths: Sequence[pathlib.Path], sets: Sequence[ClipSet]
) -> list[MetricFile]:
  """Reads the file of each model.

  Raises:
    UserError: a file that is not as above, a value that is not finite or no
      share, a clip that is not there, or files of different metrics.
  """
  files = [_read(path, found) for path, found in zip(paths, sets, strict=True)]
  for path, file in zip(paths, files, strict=True):
    if (file.metrics, file.decisive) != (files[0].metrics, files[0].decisive):
      raise UserError(
        f'{path}: other metrics than in {paths[0]}; compute the same ones for '
        'all models'
      )
  return files


def _read(path: pathlib.Path, found: ClipSet) -> MetricFile:
  content = read_json(path)
  if not {'metrics', 'clips'} <= content.keys() <= {
    'metrics', 'clips', 'decisive'
  }:  # fmt: skip
    raise UserError(
      f'{path}: has {sorted(content)}; write "metrics", "clips" and, if one of '
      'them decides, "decisive"'
    )
  listed, clips = content['metrics'], content['clips']
  if not isinstance(listed, list) or not isinstance(clips, dict):
    raise UserError(
      f'{path}: "metrics" is not a list, or "clips" not an object; correct it'
    )
  metrics: dict[str, Metric] = {}
  for number, item in enumerate(listed, 1):
    metric = _metric(f'{path} metric {number}', item)
    if metrics.setdefault(metric.name, metric) is not metric:
      raise UserError(f'{path}: two metrics {metric.name!r}; remove one')
  decisive = content.get('decisive') or ''
  if decisive and decisive not in metrics:
    raise UserError(
      f'{path}: "decisive" is {decisive!r}, which is none of the metrics; name '
      'one of them'
    )
  keys = {clip.video: clip.key for clip in found.clips.values()}
  values: dict[str, dict[Key, float]] = {name: {} for name in metrics}
  for video, numbers in clips.items():
    where = f'{path} ({video})'
    if video not in keys:
      raise UserError(
        f'{where}: no clip of {found.folder}; name clips as its manifest does'
      )
    if not isinstance(numbers, dict):
      raise UserError(f'{where}: not an object of metrics; correct it')
    for name, number in numbers.items():
      if name not in metrics:
        raise UserError(f'{where}: {name!r} is not listed in "metrics"; add it')
      values[name][keys[video]] = _number(where, metrics[name], number)
  return MetricFile(metrics, values, decisive)


def _metric(where: str, item: Any) -> Metric:
  if not isinstance(item, dict) or item.keys() != _KINDS.keys():
    raise UserError(
      f'{where}: not an object of {", ".join(_KINDS)}; correct it'
    )
  for key, kind in _KINDS.items():
    if not isinstance(item[key], kind) or item[key] == '':
      raise UserError(
        f'{where}: {key} is {item[key]!r}; give a {kind.__name__}'
      )
  if item['better'] not in BETTER:
    raise UserError(
      f'{where}: better is {item["better"]!r}; give one of {list(BETTER)}'
    )
  return Metric(**item | {'better': BETTER[item['better']]})


def _number(where: str, metric: Metric, value: Any) -> float:
  if not isinstance(value, int | float) or not math.isfinite(value):
    raise UserError(
      f'{where}: {metric.name} is {value!r}; give a finite number, or leave '
      'it out'
    )
  if metric.is_share and not 0 <= value <= 1:
    raise UserError(
      f'{where}: {metric.name} is {value:g}, which is no share; give one from '
      '0 to 1, or write "is_share": false'
    )
  return float(value)
