"""What was measured, in Markdown."""

from collections.abc import Mapping
from typing import Any

from gpu_parts.rows import ROWS, Row

_JOBS = ('train', 'sample', 'score')
_NONE = '—'


def markdown(results: Mapping[str, Any]) -> list[str]:
  """Lines for docs/performance.md.

  Args:
    results: the content of results.json.
  """
  rows = results['rows']
  known = [row for row in ROWS if row.name in rows]
  lines = _head(results)
  timed = [row for job in _JOBS for row in known if row.job == job]
  if timed:
    lines += [
      '',
      '| measured | of | result | target | MFU | bounds of `lift plan` '
      '| peak memory | compiled in | runs |',
      '|---|---|---|---|---|---|---|---|---|',
    ]
    lines += [
      _timed(row, rows[row.name], results['tiny'])
      for row in sorted(timed, key=lambda row: _JOBS.index(row.job))
    ]
  if 'kernels' in rows:
    lines += ['', *_kernels(rows['kernels'])]
  return lines


def _head(results: Mapping[str, Any]) -> list[str]:
  found = list(results['rows'].values())
  devices = {one['device']: None for one in found if 'device' in one}
  versions = {}
  for one in found:
    versions |= one.get('versions', {})
  size = 'toy sizes' if results['tiny'] else '49 × 480 × 720, random weights'
  named = ', '.join(f'{name} {version}' for name, version in versions.items())
  return [
    f'{", ".join(devices) or "no device"}; {results["date"]}; {size}; '
    f'{named or "nothing measured"}'
  ]


def said(row: Row, found: Mapping[str, Any]) -> str:
  """What came of a row, in a few words."""
  if found['status'] != 'ok':
    return f'{found["status"]}: {found["reason"]}'
  if row.job == 'kernels':
    worst = max(max(one['errors'].values()) for one in found['kernels'])
    return f'the largest error is {worst:.3g}'
  if row.job == 'score':
    return f'{found["videos_per_second"]:.3g} videos/s'
  return f'{found["seconds_per_video"]:.3g} s/video'


def progress(row: Row, found: Mapping[str, Any]) -> str:
  """The same with the bounds, for the log."""
  planned = _bounds(row, found)
  return said(row, found) + (f'; lift plan: {planned}' if planned else '')


def _bounds(row: Row, found: Mapping[str, Any]) -> str:
  """What `lift plan` says of the program, the worst first; '' if nothing."""
  planned = found.get('bounds', {})
  if 'seconds_per_video' not in planned:
    return ''
  fast, slow = planned['seconds_per_video']
  best, worst = planned['mfu']
  speed = f'{slow:.3g} to {fast:.3g} s/video'
  if row.job == 'score':
    speed = f'{1 / slow:.3g} to {1 / fast:.3g} videos/s'
  return f'{speed}, MFU {100 * worst:.0f} to {100 * best:.0f}%'


def _timed(row: Row, found: Mapping[str, Any], tiny: bool) -> str:
  result = said(row, found)
  if found['status'] not in ('ok', 'failed'):
    result = found['status']
  cells = [
    row.title,
    row.library,
    result.replace('|', '/'),
    _NONE if tiny else row.target or _NONE,
    _number(found.get('mfu'), 100, '.0f', '%'),
    _bounds(row, found) or _NONE,
    _number(found.get('peak_bytes'), 2.0**-30, '.1f', ' GiB'),
    _number(found.get('compile_seconds'), 1, '.0f', ' s'),
    str(len(found.get('run_seconds', ())) or _NONE),
  ]
  return f'| {" | ".join(cells)} |'


def _kernels(found: Mapping[str, Any]) -> list[str]:
  if not found.get('kernels'):
    return [f'attention against fp32: {found["status"]}, {found["reason"]}']
  lines = [
    '| attention, bfloat16 | of | error of the result | of dq | of dk | of dv '
    '| bound | forward | forward and backward |',
    '|---|---|---|---|---|---|---|---|---|',
  ]
  for one in found['kernels']:
    cells = [one['shape'], one['backend']]
    if 'errors' in one:
      cells += [f'{error:.1e}' for error in one['errors'].values()]
      rate = one['forward_flops_per_second'] / 1e12
      cells += [
        f'{one["bound"]}',
        f'{1e3 * one["forward_seconds"]:.2f} ms, {rate:.3g} TFLOP/s',
        f'{1e3 * one["forward_and_backward_seconds"]:.2f} ms',
      ]
    else:
      cells += [one['reason'].replace('|', '/'), *[_NONE] * 6]
    lines.append(f'| {" | ".join(cells)} |')
  return lines


def _number(value: float | None, scale: float, form: str, unit: str) -> str:
  return _NONE if value is None else f'{value * scale:{form}}{unit}'
