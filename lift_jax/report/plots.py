"""The plots of reports.

Those of the page about a demo are as wide as a phone, so that their text keeps
its size there. No difference is told by colour alone.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
import numpy as np

from lift_jax.data.hra import LABELS
from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import colours
from lift_jax.report.colours import BACKGROUND, BLUE, INK, MUTED, VERMILION
from lift_jax.report.formatting import short
from lift_jax.report.svg import SMALL, new_axes, set_hover, styled

# No blue between the two of the middle suits either colour of text.
_SHADES = LinearSegmentedColormap.from_list(
  'shares', [(0, BACKGROUND), (0.5, '#a5cee4'), (0.5, BLUE), (1, '#004a75')]
)

# What tells the two apart; each is seen without its colour, too.
_BEFORE = {
  'facecolor': to_rgba(VERMILION, 0.25),
  'edgecolor': VERMILION,
  'linestyle': (0, (3, 1.5)),
  'linewidth': 1.1,
}
_AFTER = {'facecolor': BLUE, 'edgecolor': BLUE, 'linewidth': 1.1}

# A curve of more points than this is drawn pale, under a smooth one, which is
# the mean over so many of a series' points.
SMOOTH_FROM = 60
_WINDOWS = 15


@styled
def confusion_matrix(
  counts: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str]
) -> Figure:
  """Counts, shaded by their share of the row, which is written too.

  Args:
    counts: one list a row.
    rows: labels of the annotators.
    columns: labels of the critic.
  """
  counts_rc = np.array(counts)
  shares_rc = counts_rc / np.maximum(1, counts_rc.sum(axis=1, keepdims=True))
  axes = new_axes((32 * len(columns), 32 * len(rows)), (26, 1, 1, 50))
  axes.pcolormesh(shares_rc, cmap=_SHADES, vmin=0, vmax=1, ec=colours.LINE)
  axes.invert_yaxis()
  axes.xaxis.tick_top()
  axes.xaxis.set_label_position('top')
  axes.set(xlabel='the critic said', ylabel='people said')
  axes.set_xticks(np.arange(len(columns)) + 0.5, columns, color=INK)
  axes.set_yticks(np.arange(len(rows)) + 0.5, rows, color=INK)
  for (row, column), share in np.ndenumerate(shares_rc):
    text = {'ha': 'center', 'color': BACKGROUND if share > 0.5 else INK}
    weight = 'bold' if rows[row] == columns[column] else 'normal'
    x, y, count = column + 0.5, row + 0.5, counts_rc[row, column]
    axes.text(x, y, f'{share:.0%}', va='bottom', weight=weight, **text)
    axes.text(x, y + 0.06, f'{count:,}', va='top', size=SMALL, **text)
  return axes.figure


@styled
def reliability_diagram(
  bins: Sequence[Mapping[str, float]], name: str, colour: str
) -> Figure:
  """Accuracy over confidence, one dot a bin, and how many ratings each holds.

  Args:
    bins: dicts of `evaluation.calibration.Bin`.
    name: written above.
    colour: of dots and bars.
  """
  axes = new_axes((124, 124), (16, 13, 60, 43), xlim=(0, 1), ylim=(0, 1))
  histogram = axes.inset_axes((0, -0.25, 1, 0.2), sharex=axes)
  axes.set_title(name)
  axes.set_ylabel('right')
  axes.tick_params(labelbottom=False)
  histogram.set(xlabel='confidence', yticks=[])
  histogram.spines['bottom'].set_visible(True)
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_ticks(np.linspace(0, 1, 5))
    axis.set_major_formatter(PercentFormatter(1))
  axes.grid()
  histogram.grid()
  axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
  total = sum(bin_['count'] for bin_ in bins)
  for bin_ in bins:
    if not bin_['count']:
      continue
    x, y, count = bin_['confidence'], bin_['accuracy'], bin_['count']
    ends = (bin_['accuracy_low'], bin_['accuracy_high'])
    axes.plot((x, x), ends, color=colour, linewidth=1.2)
    size = 4 + 6.8 * math.sqrt(count / total)
    (dot,) = axes.plot(x, y, 'o', c=colour, ms=size, mew=0)
    told = f'{count:,} ratings of confidence {bin_["low"]:.0%} to '
    told += f'{bin_["high"]:.0%}: mean {x:.0%}, {y:.0%} right'
    set_hover(dot, told)
    width = bin_['high'] - bin_['low']
    look = {'color': colour, 'alpha': 0.6, 'edgecolor': BACKGROUND}
    histogram.bar(bin_['low'], count, width, align='edge', **look)
  return axes.figure


@styled
def intervals(
  measured: Mapping[str, tuple[Estimate, float | None]], reference_name: str
) -> Figure:
  """Shares as dots with their intervals, each beside its reference.

  Args:
    measured: from top to bottom, by name, a share and its reference.
    reference_name: what the references are, for the legend.
  """
  axes = new_axes((390, 26 * len(measured)), (26, 54, 18, 84), xlim=(0, 1))
  _set_rows(axes, list(measured))
  axes.xaxis.set_major_formatter(PercentFormatter(1))
  axes.grid(axis='x')
  estimates, references = zip(*measured.values(), strict=True)
  values, y = [estimate.value for estimate in estimates], range(len(measured))
  axes.plot(values, y, 'o', c=BLUE, ms=8, label='the critic', zorder=3)
  look = {'c': VERMILION, 'ms': 15, 'mew': 2}
  axes.plot(references, y, '|', label=reference_name, **look)
  _draw_intervals(axes, estimates, y, color=BLUE, linewidth=2.3)
  for index, value in enumerate(values):
    axes.text(1.025, index, f'{value:.1%}', va='center_baseline', weight='bold')
  axes.legend(loc='lower left', bbox_to_anchor=(0, 1.03), ncols=2)
  return axes.figure


def _set_rows(axes: Axes, names: Sequence[str]) -> None:
  """Rows with names, from top to bottom; their middles are 0, 1, ..."""
  axes.set_ylim(len(names) - 0.5, -0.5)
  axes.set_yticks(range(len(names)), names, color=INK, size=9.4)


def _draw_intervals(
  axes: Axes, estimates: Sequence[Estimate], y: Sequence[float], **look
) -> None:
  for estimate, height in zip(estimates, y, strict=True):
    if estimate.low is not None and estimate.high is not None:
      ends = (estimate.low, estimate.high)
      axes.plot(ends, (height, height), **look)


@styled
def bars(
  values: Mapping[str, float],
  write: Callable[[float], str],
  *,
  size: tuple[float, float],
  left: float,
  marked: str | None = None,
) -> Figure:
  """A bar for each value, from top to bottom.

  Args:
    values: by name.
    write: a value as text.
    size: of the longest bar, and of a row.
    left: width of the names.
    marked: the name of a bar that is full where the others are pale.
  """
  axes = new_axes((size[0], size[1] * len(values)), (0, 56, 0, left))
  _set_rows(axes, list(values))
  axes.set(xlim=(0, max(values.values()) or 1), xticks=[])
  for index, (name, value) in enumerate(values.items()):
    alpha = 1 if marked in (None, name) else 0.4
    axes.barh(index, value, 0.58, fc=BLUE, ec=BLUE, lw=0.8, alpha=alpha)
    axes.annotate(
      write(value), (value, index), (4, 0), textcoords='offset points',
      va='center_baseline', color=MUTED, size=SMALL,
    )  # fmt: skip
    if name == marked:
      axes.get_yticklabels()[index].set_weight('bold')
  return axes.figure


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
  """One polygon for each of the two, their corners further out for more.

  Changes that lack a value are left out; with fewer than three nothing is
  drawn.

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
  for side, look, alpha in (('before', _BEFORE, 0.12), ('after', _AFTER, 0.18)):
    values = [getattr(change, side).value for change in known]
    colour = look['edgecolor']
    pale = {'facecolor': to_rgba(colour, alpha), 'linewidth': 1.8}
    axes.fill(angles, values, **look | pale)
    inside = BACKGROUND if side == 'before' else colour
    for change, angle, value in zip(known, angles, values, strict=True):
      (dot,) = axes.plot(angle, value, 'o', c=colour, mfc=inside, ms=5.2)
      set_hover(dot, f'{change.name} {side}: {value:.3f}')
  axes.set_ylim(0, 1)
  _add_legend(axes)
  return axes.figure


