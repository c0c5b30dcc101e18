"""Whether generated clips have become better, by what the checkers see.

Two models have made clips of the same prompts from the same noise. So prompts
are drawn for both at once: what makes a prompt hard for both cancels in the
difference, whose interval is narrower than that of two unrelated sets. Clips of
one prompt hang together and are drawn together (see `evaluation.bootstrap`).

D draws, P prompts, N clips of one side, K numbers of a clip; the last axis of 2
is (y, x).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from lift_jax.data.hra import DIMENSIONS, LABELS
from lift_jax.errors import UserError
from lift_jax.evaluation import bootstrap as bootstrap_lib
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.rewards.weights import RewardMap, video_reward
from lift_jax.runtime.journal import Journal
from lift_jax.sampling import manifest
from lift_jax.toyworld import checkers, scenes
from lift_jax.toyworld.checkers import Verdict

# All that a verdict may name; 'motion' is a direction other than the caption's.
KINDS = (*scenes.ATTRIBUTES, *checkers.TOLERANCES, 'nothing')

_SIDES = ('before', 'after')
_ALL = 'all'


@dataclasses.dataclass(frozen=True)
class JudgedClip:
  """What the checkers say of one generated clip.

  Attributes:
    key: id of the prompt, and number among its clips.
    caption: what it should show.
    path: of the mp4 file.
    verdicts: by dimension.
    reward: LiFT's, from the three labels.
    speed: mean length of a step from frame to frame, in shorter sides; None
      where no shape is found in two frames that follow each other. Steps of a
      shape that trembles or leaps count with their full length.
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
  """Judges the clips of a job of `lift sample`, in the order of its manifest.

  Args:
    workdir: of the job.

  Raises:
    UserError: there is no clip, or one that is not of the toy world.
  """
  journal = Journal(workdir / manifest.NAME, _video)
  lines = journal.read()
  if not lines:
    raise UserError(
      f'{journal.path}: lists no clip; give the workdir of lift sample'
    )
  return [
    judge_clip(
      (line['id'], line['index']),
      line['prompt'],
      workdir / name,
      f'{journal.path} ({name})',
    )
    for name, line in lines.items()
  ]


def _video(line: Mapping[str, Any]) -> str:
  """The video of a line of a manifest."""
  (name,) = (name for name in line['files'] if name.endswith('.mp4'))
  return name


def judge_clip(
  key: tuple[str, int], caption: str, path: pathlib.Path, where: str
) -> JudgedClip:
  """Judges one clip; `where` names its record in messages."""
  verdicts, measured = checkers.check_video(path, caption, where)
  labels = {name: verdict.label for name, verdict in verdicts.items()}
  return JudgedClip(
    key,
    caption,
    path,
    verdicts,
    video_reward(labels, RewardMap()),
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
  """How often clips are Good, and more, before and after; JSON values.

  Args:
    before: clips of one model.
    after: clips of another, of the same prompts and numbers in any order.
    bootstrap: of the intervals.

  Returns:
    The sizes 'num_videos' (of one side) and 'num_prompts', the settings
    'bootstrap', and

      rates.DIMENSION, rates.all   shares of clips that are Good, in one
                                   dimension or in all three
      reward, speed                means; of speed over clips that have one
      static_share                 share of clips in which nothing moves

    each as {'before', 'after', 'difference'} of {'value', 'low', 'high'}, and
    without intervals

      labels.SIDE.DIMENSION.LABEL  shares of clips
      flaws.SIDE.KIND              shares of clips of which a verdict names it

  Raises:
    UserError: the two are not of the same prompts.
  """
  _check_paired(before, after)
  sides = {'before': before, 'after': after}
  prompts = {clip.key[0]: None for clip in before}
  numbers = _estimates(sides, list(prompts), bootstrap)
  return {
    'num_videos': len(before),
    'num_prompts': len(prompts),
    'bootstrap': dataclasses.asdict(bootstrap),
    'rates': {name: numbers[name] for name in (*DIMENSIONS, _ALL)},
    'labels': {side: _labels(clips) for side, clips in sides.items()},
    'flaws': {side: _flaws(clips) for side, clips in sides.items()},
    'reward': numbers['reward'],
    'speed': numbers['speed'],
    'static_share': numbers['static_share'],
  }


def _check_paired(
  before: Sequence[JudgedClip], after: Sequence[JudgedClip]
) -> None:
  if not before:
    raise UserError('no clip before to compare with; sample at least one')
  by_key = [_by_key(before, 'before'), _by_key(after, 'after')]
  if alone := by_key[0].keys() ^ by_key[1].keys():
    prompt, index = min(alone)
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
        f'{by_key[clip.key].path} and {clip.path}; leave one out'
      )
    by_key[clip.key] = clip
  return by_key


