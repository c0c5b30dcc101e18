"""Pictures of a run: how numbers went, and what took how long."""

from collections.abc import Sequence
import math

import numpy as np

from lift_jax.report import svg
from lift_jax.report.change_plots import WIDTH
from lift_jax.report.html import Html, tag
from lift_jax.report.style import BLUE, MUTED

# A line of more points than this is drawn pale, under a smooth one, which is
# the mean over so many of a series' points.
SMOOTH_FROM = 60
_WINDOWS = 15


def curve(name: str, points: Sequence[tuple[float, float]]) -> Html:
  """A number over the steps of a training run.

  Args:
    name: of the number, written above.
    points: steps and values; those that are not finite are counted, not drawn.
  """
  left, top, right, height = 54, 26, 8, 118
  size = WIDTH - left - right
  base = top + height
  finite = [(step, value) for step, value in points if math.isfinite(value)]
  note = '' if points else 'no points'
  if missing := len(points) - len(finite):
    note = f'{missing:,} not finite'
  parts = [svg.text(left, 9, name, anchor='start', bold=True)]
  title = f'{name}: {note}'
  if finite:
    steps_n, values_n = np.array(finite, float).T
    last = f'{_short(values_n[-1])} at the end'
    title = (
      f'{name} over steps {_short(steps_n[0])} to {_short(steps_n[-1])}: from '
      f'{_short(values_n[0])} to {_short(values_n[-1])}'
    )
    note = f'{note}, {last}' if note else last
    (x_low, x_high), (y_low, y_high) = _range(steps_n), _range(values_n)

    def x_of(step):
      return left + size * (step - x_low) / (x_high - x_low)

    def y_of(value):
      return base - height * (value - y_low) / (y_high - y_low)

    is_flat = values_n.min() == values_n.max()
    for tick in [values_n[0]] if is_flat else _ticks(y_low, y_high):
      y = y_of(tick)
      parts += [
        svg.line(left, y, left + size, y),
        svg.text(
          left - 6, y, _short(tick), anchor='end', fill=MUTED, size=10.5
        ),
      ]
    for tick in _ticks(x_low, x_high, least=1):
      x = x_of(tick)
      parts += [
        svg.line(x, base, x, base + 4, MUTED),
        svg.text(x, base + 12, _short(tick), fill=MUTED, size=10.5),
      ]
    x_n, y_n = x_of(steps_n), y_of(values_n)
    if len(finite) == 1:
      parts.append(
        tag('circle', cx=svg.number(x_n[0]), cy=svg.number(y_n[0]), r=3.5,
            fill=BLUE)
      )  # fmt: skip
    elif len(finite) > SMOOTH_FROM:
      smooth_n = smooth(values_n, len(finite) // _WINDOWS)
      parts += [
        _path(x_n, y_n, stroke_width=1, stroke_opacity=0.35, class_='raw'),
        _path(x_n, y_of(smooth_n), stroke_width=2.2, class_='smooth'),
      ]
    else:
      parts.append(_path(x_n, y_n, stroke_width=1.8, class_='raw'))
  parts += [
    svg.line(left, base, left + size, base, MUTED),
    svg.text(left + size / 2, base + 27, 'step', fill=MUTED, size=11),
    svg.text(left + size, 9, note, anchor='end', fill=MUTED, size=11),
  ]
  return svg.picture(WIDTH, base + 36, title, *parts)


def _path(x_n: np.ndarray, y_n: np.ndarray, **look) -> Html:
  points = ' '.join(
    f'{svg.number(x)},{svg.number(y)}' for x, y in zip(x_n, y_n, strict=True)
  )
  return tag(
    'polyline',
    points=points,
    fill='none',
    stroke=BLUE,
    stroke_linejoin='round',
    **look,
  )


def smooth(values_n: np.ndarray, window: int) -> np.ndarray:
  """The mean of the values around each, [N]; at the ends, of those there are.

  Args:
    values_n: [N].
    window: how many, rounded up to an odd number.
  """
  half = window // 2
  sums = np.concatenate(([0.0], np.cumsum(values_n)))
  index_n = np.arange(len(values_n))
  low_n = np.maximum(index_n - half, 0)
  high_n = np.minimum(index_n + half + 1, len(values_n))
  return (sums[high_n] - sums[low_n]) / (high_n - low_n)


def _range(values_n: np.ndarray) -> tuple[float, float]:
  """From the least to the most, widened if that is nothing."""
  low, high = float(values_n.min()), float(values_n.max())
  # Less than what doubles tell apart well cannot be drawn.
  if high - low > 1e-9 * max(abs(low), abs(high)):
    return low, high
  margin = 0.1 * abs(low) or 1.0
  return low - margin, high + margin


def _ticks(low: float, high: float, least: float = 0) -> list[float]:
  """A few round numbers between the two, at least `least` apart."""
  least = max(least, (high - low) / 4)
  decade = 10.0 ** math.floor(math.log10(least))
  step = next(n * decade for n in (1, 2, 5, 10) if n * decade >= least)
  first, last = math.ceil(low / step), math.floor(high / step)
  return [step * number for number in range(first, last + 1)]


def _short(value: float) -> str:
  """In eight letters or so, such as '0.1234', '12,345' or '1.2e-4'."""
  if 1e3 <= abs(value) < 1e6:
    return f'{value:,.0f}'
  if value and not 1e-3 <= abs(value) < 1e6:
    digits, exponent = f'{value:.2e}'.split('e')
    return f'{float(digits):g}e{int(exponent)}'
  return f'{value:.4g}'


def duration(seconds: float) -> str:
  """Such as '2 min 05 s'."""
  if seconds < 59.95:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes:02d} min'
  return f'{minutes} min {rest:02d} s'


def durations(seconds: Sequence[tuple[str, float]], *, title: str) -> Html:
  """A bar for what each part took.

  Args:
    seconds: names and times, from top to bottom.
    title: for those who do not see the picture.
  """
  # A letter of this size is about seven wide.
  left = 14 + 7 * min(22, max((len(name) for name, _ in seconds), default=0))
  right, step = 76, 24
  size = WIDTH - left - right
  most = max((value for _, value in seconds), default=0) or 1
  parts = []
  for index, (name, value) in enumerate(seconds):
    y = step * (index + 0.5)
    width = size * value / most
    parts += [
      svg.text(left - 8, y, name, anchor='end'),
      tag(
        'rect',
        x=left,
        y=svg.number(y - 7),
        width=svg.number(max(1, width)),
        height=14,
        fill=BLUE,
      ),
      svg.text(
        left + width + 6, y, duration(value), anchor='start', fill=MUTED,
        size=11.5,
      ),
    ]  # fmt: skip
  return svg.picture(WIDTH, step * len(seconds), title, *parts)
