"""What was measured, in Markdown."""

from collections.abc import Mapping
import statistics
from typing import Any

from cpu_parts import profiles
from cpu_parts.rows import SIDES

READING_GOAL = 10.0  # videos read for each that a step consumes, at least
_PROFILED = 12  # kinds of operations of a side that are printed


def markdown(result: Mapping[str, Any]) -> list[str]:
  """Lines for docs/performance.md, of the content of cpu.json."""
  rows = result['rows']
  versions = [
    ', '.join(f'{name} {version}' for name, version in side.items())
    for side in result['versions'].values()
  ]
  lines = [
    '',
    f'{result["processor"]}, {result["threads"]} core(s); '
    + '; '.join(versions),
    '',
    '| | ours, CPU s | torch, CPU s | ours / torch, CPU time | by the clock '
    '| goal | peak memory, ours | torch |',
    '|---|---|---|---|---|---|---|---|',
    *(_row(found) for found in rows.values()),
  ]
  for name, found in rows.items():
    if 'flops' in found:
      ours, torch = (
        found['flops'] / 1e9 / _median(found, side) for side in SIDES
      )
      lines += [
        '',
        f'{name}: of {found["flops"] / 1e9:.3g} GFLOP in a step, a second of '
        f'CPU time did {ours:.0f} here and {torch:.0f} in torch. Videos read '
        f'in a second: {found["videos_read_per_second"]:.0f}, '
        f'{read_per_consumed(found):.3g} for each that a step consumes. Goal: '
        f'at least {READING_GOAL:.0f}.',
      ]
    if found['profiles']:
      lines += ['', f'{name}:']
      lines += profiles.markdown(found['profiles'], _PROFILED)
  return lines


def read_per_consumed(found: Mapping[str, Any]) -> float:
  """Videos read in the time in which a step consumes one."""
  seconds = statistics.median(one['ours']['seconds'] for one in found['rounds'])
  return found['videos_read_per_second'] * seconds / found['videos']


def _median(found: Mapping[str, Any], side: str) -> float:
  return statistics.median(one[side]['cpu_seconds'] for one in found['rounds'])


def _row(found: Mapping[str, Any]) -> str:
  ratios = (
    '{median:.2f} ({low:.2f} to {high:.2f})'.format(**found[key])
    for key in ('cpu_ratio', 'ratio')
  )
  cells = [
    found['title'],
    *(f'{_median(found, side):.2f}' for side in SIDES),
    *ratios,
    f'≤ {found["goal"]}',
    *(f'{found["peak_bytes"][side] / 2**30:.2f} GiB' for side in SIDES),
  ]
  return f'| {" | ".join(cells)} |'
