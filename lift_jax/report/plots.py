"""Pictures of numbers as SVG that stands in a page.

Lengths are in pixels. Text is real text in the page's own letters, at a size
that can be read; every picture says in its title what it shows, for those who
do not see it; and no difference is told by colour alone.
"""

from collections.abc import Sequence
import dataclasses

from lift_jax.report.html import Html, tag
from lift_jax.report.style import BLUE, GROUND, INK, LINE, MUTED, VERMILION

_TEXT = 12.5


def _svg(width: float, height: float, title: str, *children: Html) -> Html:
  return tag(
    'svg',
    tag('title', title),
    *children,
    role='img',
    viewBox=f'0 0 {_number(width)} {_number(height)}',
    width=_number(width),
    height=_number(height),
  )


def _number(value: float) -> str:
  return f'{value:.2f}'.rstrip('0').rstrip('.')


def _text(
  x: float,
  y: float,
  content: str,
  *,
  anchor: str = 'middle',
  fill: str = INK,
  size: float = _TEXT,
  bold: bool = False,
  turned: bool = False,
) -> Html:
  """Text whose middle line is at `y`."""
  return tag(
    'text',
    content,
    x=_number(x),
    y=_number(y),
    dy='0.35em',
    text_anchor=anchor,
    fill=fill,
    font_size=_number(size),
    font_weight=600 if bold else None,
    transform=f'rotate(-90 {_number(x)} {_number(y)})' if turned else None,
  )


def _line(
  x1: float, y1: float, x2: float, y2: float, stroke: str = LINE, **more
) -> Html:
  ends = {'x1': x1, 'y1': y1, 'x2': x2, 'y2': y2}
  return tag(
    'line',
    **{name: _number(value) for name, value in ends.items()},
    stroke=stroke,
    **more,
  )


def confusion_matrix(
  counts: Sequence[Sequence[int]],
  rows: Sequence[str],
  columns: Sequence[str],
  *,
  title: str,
) -> Html:
  """Counts, shaded by their share of the row, which is written too.

  Args:
    counts: one list a row.
    rows: what people said.
    columns: what the critic said.
    title: for those who do not see the picture.
  """
  cell_width, cell_height, left, top = 43, 42, 66, 38
  width = left + cell_width * len(columns) + 1
  height = top + cell_height * len(rows) + 1
  parts = [
    _text(
      left + cell_width * len(columns) / 2, 9, 'the critic said', fill=MUTED
    ),
    _text(
      8, top + cell_height * len(rows) / 2, 'people said', fill=MUTED,
      turned=True,
    ),
  ]  # fmt: skip
  for column, name in enumerate(columns):
    parts.append(_text(left + cell_width * (column + 0.5), 28, name, size=11))
  for row, (name, line) in enumerate(zip(rows, counts, strict=True)):
    y = top + cell_height * row
    parts.append(
      _text(left - 6, y + cell_height / 2, name, anchor='end', size=11)
    )
    for column, count in enumerate(line):
      x = left + cell_width * column
      share = count / max(1, sum(line))
      is_diagonal = columns[column] == name
      parts.append(
        tag(
          'rect',
          x=x,
          y=y,
          width=cell_width,
          height=cell_height,
          fill=_shade(share),
          stroke=LINE,
        )
      )
      ink = GROUND if share > 0.5 else INK
      parts += [
        _text(
          x + cell_width / 2, y + 15, f'{share:.0%}', fill=ink, size=13,
          bold=is_diagonal,
        ),
        _text(
          x + cell_width / 2, y + 30, f'{count:,}', fill=ink, size=10.5
        ),
      ]  # fmt: skip
  return _svg(width, height, title, *parts)


def _shade(share: float) -> str:
  """From white to a blue that white text can be read on from one half on."""
  dark = tuple(int(BLUE[i : i + 2], 16) for i in (1, 3, 5))
  # A jump at one half: the tints next to it would suit neither ink.
  strength = 0.55 * share if share <= 0.5 else 0.4 + 0.6 * share
  mixed = (round(255 + (level - 255) * strength) for level in dark)
  return '#' + ''.join(f'{level:02x}' for level in mixed)