def axis_limit(changes: Sequence[Change]) -> float:
  """The end of an axis that holds all of the numbers and intervals."""
  estimates = [e for c in changes for e in (c.before, c.after)]
  numbers = [n for e in estimates for n in (e.value, e.high) if n is not None]
  limits = (0.05, 0.1, 0.2, 0.5, 1.0)
  return next((n for n in limits if max(numbers, default=1) <= n), 1.0)


@styled
def change_bars(changes: Sequence[Change], limit: float) -> Figure:
  """Two bars a row, each with its interval where there is one.

  Args:
    changes: shares, from top to bottom.
    limit: the end of the axis, not below any of the numbers.
  """
  axes = new_axes((140, 28.5 * len(changes)), (19, 40, 16, 66), xlim=(0, limit))
  _set_rows(axes, [change.name for change in changes])
  axes.set_xticks((0, limit / 2, limit))
  axes.xaxis.set_major_formatter(PercentFormatter(1))
  axes.grid(axis='x')
  for side, look, offset in (('before', _BEFORE, -0.2), ('after', _AFTER, 0.2)):
    estimates = [getattr(change, side) for change in changes]
    y = [index + offset for index in range(len(changes))]
    for estimate, height in zip(estimates, y, strict=True):
      told = '-'
      if estimate.value is not None:
        told = f'{estimate.value:.1%}'
        axes.barh(height, estimate.value, 0.32, **look)
      axes.text(1.03 * limit, height, told, va='center_baseline', size=SMALL)
    caps = {'color': INK, 'linewidth': 1.1, 'marker': '|', 'markersize': 5}
    _draw_intervals(axes, estimates, y, **caps)
  _add_legend(axes)
  return axes.figure


