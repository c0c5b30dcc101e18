"""Findings of a comparison of two video models, in sentences."""

from collections.abc import Mapping
from typing import Any

from lift_jax.comparison.metrics import BLOCK_MOTION, DIVERSITY, STATIC
from lift_jax.comparison.model_comparison import CRITIC, HELD_OUT, REWARD
from lift_jax.data.hra import DIMENSIONS
from lift_jax.data.vbench_dimensions import TOTAL
from lift_jax.report.formatting import (
  percent,
  points,
  signed,
  with_interval,
)

Tree = dict[str, Any]

# The metric that decides, the first of these that was measured, unless people
# compared the clips, or metrics from elsewhere name another one.
_DECISIVE = (TOTAL, f'{HELD_OUT}_{REWARD}', f'{CRITIC}_{REWARD}')

_OVERALL = 'overall'


def verdict(comparison: Tree) -> str:
  """Which model is better, by how much and how sure, in a sentence."""
  base, other = comparison['base'], comparison['model']
  if people := comparison['people'].get(_OVERALL):
    return _verdict_of_people(base, other, people)
  rows = _by_name(comparison)
  for name in (comparison['decisive'], *_DECISIVE):
    if name in rows:
      return _verdict_of_row(base, other, rows[name], comparison)
  return (
    f'It was not measured whether {other} or {base} is better: flicker and '
    'motion do not say; give scores of a critic, results of VBench or pairs '
    'that people compared'
  )


def _verdict_of_people(base: str, other: str, rate: Tree) -> str:
  share = rate['with_ties']
  text = with_interval(share)
  count = rate['wins'] + rate['ties'] + rate['losses']
  what = f'in {text} of {count:,} pairs, where ties count half'
  low, high = share['low'], share['high']
  if low is not None and low > 0.5:
    return f'People prefer {other} to {base}: {what}'
  if high is not None and high < 0.5:
    return f'People prefer {base} to {other}: {other} wins {what}'
  return f'People do not clearly prefer either: {other} wins {what}'


def _verdict_of_row(base: str, other: str, row: Tree, comparison: Tree) -> str:
  title = row['title']
  decimals = 1
  if row['name'] == TOTAL:  # which VBench's leaderboard gives to two
    title, decimals = 'VBench Total', 2
  new, old = (
    f'{100 * row[side]["value"]:.{decimals}f}' for side in ('other', 'base')
  )
  values = f'{title} {new} against {old}'
  value, low, high = (
    None if number is None else signed(100 * number, decimals)
    for number in (row['difference'][key] for key in ('value', 'low', 'high'))
  )
  change = f'{value} points'
  if low is not None:
    coverage = f'{100 * comparison["coverage"]:g}%'
    change += f' ({coverage} interval: {low} to {high})'
  if row['mark']:
    better, worse = (other, base) if row['mark'] == 'better' else (base, other)
    return f'{better} is better than {worse}: {values}, {change}'
  return (
    f'No difference that {row["num_clips"]:,} clips could show: {values}, '
    f'{change}; {_detectable(row)}'
  )


def _detectable(row: Tree) -> str:
  if row['detectable'] is None:
    return 'they cannot show any'
  return (
    f'a difference of {_size(row, row["detectable"])} would probably have been '
    'found'
  )


def _size(row: Tree, value: float) -> str:
  return f'{percent(value)} points' if row['is_share'] else f'{value:.3f}'


def _by_name(comparison: Tree) -> dict[str, Tree]:
  return {row['name']: row for row in comparison['rows']}


def findings(comparison: Tree) -> list[str]:
  """Warnings, and what is better and worse, in sentences."""
  rows = _by_name(comparison)
  lines = [
    *_about_stillness(comparison, rows),
    *_about_critics(comparison, rows),
    *_about_clips(comparison, rows),
  ]
  by_mark: dict[str, list[str]] = {}
  for row in comparison['rows']:
    by_mark.setdefault(row['mark'], []).append(_named(row))
  for mark in ('better', 'worse'):
    if mark in by_mark:
      lines.append(
        f'{comparison["model"]} is {mark} in {", ".join(by_mark[mark])}.'
      )
  if '' in by_mark:
    lines.append(
      f'No difference that so many clips could show in {len(by_mark[""])} of '
      f'{len(comparison["rows"])} numbers; the table has the difference that '
      'they could have shown.'
    )
  return lines


def _named(row: Tree) -> str:
  title = row['title']
  change = row['difference']['value']
  text = points(change) + ' points' if row['is_share'] else signed(change, 3)
  return f'{title} ({text})'


def _about_stillness(comparison: Tree, rows: Mapping[str, Tree]) -> list[str]:
  """A model may win by freezing: still pictures flicker less."""
  still, moving = rows.get(STATIC), rows.get(BLOCK_MOTION)
  signs = []
  if still and still['mark'] == 'worse':
    signs.append(f'more of them are static ({_change(still)})')
  if moving and moving['mark'] == 'lower':
    change = points(moving['difference']['value'])
    signs.append(f'blocks move less ({change}% of the side per frame)')
  if not signs:
    return []
  return [
    f'Warning: the clips of {comparison["model"]} move less: '
    f'{" and ".join(signs)}. Still pictures get better numbers for flicker, '
    'consistency and smoothness, and from many critics.'
  ]


def _change(row: Tree) -> str:
  return f'{points(row["difference"]["value"])} points'


def _about_critics(comparison: Tree, rows: Mapping[str, Tree]) -> list[str]:
  """Gains that only the critic sees that the model was trained with."""
  doubtful = []
  for name in (*DIMENSIONS, REWARD):
    trained, other = (rows.get(f'{kind}_{name}') for kind in (CRITIC, HELD_OUT))
    if trained and other and trained['mark'] == 'better':
      if other['mark'] != 'better':
        doubtful.append(
          f'{name} ({_change(trained)}, held-out {_change(other)})'
        )
  if not doubtful:
    return []
  return [
    'Warning: the critic sees a gain that the held-out critic does not, in '
    f'{", ".join(doubtful)}. The model may have learned to please its critic.'
  ]


def _about_clips(comparison: Tree, rows: Mapping[str, Tree]) -> list[str]:
  lines = []
  diversity = rows.get(DIVERSITY.name)
  if diversity and diversity['mark'] == 'worse':
    lines.append(
      f'Warning: the clips of a prompt are more alike than those of '
      f'{comparison["base"]}.'
    )
  if comparison['missing_in_vbench']:
    lines.append(
      f'Warning: {comparison["missing_in_vbench"]:,} clips are missing in the '
      'results of VBench and count as 0, and so do dimensions without a result.'
    )
  if comparison['same_noise'] < 1:
    lines.append(
      f'Only {percent(comparison["same_noise"])}% of the clips start from the '
      'same noise in both models, so differences are less precise; sample with '
      'the same seed and prompts.'
    )
  return lines