def _numbers(clip: JudgedClip) -> dict[str, float]:
  """What is averaged over clips; NaN is left out."""
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
  """By number, and by side or 'difference': value, low, high."""
  place = {prompt: index for index, prompt in enumerate(prompts)}
  names = list(_numbers(sides['before'][0]))
  sums, counts = {}, {}
  for side, clips in sides.items():
    values_nk = np.array(
      [list(_numbers(clip).values()) for clip in clips], float
    )
    is_known_nk = np.isfinite(values_nk)
    prompt_n = np.array([place[clip.key[0]] for clip in clips])
    sums[side], counts[side] = (
      bootstrap_lib.per_video(of_nk, prompt_n, len(prompts))
      for of_nk in (np.where(is_known_nk, values_nk, 0), is_known_nk)
    )

  def metrics(weights_dp: np.ndarray) -> dict[str, np.ndarray]:
    before_dk, after_dk = (
      bootstrap_lib.ratio(weights_dp @ sums[side], weights_dp @ counts[side])
      for side in _SIDES
    )
    of = {
      'before': before_dk,
      'after': after_dk,
      'difference': after_dk - before_dk,
    }
    return {
      f'{name}/{which}': means_dk[:, index]
      for index, name in enumerate(names)
      for which, means_dk in of.items()
    }

  found = bootstrap_lib.estimates(metrics, len(prompts), len(names), config)
  return {
    name: {
      which: dataclasses.asdict(found[f'{name}/{which}'])
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
  named = [
    {kind for verdict in clip.verdicts.values() for kind in verdict.kinds}
    for clip in clips
  ]
  return {kind: _share([kind in kinds for kinds in named]) for kind in KINDS}


def _share(flags: Sequence[bool]) -> float:
  return sum(flags) / len(flags)


# A number as text; the sign is '+' to show both, or ''.
_Write = Callable[[float, str], str]


def _percent(value: float, sign: str) -> str:
  return f'{100 * value:{sign}.1f}'


def _decimal(value: float, sign: str) -> str:
  return f'{value:{sign}.3f}'


# Where a number stands, its title, and how to write it.
_ROWS = (
  *((f'rates.{name}', f'{name} Good, %', _percent) for name in DIMENSIONS),
  ('rates.all', 'all three Good, %', _percent),
  ('reward', 'mean reward', _decimal),
  ('speed', 'step, % of the side', _percent),
  ('static_share', 'static, %', _percent),
)


def table_lines(comparison: Mapping[str, Any]) -> list[str]:
  """A table for a terminal, up to 80 columns wide, of what `compare` gives."""
  coverage = comparison['bootstrap']['coverage']
  lines = [
    f'{comparison["num_videos"]} videos of {comparison["num_prompts"]} prompts',
    f'{"":<22}{"before":>9}{"after":>9}{"difference":>13}'
    f'  {100 * coverage:g} % interval',
  ]
  for path, title, write in _ROWS:
    number = comparison
    for key in path.split('.'):
      number = number[key]
    before, after = (_text(number[side]['value'], write) for side in _SIDES)
    change = number['difference']
    value, low, high = (
      _text(change[key], write, '+') for key in ('value', 'low', 'high')
    )
    interval = '' if change['low'] is None else f'  [{low}, {high}]'
    lines.append(f'{title:<22}{before:>9}{after:>9}{value:>13}{interval}')
  return lines


def _text(value: float | None, write: _Write, sign: str = '') -> str:
  return '-' if value is None else write(value, sign)