def reliability_diagram(
  bins: Sequence[dict], *, name: str, colour: str, title: str
) -> Html:
  """Accuracy over confidence, one dot a bin, and how many ratings each holds.

  Args:
    bins: dicts of `evaluation.calibration.Bin`.
    name: written above.
    colour: of dots and bars.
    title: for those who do not see the picture.
  """
  size, left, top, bars = 166, 54, 26, 34
  base = top + size + 8 + bars

  def x_of(value: float) -> float:
    return left + size * value

  def y_of(value: float) -> float:
    return top + size * (1 - value)

  parts = [_text(left, 10, name, anchor='start', bold=True)]
  for tick in (0, 0.25, 0.5, 0.75, 1):
    parts += [
      _line(x_of(tick), top, x_of(tick), base),
      _line(left, y_of(tick), left + size, y_of(tick)),
      _text(
        left - 6, y_of(tick), f'{tick:.0%}', anchor='end', fill=MUTED, size=11
      ),
      _text(x_of(tick), base + 11, f'{tick:.0%}', fill=MUTED, size=11),
    ]
  parts.append(
    _line(
      x_of(0), y_of(0), x_of(1), y_of(1), MUTED, stroke_dasharray='4 3',
      stroke_width=1.2,
    )
  )  # fmt: skip
  full = [bin_ for bin_ in bins if bin_['count']]
  total = sum(bin_['count'] for bin_ in full)
  most = max((bin_['count'] for bin_ in full), default=1)
  for bin_ in full:
    x = x_of(bin_['confidence'])
    parts += [
      _line(
        x, y_of(bin_['accuracy_low']), x, y_of(bin_['accuracy_high']), colour,
        stroke_width=1.5,
      ),
      tag(
        'circle',
        tag(
          'title',
          f'{bin_["count"]:,} ratings of confidence {bin_["low"]:.0%} to '
          f'{bin_["high"]:.0%}: mean {bin_["confidence"]:.0%}, '
          f'{bin_["accuracy"]:.0%} right',
        ),
        cx=_number(x),
        cy=_number(y_of(bin_['accuracy'])),
        r=_number(2.5 + 4.5 * (bin_['count'] / total) ** 0.5),
        fill=colour,
      ),
      tag(
        'rect',
        x=_number(x_of(bin_['low']) + 0.5),
        y=_number(base - bars * bin_['count'] / most),
        width=_number(size * (bin_['high'] - bin_['low']) - 1),
        height=_number(bars * bin_['count'] / most),
        fill=colour,
        fill_opacity=0.6,
      ),
    ]  # fmt: skip
  parts += [
    _line(left, base, left + size, base, MUTED),
    _text(left + size / 2, base + 28, 'confidence', fill=MUTED),
    _text(8, top + size / 2, 'right', fill=MUTED, turned=True),
  ]
  return _svg(left + size + 16, base + 36, title, *parts)


@dataclasses.dataclass(frozen=True)
class Measured:
  """A row of `intervals`.

  Attributes:
    name: of the row.
    value: a share between 0 and 1.
    low: of its interval; None if there is none.
    high: likewise.
    reference: what to compare with; None if there is nothing.
  """

  name: str
  value: float
  low: float | None
  high: float | None
  reference: float | None


def intervals(
  rows: Sequence[Measured], *, reference_name: str, title: str
) -> Html:
  """Shares as dots with their intervals, each beside its reference.

  Args:
    rows: from top to bottom.
    reference_name: what the references are, for the legend.
    title: for those who do not see the picture.
  """
  left, size, top, step = 112, 520, 34, 34
  bottom = top + step * len(rows)

  def x_of(value: float) -> float:
    return left + size * value

  parts = []
  for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
    parts += [
      _line(x_of(tick), top, x_of(tick), bottom),
      _text(x_of(tick), bottom + 12, f'{tick:.0%}', fill=MUTED, size=11),
    ]
  for index, row in enumerate(rows):
    y = top + step * (index + 0.5)
    parts.append(_text(left - 12, y, row.name, anchor='end'))
    if row.reference is not None:
      x = x_of(row.reference)
      parts.append(_line(x, y - 10, x, y + 10, VERMILION, stroke_width=2.5))
    if row.low is not None and row.high is not None:
      parts.append(
        _line(
          x_of(row.low), y, x_of(row.high), y, BLUE, stroke_width=3,
          stroke_linecap='round',
        )
      )  # fmt: skip
    parts += [
      tag('circle', cx=_number(x_of(row.value)), cy=y, r=5.5, fill=BLUE),
      _text(left + size + 14, y, f'{row.value:.1%}', anchor='start', bold=True),
    ]
  parts += [
    tag('circle', cx=left + 6, cy=12, r=5.5, fill=BLUE),
    _line(left - 6, 12, left + 18, 12, BLUE, stroke_width=3),
    _text(left + 26, 12, 'the critic', anchor='start', fill=MUTED),
    _line(left + 112, 3, left + 112, 21, VERMILION, stroke_width=2.5),
    _text(left + 121, 12, reference_name, anchor='start', fill=MUTED),
  ]
  return _svg(left + size + 72, bottom + 22, title, *parts)


def shares(
  values: Sequence[tuple[str, float]], *, marked: str, title: str
) -> Html:
  """A bar for each share; the one that is `marked` is full, the others pale."""
  left, size, step = 62, 150, 18
  parts = []
  for index, (name, value) in enumerate(values):
    y = step * index + step / 2
    is_marked = name == marked
    parts += [
      _text(left - 8, y, name, anchor='end', bold=is_marked),
      tag(
        'rect',
        x=left,
        y=_number(y - 5),
        width=_number(max(1, size * value)),
        height=10,
        fill=BLUE,
        fill_opacity=None if is_marked else 0.4,
      ),
      _text(
        left + size * value + 6, y, f'{value:.0%}', anchor='start', fill=MUTED
      ),
    ]
  return _svg(left + size + 46, step * len(values), title, *parts)
