"""Plots for reports on critics and training runs."""

from collections.abc import Callable, Mapping, Sequence
import math

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
import numpy as np

from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import colours
from lift_jax.report.colours import BACKGROUND, BLUE, INK, MUTED, VERMILION
from lift_jax.report.formatting import short
from lift_jax.report.svg import SMALL, new_axes, set_hover, styled

# The jump in the middle avoids shades on which neither text colour is legible.
_SHADES = LinearSegmentedColormap.from_list(
  'shares', [(0, BACKGROUND), (0.5, '#a5cee4'), (0.5, BLUE), (1, '#004a75')]
)

# A curve of more points than this is drawn pale, with a moving average on top
# whose window is the number of points divided by `_WINDOWS`.
SMOOTH_FROM = 60
_WINDOWS = 15


@styled
def confusion_matrix(
  counts: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str]
) -> Figure:
  """Counts and their shares of the row, shaded by the share.

  Args:
    counts: one list per row.
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
  axes.set(xlabel='critic', ylabel='annotators')
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
  """Accuracy over confidence, a dot per bin, and a histogram of confidence.

  Args:
    bins: `evaluation.calibration.Bin`s as dicts.
    name: title of the plot.
    colour: of dots and bars.
  """
  axes = new_axes((124, 124), (16, 13, 60, 43), xlim=(0, 1), ylim=(0, 1))
  histogram = axes.inset_axes((0, -0.25, 1, 0.2), sharex=axes)
  axes.set_title(name)
  axes.set_ylabel('accuracy')
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
    text = f'{count:,} ratings of confidence {bin_["low"]:.0%} to '
    text += f'{bin_["high"]:.0%}: mean {x:.0%}, accuracy {y:.0%}'
    set_hover(dot, text)
    width = bin_['high'] - bin_['low']
    style = {'color': colour, 'alpha': 0.6, 'edgecolor': BACKGROUND}
    histogram.bar(bin_['low'], count, width, align='edge', **style)
  return axes.figure


@styled
def intervals(
  measured: Mapping[str, tuple[Estimate, float | None]], reference_name: str
) -> Figure:
  """Shares as dots with their intervals, and a reference value for each.

  Args:
    measured: from top to bottom, by name, a share and its reference.
    reference_name: of the references, for the legend.
  """
  axes = new_axes((390, 26 * len(measured)), (26, 54, 18, 84), xlim=(0, 1))
  set_categories(axes, list(measured))
  axes.xaxis.set_major_formatter(PercentFormatter(1))
  axes.grid(axis='x')
  estimates, references = zip(*measured.values(), strict=True)
  values, y = [estimate.value for estimate in estimates], range(len(measured))
  axes.plot(values, y, 'o', c=BLUE, ms=8, label='critic', zorder=3)
  style = {'c': VERMILION, 'ms': 15, 'mew': 2}
  axes.plot(references, y, '|', label=reference_name, **style)
  draw_intervals(axes, estimates, y, color=BLUE, linewidth=2.3)
  for index, value in enumerate(values):
    axes.text(1.025, index, f'{value:.1%}', va='center_baseline', weight='bold')
  axes.legend(loc='lower left', bbox_to_anchor=(0, 1.03), ncols=2)
  return axes.figure


def set_categories(axes: Axes, names: Sequence[str]) -> None:
  """Makes the y axis categorical, from top to bottom at y = 0, 1, ..."""
  axes.set_ylim(len(names) - 0.5, -0.5)
  axes.set_yticks(range(len(names)), names, color=INK, size=9.4)


def draw_intervals(
  axes: Axes, estimates: Sequence[Estimate], y: Sequence[float], **style
) -> None:
  """Draws the intervals that exist as horizontal lines at heights `y`."""
  for estimate, height in zip(estimates, y, strict=True):
    if estimate.low is not None and estimate.high is not None:
      ends = (estimate.low, estimate.high)
      axes.plot(ends, (height, height), **style)


@styled
def bars(
  values: Mapping[str, float],
  write: Callable[[float], str],
  *,
  size: tuple[float, float],
  left: float,
  marked: str | None = None,
) -> Figure:
  """Horizontal bars, from top to bottom.

  Args:
    values: by name.
    write: formats a value.
    size: length of the longest bar, and height for each bar.
    left: width of the names.
    marked: name of a bar to highlight.
  """
  axes = new_axes((size[0], size[1] * len(values)), (0, 56, 0, left))
  set_categories(axes, list(values))
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


@styled
def curve(name: str, points: Sequence[tuple[float, float]]) -> Figure:
  """A metric over training steps.

  Args:
    name: of the metric, the title of the plot.
    points: steps and values; non-finite values are counted but not drawn.
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
  """The centred moving average, [N], over fewer values near the ends.

  Args:
    value_n: [N].
    window: number of values, rounded up to an odd number.
  """
  ones_k = np.ones(2 * (window // 2) + 1)
  sum_n = np.convolve(value_n, ones_k, 'same')
  return sum_n / np.convolve(np.ones_like(value_n), ones_k, 'same')
