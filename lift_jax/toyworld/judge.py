"""Comparison of two models by the checkers' verdicts on their clips.

Both models generate clips for the same prompts from the same noise, so the
bootstrap resamples prompts for both at once: the difficulty of a prompt cancels
in the difference, whose interval is narrower than that of independent samples.
Clips of one prompt are correlated and resampled together (see
`evaluation.bootstrap`).

D bootstrap samples, P prompts, N clips of one model, K metrics of a clip; the
last axis of 2 is (y, x).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from lift_jax.data.hra import DIMENSIONS, LABELS
from lift_jax.data.rubric import LIFT
from lift_jax.errors import UserError
from lift_jax.evaluation import bootstrap as bootstrap_lib
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.rewards.weights import video_reward
from lift_jax.sampling import manifest
from lift_jax.toyworld import checkers, scenes
from lift_jax.toyworld.checkers import Verdict

# Kinds of flaws in verdicts; 'motion' is a direction other than the caption's.
KINDS = (*scenes.ATTRIBUTES, *checkers.TOLERANCES, 'nothing')

_SIDES = ('before', 'after')
_ALL = 'all'


@dataclasses.dataclass(frozen=True)
class JudgedClip:
  """A generated clip with the checkers' verdicts.

  Attributes:
    key: id of the prompt, and index among its clips.
    caption: the prompt.
    path: of the mp4 file.
    verdicts: by dimension.
    reward: LiFT's, from the three labels.
    speed: mean displacement of the shape per frame, in units of the shorter
      side, jitter and jumps included; None if no shape is found in two
      consecutive frames.
    is_static: whether nothing moves from the first frame to the last.
  """

  key: tuple[str, int]
  caption: str
  path: pathlib.Path
  verdicts: Mapping[str, Verdict]
  reward: float
  speed: float | None
  is_static: bool


def judge_videos(workdir: pathlib.Path) -> list[JudgedClip]:
  """Judges the clips of a `lift sample` job, in the order of its manifest.

  Args:
    workdir: of the job.

  Raises:
    UserError: no clip, or one that is not of the toy world.
  """
  path = workdir / manifest.NAME
  lines = manifest.read_lines(workdir)
  if not lines:
    raise UserError(f'{path}: lists no clip; give the workdir of lift sample')
  return [
    judge_clip(
      (line['id'], line['index']),
      line['prompt'],
      workdir / name,
      f'{path} ({name})',
    )
    for name, line in lines.items()
  ]


def judge_clip(
  key: tuple[str, int], caption: str, path: pathlib.Path, where: str
) -> JudgedClip:
  """Judges one clip; `where` is the name of its record in errors."""
  verdicts, measured = checkers.check_video(path, caption, where)
  labels = {name: verdict.label for name, verdict in verdicts.items()}
  return JudgedClip(
    key,
    caption,
    path,
    verdicts,
    video_reward(labels, LIFT),
    _speed(measured.path_t2),
    measured.is_static,
  )


def _speed(path_t2: np.ndarray | None) -> float | None:
  if path_t2 is None:
    return None
  lengths_s = np.linalg.norm(np.diff(path_t2, axis=0), axis=1)
  lengths_s = lengths_s[np.isfinite(lengths_s)]
  return float(lengths_s.mean()) if lengths_s.size else None


def compare(
  before: Sequence[JudgedClip],
  after: Sequence[JudgedClip],
  bootstrap: BootstrapConfig,
) -> dict[str, Any]:
  """Compares labels, rewards and more before and after; returns JSON values.

  Args:
    before: clips of one model.
    after: clips of another, with the same keys in any order.
    bootstrap: settings of the intervals.

  Returns:
    The sizes 'num_videos' (of one model) and 'num_prompts', the settings
    'bootstrap', and

      rates.DIMENSION, rates.all   fractions of clips that are Good, in one
                                   dimension or in all three
      reward, speed                means; of speed over clips that have one
      static_share                 fraction of clips in which nothing moves

    each as {'before', 'after', 'difference'} of {'value', 'low', 'high'}, and
    without intervals

      labels.SIDE.DIMENSION.LABEL  fractions of clips
      flaws.SIDE.KIND              fractions of clips with this flaw

  Raises:
    UserError: the clips are not of the same prompts.
  """
  _check_paired(before, after)
  sides = {'before': before, 'after': after}
  prompts = {clip.key[0]: None for clip in before}
  metrics = _estimates(sides, list(prompts), bootstrap)
  return {
    'num_videos': len(before),
    'num_prompts': len(prompts),
    'bootstrap': dataclasses.asdict(bootstrap),
    'rates': {name: metrics[name] for name in (*DIMENSIONS, _ALL)},
    'labels': {side: _labels(clips) for side, clips in sides.items()},
    'flaws': {side: _flaws(clips) for side, clips in sides.items()},
    'reward': metrics['reward'],
    'speed': metrics['speed'],
    'static_share': metrics['static_share'],
  }


def _check_paired(
  before: Sequence[JudgedClip], after: Sequence[JudgedClip]
) -> None:
  if not before:
    raise UserError('no clip before to compare with; sample at least one')
  by_key = [_by_key(before, 'before'), _by_key(after, 'after')]
  if unpaired := by_key[0].keys() ^ by_key[1].keys():
    prompt, index = min(unpaired)
    here, other = _SIDES if (prompt, index) in by_key[0] else _SIDES[::-1]
    raise UserError(
      f'prompt {prompt!r} has a clip {index} {here} but none {other}; sample '
      'the same prompts and as many videos of each'
    )
  for key, clip in by_key[0].items():
    if clip.caption != by_key[1][key].caption:
      raise UserError(
        f'prompt {key[0]!r} is {clip.caption!r} before and '
        f'{by_key[1][key].caption!r} after; sample the same prompts'
      )


def _by_key(
  clips: Sequence[JudgedClip], side: str
) -> dict[tuple[str, int], JudgedClip]:
  by_key = {}
  for clip in clips:
    if clip.key in by_key:
      raise UserError(
        f'prompt {clip.key[0]!r} has two clips {clip.key[1]} {side}: '
        f'{by_key[clip.key].path} and {clip.path}; remove one'
      )
    by_key[clip.key] = clip
  return by_key


def _metrics(clip: JudgedClip) -> dict[str, float]:
  """The metrics that are averaged over clips; NaN is skipped."""
  is_good = {name: clip.verdicts[name].label == 'Good' for name in DIMENSIONS}
  return {
    **is_good,
    _ALL: all(is_good.values()),
    'reward': clip.reward,
    'speed': np.nan if clip.speed is None else clip.speed,
    'static_share': clip.is_static,
  }


def _estimates(
  sides: Mapping[str, Sequence[JudgedClip]],
  prompts: Sequence[str],
  config: BootstrapConfig,
) -> dict[str, dict[str, dict[str, float | None]]]:
  """By metric, and by side or 'difference': value, low, high."""
  prompt_index = {prompt: index for index, prompt in enumerate(prompts)}
  names = list(_metrics(sides['before'][0]))
  sums, counts = {}, {}
  for side, clips in sides.items():
    values_nk = np.array(
      [list(_metrics(clip).values()) for clip in clips], float
    )
    is_known_nk = np.isfinite(values_nk)
    prompt_n = np.array([prompt_index[clip.key[0]] for clip in clips])
    sums[side], counts[side] = (
      bootstrap_lib.per_video(x_nk, prompt_n, len(prompts))
      for x_nk in (np.where(is_known_nk, values_nk, 0), is_known_nk)
    )

  def metrics(weights_dp: np.ndarray) -> dict[str, np.ndarray]:
    before_dk, after_dk = (
      bootstrap_lib.ratio(weights_dp @ sums[side], weights_dp @ counts[side])
      for side in _SIDES
    )
    means = {
      'before': before_dk,
      'after': after_dk,
      'difference': after_dk - before_dk,
    }
    return {
      f'{name}/{which}': means_dk[:, index]
      for index, name in enumerate(names)
      for which, means_dk in means.items()
    }

  estimates = bootstrap_lib.estimates(metrics, len(prompts), len(names), config)
  return {
    name: {
      which: dataclasses.asdict(estimates[f'{name}/{which}'])
      for which in (*_SIDES, 'difference')
    }
    for name in names
  }


def _labels(clips: Sequence[JudgedClip]) -> dict[str, dict[str, float]]:
  return {
    dimension: {
      label: _share([clip.verdicts[dimension].label == label for clip in clips])
      for label in LABELS
    }
    for dimension in DIMENSIONS
  }


def _flaws(clips: Sequence[JudgedClip]) -> dict[str, float]:
  kinds_of_clips = [
    {kind for verdict in clip.verdicts.values() for kind in verdict.kinds}
    for clip in clips
  ]
  return {
    kind: _share([kind in kinds for kinds in kinds_of_clips]) for kind in KINDS
  }


def _share(flags: Sequence[bool]) -> float:
  return sum(flags) / len(flags)


# Formats a number; the second argument is its sign option, '+' or ''.
_Format = Callable[[float, str], str]


def _percent(value: float, sign: str) -> str:
  return f'{100 * value:{sign}.1f}'


def _decimal(value: float, sign: str) -> str:
  return f'{value:{sign}.3f}'


# Path of a metric in the result of `compare`, its title and its format.
_ROWS = (
  *((f'rates.{name}', f'{name} Good, %', _percent) for name in DIMENSIONS),
  ('rates.all', 'all three Good, %', _percent),
  ('reward', 'mean reward', _decimal),
  ('speed', 'step, % of the side', _percent),
  ('static_share', 'static, %', _percent),
)


def table_lines(
  comparison: Mapping[str, Any], names: tuple[str, str] = _SIDES
) -> list[str]:
  """The result of `compare` as a text table, up to 80 columns wide.

  Args:
    comparison: of two models.
    names: of the models, 9 characters at most.
  """
  coverage = comparison['bootstrap']['coverage']
  lines = [
    f'{comparison["num_videos"]} videos of {comparison["num_prompts"]} prompts',
    f'{"":<22}{names[0]:>9}{names[1]:>9}{"difference":>13}'
    f'  {100 * coverage:g} % interval',
  ]
  for path, title, number_format in _ROWS:
    metric = comparison
    for key in path.split('.'):
      metric = metric[key]
    before, after = (
      _text(metric[side]['value'], number_format) for side in _SIDES
    )
    change = metric['difference']
    value, low, high = (
      _text(change[key], number_format, '+') for key in ('value', 'low', 'high')
    )
    interval = '' if change['low'] is None else f'  [{low}, {high}]'
    lines.append(f'{title:<22}{before:>9}{after:>9}{value:>13}{interval}')
  return lines


def _text(value: float | None, number_format: _Format, sign: str = '') -> str:
  return '-' if value is None else number_format(value, sign)
