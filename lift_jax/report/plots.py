"""Pictures of numbers as SVG that stands in a page.

These are the pictures of the page about a critic; `change_plots` and
`curve_plots` have others.
"""

from collections.abc import Sequence
import dataclasses

from lift_jax.report import svg
from lift_jax.report.html import Html, tag
from lift_jax.report.style import BLUE, GROUND, INK, LINE, MUTED, VERMILION


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
    svg.text(
      left + cell_width * len(columns) / 2, 9, 'the critic said', fill=MUTED
    ),
    svg.text(
      8, top + cell_height * len(rows) / 2, 'people said', fill=MUTED,
      turned=True,
    ),
  ]  # fmt: skip
  for column, name in enumerate(columns):
    parts.append(
      svg.text(left + cell_width * (column + 0.5), 28, name, size=11)
    )
  for row, (name, line) in enumerate(zip(rows, counts, strict=True)):
    y = top + cell_height * row
    parts.append(
      svg.text(left - 6, y + cell_height / 2, name, anchor='end', size=11)
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
        svg.text(
          x + cell_width / 2, y + 15, f'{share:.0%}', fill=ink, size=13,
          bold=is_diagonal,
        ),
        svg.text(
          x + cell_width / 2, y + 30, f'{count:,}', fill=ink, size=10.5
        ),
      ]  # fmt: skip
  return svg.picture(width, height, title, *parts)


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

  parts = [svg.text(left, 10, name, anchor='start', bold=True)]
  for tick in (0, 0.25, 0.5, 0.75, 1):
    parts += [
      svg.line(x_of(tick), top, x_of(tick), base),
      svg.line(left, y_of(tick), left + size, y_of(tick)),
      svg.text(
        left - 6, y_of(tick), f'{tick:.0%}', anchor='end', fill=MUTED, size=11
      ),
      svg.text(x_of(tick), base + 11, f'{tick:.0%}', fill=MUTED, size=11),
    ]
  parts.append(
    svg.line(
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
      svg.line(
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
        cx=svg.number(x),
        cy=svg.number(y_of(bin_['accuracy'])),
        r=svg.number(2.5 + 4.5 * (bin_['count'] / total) ** 0.5),
        fill=colour,
      ),
      tag(
        'rect',
        x=svg.number(x_of(bin_['low']) + 0.5),
        y=svg.number(base - bars * bin_['count'] / most),
        width=svg.number(size * (bin_['high'] - bin_['low']) - 1),
        height=svg.number(bars * bin_['count'] / most),
        fill=colour,
        fill_opacity=0.6,
      ),
    ]  # fmt: skip
  parts += [
    svg.line(left, base, left + size, base, MUTED),
    svg.text(left + size / 2, base + 28, 'confidence', fill=MUTED),
    svg.text(8, top + size / 2, 'right', fill=MUTED, turned=True),
  ]
  return svg.picture(left + size + 16, base + 36, title, *parts)


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
      svg.line(x_of(tick), top, x_of(tick), bottom),
      svg.text(x_of(tick), bottom + 12, f'{tick:.0%}', fill=MUTED, size=11),
    ]
  for index, row in enumerate(rows):
    y = top + step * (index + 0.5)
    parts.append(svg.text(left - 12, y, row.name, anchor='end'))
    if row.reference is not None:
      x = x_of(row.reference)
      parts.append(svg.line(x, y - 10, x, y + 10, VERMILION, stroke_width=2.5))
    if row.low is not None and row.high is not None:
      parts.append(
        svg.line(
          x_of(row.low), y, x_of(row.high), y, BLUE, stroke_width=3,
          stroke_linecap='round',
        )
      )  # fmt: skip
    parts += [
      tag('circle', cx=svg.number(x_of(row.value)), cy=y, r=5.5, fill=BLUE),
      svg.text(
        left + size + 14, y, f'{row.value:.1%}', anchor='start', bold=True
      ),
    ]
  parts += [
    tag('circle', cx=left + 6, cy=12, r=5.5, fill=BLUE),
    svg.line(left - 6, 12, left + 18, 12, BLUE, stroke_width=3),
    svg.text(left + 26, 12, 'the critic', anchor='start', fill=MUTED),
    svg.line(left + 112, 3, left + 112, 21, VERMILION, stroke_width=2.5),
    svg.text(left + 121, 12, reference_name, anchor='start', fill=MUTED),
  ]
  return svg.picture(left + size + 72, bottom + 22, title, *parts)


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
      svg.text(left - 8, y, name, anchor='end', bold=is_marked),
      tag(
        'rect',
        x=left,
        y=svg.number(y - 5),
        width=svg.number(max(1, size * value)),
        height=10,
        fill=BLUE,
        fill_opacity=None if is_marked else 0.4,
      ),
      svg.text(
        left + size * value + 6, y, f'{value:.0%}', anchor='start', fill=MUTED
      ),
    ]
  return svg.picture(left + size + 46, step * len(values), title, *parts)
