"""Pictures of what was before and what is after.

Before is pale and dashed, after is full. All pictures are as wide as a phone,
so that their text keeps its size there.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math

from lift_jax.data.hra import LABELS
from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import svg
from lift_jax.report.html import Html, tag
from lift_jax.report.style import (
  BLUE,
  GROUND,
  INK,
  LABEL_COLOURS,
  LINE,
  MUTED,
  VERMILION,
)

WIDTH = 328

# What tells the two apart; each is seen without its colour, too.
_BEFORE = {
  'fill': VERMILION,
  'fill_opacity': 0.25,
  'stroke': VERMILION,
  'stroke_width': 1.5,
  'stroke_dasharray': '4 2',
}
_AFTER = {'fill': BLUE, 'stroke': BLUE, 'stroke_width': 1.5}

# Largest values of an axis of shares.
_LIMITS = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclasses.dataclass(frozen=True)
class Change:
  """A number before and after.

  Attributes:
    name: of the number.
    before: between 0 and 1; its value is None where it is not defined.
    after: likewise.
  """

  name: str
  before: Estimate
  after: Estimate


def radar(axes: Sequence[Change], *, title: str) -> Html | None:
  """One polygon for each of the two, their corners further out for more.

  Axes that lack a value are left out; with fewer than three nothing is drawn.

  Args:
    axes: clockwise from the top.
    title: for those who do not see the picture.
  """
  axes = [
    axis
    for axis in axes
    if axis.before.value is not None and axis.after.value is not None
  ]
  if len(axes) < 3:
    return None
  radius, middle_x, middle_y = 100, WIDTH / 2, 148

  def place(index: float, value: float) -> tuple[float, float]:
    angle = 2 * math.pi * index / len(axes)
    length = radius * value
    return (
      middle_x + length * math.sin(angle),
      middle_y - length * math.cos(angle),
    )

  def polygon(values: Sequence[float], **look) -> Html:
    corners = (place(*item) for item in enumerate(values))
    points = ' '.join(f'{svg.number(x)},{svg.number(y)}' for x, y in corners)
    return tag('polygon', points=points, **look)

  parts = [_legend(WIDTH / 2 - 70)]
  for ring in (0.25, 0.5, 0.75, 1):
    look = {'fill': 'none', 'stroke': LINE, 'class_': 'ring'}
    parts.append(polygon([ring] * len(axes), **look))
  for index, axis in enumerate(axes):
    x, y = place(index, 1)
    parts.append(svg.line(middle_x, middle_y, x, y))
    x, y = place(index, 1.13)
    side = round(math.sin(2 * math.pi * index / len(axes)), 6)
    anchor = 'start' if side > 0 else 'end' if side < 0 else 'middle'
    parts.append(svg.text(x, y, axis.name, anchor=anchor))
  after = _AFTER | {'fill_opacity': 0.18, 'stroke_width': 2.5}
  before = _BEFORE | {'fill_opacity': 0.12, 'stroke_width': 2}
  for name, look in (('before', before), ('after', after)):
    values = [getattr(axis, name).value for axis in axes]
    parts.append(polygon(values, class_=name, **look))
    for index, value in enumerate(values):
      x, y = place(index, value)
      parts.append(
        tag(
          'circle',
          tag('title', f'{axes[index].name} {name}: {value:.3f}'),
          cx=svg.number(x),
          cy=svg.number(y),
          r=3.5,
          fill=look['fill'] if name == 'after' else GROUND,
          stroke=look['stroke'],
          stroke_width=1.5,
        )
      )
  # In the middle of an edge, where no corner lies.
  inner = math.cos(math.pi / len(axes))
  for ring in (0.5, 1):
    x, y = place(-0.5, ring * inner)
    told = svg.number(ring)
    parts.append(svg.text(x, y, told, fill=MUTED, size=10.5, on_lines=True))
  return svg.picture(WIDTH, middle_y + radius + 18, title, *parts)


def _legend(x: float) -> Html:
  """What the two looks mean, from `x` on, in the first line."""
  parts = []
  for name, look in (('before', _BEFORE), ('after', _AFTER)):
    parts += [
      tag('rect', x=svg.number(x), y=4, width=16, height=11, **look),
      svg.text(x + 22, 10, name, anchor='start', fill=MUTED),
    ]
    x += 84
  return tag('g', *parts)


def limit_of(changes: Sequence[Change]) -> float:
  """The end of an axis that holds all of the numbers and intervals."""
  estimates = [e for c in changes for e in (c.before, c.after)]
  most = max(
    (n for e in estimates for n in (e.value, e.high) if n is not None),
    default=1.0,
  )
  return next((limit for limit in _LIMITS if most <= limit), _LIMITS[-1])


def bars(changes: Sequence[Change], *, title: str, limit: float) -> Html:
  """Two bars a row, each with its interval where there is one.

  Args:
    changes: shares, from top to bottom.
    title: for those who do not see the picture.
    limit: the end of the axis, not below any of the numbers.
  """
  left, right, top, step, bar = 88, 50, 26, 38, 13
  size = WIDTH - left - right
  bottom = top + step * len(changes)

  def x_of(value: float) -> float:
    return left + size * value / limit

  parts = [_legend(left)]
  for tick in (0, limit / 2, limit):
    parts += [
      svg.line(x_of(tick), top, x_of(tick), bottom),
      svg.text(
        x_of(tick), bottom + 10, f'{100 * tick:g}%', fill=MUTED, size=11
      ),
    ]
  for index, change in enumerate(changes):
    middle = top + step * (index + 0.5)
    parts.append(svg.text(left - 8, middle, change.name, anchor='end'))
    for estimate, y, look in (
      (change.before, middle - bar / 2 - 1, _BEFORE),
      (change.after, middle + bar / 2 + 1, _AFTER),
    ):
      parts += _bar(estimate, y, bar, x_of, look)
      told = '-' if estimate.value is None else f'{estimate.value:.1%}'
      parts.append(
        svg.text(WIDTH - right + 6, y, told, anchor='start', size=11.5)
      )
  return svg.picture(WIDTH, bottom + 20, title, *parts)


def _bar(
  estimate: Estimate, y: float, height: float, x_of, look: dict
) -> list[Html]:
  """A bar whose middle line is at `y`, and the whisker over it."""
  if estimate.value is None:
    return []
  parts = [
    tag(
      'rect',
      x=svg.number(x_of(0)),
      y=svg.number(y - height / 2 + 1),
      width=svg.number(x_of(estimate.value) - x_of(0)),
      height=height - 2,
      **look,
    )
  ]
  if estimate.low is not None and estimate.high is not None:
    low, high = x_of(estimate.low), x_of(estimate.high)
    parts.append(svg.line(low, y, high, y, INK, stroke_width=1.5))
    parts += [
      svg.line(x, y - 3, x, y + 3, INK, stroke_width=1.5) for x in (low, high)
    ]
  return parts


def label_shares(
  before: Mapping[str, Mapping[str, float]],
  after: Mapping[str, Mapping[str, float]],
  *,
  title: str,
) -> Html:
  """For each dimension two bars of Good, Normal and Bad, one over the other.

  Args:
    before: by dimension, the share of each label.
    after: likewise.
    title: for those who do not see the picture.
  """
  left, step = 50, 68
  size = WIDTH - left - 1
  parts = []
  for index, dimension in enumerate(before):
    y = step * index
    parts.append(svg.text(left, y + 9, dimension, anchor='start', bold=True))
    for name, told, top in (
      ('before', before[dimension], y + 19),
      ('after', after[dimension], y + 40),
    ):
      parts.append(
        svg.text(left - 7, top + 9, name, anchor='end', fill=MUTED, size=11.5)
      )
      x = left
      for label in LABELS:
        width = size * told[label]
        parts += _segment(label, told[label], x, top, width)
        x += width
  return svg.picture(WIDTH, step * len(before) - 6, title, *parts)


def _segment(
  label: str, share: float, x: float, y: float, width: float
) -> list[Html]:
  """A part of a bar, with as much text as it has room for."""
  parts = [
    tag(
      'rect',
      tag('title', f'{label} {share:.1%}'),
      x=svg.number(x),
      y=y,
      width=svg.number(width),
      height=18,
      fill=LABEL_COLOURS[label],
      stroke=GROUND,
    )
  ]
  for told, room in ((f'{label} {share:.0%}', 78), (f'{share:.0%}', 32)):
    if width >= room:
      parts.append(svg.text(x + width / 2, y + 9, told, fill=GROUND, size=11.5))
      break
  return parts