@styled
def label_shares(
  before: Mapping[str, Mapping[str, float]],
  after: Mapping[str, Mapping[str, float]],
) -> Figure:
  """For each dimension two bars of Good, Normal and Bad, one over the other.

  Args:
    before: by dimension, the share of each label.
    after: likewise.
  """
  # A row is a dimension's name and two bars.
  width, row = 207, 51
  axes = new_axes((width, row * len(before)), (0, 1, 0, 38), xlim=(0, 1))
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
    texts = [_fitting(label, one, width * one) for one in share]
    axes.bar_label(
      drawn, texts, label_type='center', color=BACKGROUND, size=8.6
    )
    for bar, one in zip(drawn, share, strict=True):
      set_hover(bar, f'{label} {one:.1%}')
    start += share
  return axes.figure


def _fitting(label: str, share: float, room: float) -> str:
  """As much text as there is room for."""
  if room >= 58:
    return f'{label} {share:.0%}'
  return f'{share:.0%}' if room >= 24 else ''


@styled
def curve(name: str, points: Sequence[tuple[float, float]]) -> Figure:
  """A number over the steps of a training run.

  Args:
    name: of the number, written above.
    points: steps and values; those that are not finite are counted, not drawn.
  """
  axes = new_axes((186, 88), (16, 18, 28, 42))
  axes.set_title(name)
  axes.set_xlabel('step', loc='left')
  axes.spines['bottom'].set_visible(True)
  axes.grid(axis='y')
  axes.margins(x=0)
  for axis, is_integer in ((axes.xaxis, True), (axes.yaxis, False)):
    axis.set_major_locator(
      MaxNLocator(4, steps=(1, 2, 5, 10), integer=is_integer)
    )
    axis.set_major_formatter(lambda value, _: short(value))
  finite = finite_points(points)
  notes = [] if points else ['no points']
  if missing := len(points) - len(finite):
    notes.append(f'{missing:,} not finite')
  if finite:
    notes.append(f'{short(finite[-1][1])} at the end')
    _draw_curve(axes, *np.array(finite, float).T)
  else:
    axes.set(xticks=[], yticks=[])
  axes.annotate(
    ', '.join(notes), (1, 0), (0, -16), 'axes fraction', 'offset points',
    ha='right', va='top', color=MUTED, size=SMALL,
  )  # fmt: skip
  return axes.figure


def finite_points(
  points: Sequence[tuple[float, float]],
) -> list[tuple[float, float]]:
  return [(step, value) for step, value in points if math.isfinite(value)]


def _draw_curve(axes: Axes, step_n: np.ndarray, value_n: np.ndarray) -> None:
  if len(step_n) == 1:
    axes.plot(step_n, value_n, 'o', color=BLUE)
  elif len(step_n) <= SMOOTH_FROM:
    axes.plot(step_n, value_n, color=BLUE, linewidth=1.4)
  else:
    smooth_n = smooth(value_n, len(step_n) // _WINDOWS)
    axes.plot(step_n, value_n, color=BLUE, linewidth=0.8, alpha=0.35)
    axes.plot(step_n, smooth_n, color=BLUE, linewidth=1.7)


def smooth(value_n: np.ndarray, window: int) -> np.ndarray:
  """The mean of the values around each, [N]; at the ends, of those there are.

  Args:
    value_n: [N].
    window: how many, rounded up to an odd number.
  """
  ones_k = np.ones(2 * (window // 2) + 1)
  sum_n = np.convolve(value_n, ones_k, 'same')
  return sum_n / np.convolve(np.ones_like(value_n), ones_k, 'same')
