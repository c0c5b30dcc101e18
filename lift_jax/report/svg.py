"""What pictures are made of: SVG that stands in a page.

Lengths are in pixels. Text is real text in the page's own letters, at a size
that can be read; every picture says in its title what it shows, for those who
do not see it; and no difference is told by colour alone.
"""

from lift_jax.report.html import Html, tag
from lift_jax.report.style import GROUND, INK, LINE

_TEXT = 12.5


def picture(width: float, height: float, title: str, *children: Html) -> Html:
  return tag(
    'svg',
    tag('title', title),
    *children,
    role='img',
    viewBox=f'0 0 {number(width)} {number(height)}',
    width=number(width),
    height=number(height),
  )


def number(value: float) -> str:
  return f'{value:.2f}'.rstrip('0').rstrip('.')


def text(
  x: float,
  y: float,
  content: str,
  *,
  anchor: str = 'middle',
  fill: str = INK,
  size: float = _TEXT,
  bold: bool = False,
  turned: bool = False,
  on_lines: bool = False,
) -> Html:
  """Text whose middle line is at `y`; `on_lines` clears a space around it."""
  return tag(
    'text',
    content,
    x=number(x),
    y=number(y),
    dy='0.35em',
    text_anchor=anchor,
    fill=fill,
    font_size=number(size),
    font_weight=600 if bold else None,
    transform=f'rotate(-90 {number(x)} {number(y)})' if turned else None,
    paint_order='stroke' if on_lines else None,
    stroke=GROUND if on_lines else None,
    stroke_width=3 if on_lines else None,
  )


def line(
  x1: float, y1: float, x2: float, y2: float, stroke: str = LINE, **more
) -> Html:
  ends = {'x1': x1, 'y1': y1, 'x2': x2, 'y2': y2}
  return tag(
    'line',
    **{name: number(value) for name, value in ends.items()},
    stroke=stroke,
    **more,
  )
