"""A small comparison of two models, as `lift compare` makes it."""

from typing import Any

EVIL = '<script>alert(1)</script><img src=x onerror=alert(2)>'


def estimate(value, half=0.05):
  low, high = (None, None) if half is None else (value - half, value + half)
  return {'value': value, 'low': low, 'high': high}


def row(name, base, other, mark='', half=0.05, **fields) -> dict[str, Any]:
  """A row of a share; its title is its name with blanks for '_'."""
  return {
    'name': name,
    'title': name.replace('_', ' '),
    'group': 'Group',
    'better': 1,
    'is_share': True,
    'base': estimate(base),
    'other': estimate(other),
    'difference': estimate(other - base, half),
    'p': 0.01,
    'is_marked': bool(mark),
    'mark': mark,
    'detectable': 0.04,
    'num_prompts': 40,
    'num_clips': 200,
    'win_rate': None,
  } | fields


def comparison(*rows, **fields) -> dict[str, Any]:
  return {
    'base': 'before',
    'model': 'after',
    'coverage': 0.95,
    'level': 0.05,
    'same_noise': 1.0,
    'decisive': '',
    'missing_in_vbench': 0,
    'rows': list(rows),
    'people': {},
  } | fields


def win_rate(wins, ties, losses, half=0.1) -> dict[str, Any]:
  count = wins + ties + losses
  return {
    'wins': wins,
    'ties': ties,
    'losses': losses,
    'with_ties': estimate((wins + ties / 2) / count, half),
    'without_ties': estimate(wins / (wins + losses), half),
  }


def result(*comparisons, **fields) -> dict[str, Any]:
  """Content of comparison.json."""
  return {
    'synthetic': False,
    'suite': {'name': 'mine', 'num_prompts': 40, 'num_clips': 200},
    'settings': {},
    'faults': [],
    'comparisons': list(comparisons),
    'vbench': {},
    'not_measured': [],
  } | fields
