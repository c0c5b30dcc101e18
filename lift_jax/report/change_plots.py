"""Plots that compare before and after.

Before is pale and dashed, after is solid, so that no difference is shown by
colour alone. All are as wide as a phone's screen, where they keep their size.
"""

from collections.abc import Mapping, Sequence
import dataclasses

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
import numpy as np

from lift_jax.data.hra import LABELS
from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import colours
from lift_jax.report.colours import BACKGROUND, BLUE, INK, VERMILION
from lift_jax.report.plots import draw_intervals, set_categories
from lift_jax.report.svg import SMALL, new_axes, set_hover, styled

_BEFORE = {
  'facecolor': to_rgba(VERMILION, 0.25),
  'edgecolor': VERMILION,
  'linestyle': (0, (3, 1.5)),
  'linewidth': 1.1,
}
_AFTER = {'facecolor': BLUE, 'edgecolor': BLUE, 'linewidth': 1.1}


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


def _add_legend(axes: Axes) -> None:
  handles = [Patch(**_BEFORE), Patch(**_AFTER)]
  axes.figure.legend(handles, ('before', 'after'), loc='upper center', ncols=2)


@styled
def radar(changes: Sequence[Change]) -> Figure | None:
  """A radar chart with a polygon each for before and after.

  Changes that lack a value are omitted; None if fewer than three are left.

  Args:
    changes: clockwise from the top.
  """
  known = [
    change
    for change in changes
    if None not in (change.before.value, change.after.value)
  ]
  if len(known) < 3:
    return None
  axes = new_axes((150, 150), (36, 48, 18, 48), projection='polar')
  axes.set_theta_zero_location('N')
  axes.set_theta_direction(-1)
  axes.spines['polar'].set_color(colours.LINE)
  angles = 2 * np.pi * np.arange(len(known)) / len(known)
  axes.set_xticks(angles, [change.name for change in known], color=INK)
  axes.tick_params(axis='x', labelsize=9.4, pad=1)
  for label, side in zip(axes.get_xticklabels(), np.sin(angles), strict=True):
    is_centred = abs(side) < 1e-9
    label.set_ha('center' if is_centred else 'left' if side > 0 else 'right')
  axes.set_rgrids((0.25, 0.5, 0.75, 1), ('', '0.5', '', '1'))
  axes.set_rlabel_position(-180 / len(known))
  for side, style, alpha in (
    ('before', _BEFORE, 0.12),
    ('after', _AFTER, 0.18),
  ):
    values = [getattr(change, side).value for change in known]
    colour = style['edgecolor']
    pale = {'facecolor': to_rgba(colour, alpha), 'linewidth': 1.8}
    axes.fill(angles, values, **style | pale)
    inside = BACKGROUND if side == 'before' else colour
    for change, angle, value in zip(known, angles, values, strict=True):
      (dot,) = axes.plot(angle, value, 'o', c=colour, mfc=inside, ms=5.2)
      set_hover(dot, f'{change.name} {side}: {value:.3f}')
  axes.set_ylim(0, 1)
  _add_legend(axes)
  return axes.figure


def axis_limit(changes: Sequence[Change]) -> float:
  """The upper limit of an axis that fits all values and intervals."""
  estimates = [e for c in changes for e in (c.before, c.after)]
  numbers = [n for e in estimates for n in (e.value, e.high) if n is not None]
  limits = (0.05, 0.1, 0.2, 0.5, 1.0)
  return next((n for n in limits if max(numbers, default=1) <= n), 1.0)


@styled
def change_bars(changes: Sequence[Change], limit: float) -> Figure:
  """Horizontal bars for before and after, with intervals if available.

  Args:
    changes: of shares, from top to bottom.
    limit: upper limit of the axis, not below any of the values.
  """
  axes = new_axes((140, 28.5 * len(changes)), (19, 40, 16, 66), xlim=(0, limit))
  set_categories(axes, [change.name for change in changes])
  axes.set_xticks((0, limit / 2, limit))
  axes.xaxis.set_major_formatter(PercentFormatter(1))
  axes.grid(axis='x')
  for side, style, offset in (
    ('before', _BEFORE, -0.2),
    ('after', _AFTER, 0.2),
  ):
    estimates = [getattr(change, side) for change in changes]
    y = [index + offset for index in range(len(changes))]
    for estimate, height in zip(estimates, y, strict=True):
      text = '-'
      if estimate.value is not None:
        text = f'{estimate.value:.1%}'
        axes.barh(height, estimate.value, 0.32, **style)
      axes.text(1.03 * limit, height, text, va='center_baseline', size=SMALL)
    caps = {'color': INK, 'linewidth': 1.1, 'marker': '|', 'markersize': 5}
    draw_intervals(axes, estimates, y, **caps)
  _add_legend(axes)
  return axes.figure


@styled
def label_shares(
  before: Mapping[str, Mapping[str, float]],
  after: Mapping[str, Mapping[str, float]],
) -> Figure:
  """Stacked bars of Good, Normal and Bad, two for each dimension.

  Args:
    before: by dimension, the share of each label.
    after: likewise.
  """
  # The height is that of a dimension's name and two bars.
  width, height = 207, 51
  axes = new_axes((width, height * len(before)), (0, 1, 0, 38), xlim=(0, 1))
  axes.set(xticks=[], ylim=(len(before), 0))
  y = np.add.outer(np.arange(len(before)), (0.41, 0.73)).ravel()
  axes.set_yticks(y, ['before', 'after'] * len(before))
  for index, dimension in enumerate(before):
    axes.text(0, index + 0.13, dimension, va='center', weight='bold')
  shares = [side[name] for name in before for side in (before, after)]
  start = np.zeros(len(shares))
  for label in LABELS:
    share = np.array([one[label] for one in shares])
    drawn = axes.barh(
      y, share, 0.28, start, color=colours.LABEL_COLOURS[label], ec=BACKGROUND
    )
    texts = [_bar_text(label, one, width * one) for one in share]
    axes.bar_label(
      drawn, texts, label_type='center', color=BACKGROUND, size=8.6
    )
    for bar, one in zip(drawn, share, strict=True):
      set_hover(bar, f'{label} {one:.1%}')
    start += share
  return axes.figure


def _bar_text(label: str, share: float, width: float) -> str:
  """As much text as fits a bar of this width in points."""
  if width >= 58:
    return f'{label} {share:.0%}'
  return f'{share:.0%}' if width >= 24 else ''
