"""Plots that compare models, such as before and after.

The first is pale and dashed, the last solid, those between dotted, so that no
difference is shown by colour alone. All plots are as wide as a phone's screen,
where they keep their size.
"""

from collections.abc import Collection, Mapping, Sequence
import dataclasses
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
import numpy as np

from lift_jax.data.hra import LABELS
from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import colours
from lift_jax.report.colours import BACKGROUND, BLUE, GREEN, INK, VERMILION
from lift_jax.report.plots import draw_intervals, set_categories
from lift_jax.report.svg import SMALL, new_axes, set_hover, styled

_FIRST = {
  'facecolor': to_rgba(VERMILION, 0.25),
  'edgecolor': VERMILION,
  'linestyle': (0, (3, 1.5)),
  'linewidth': 1.1,
}
_BETWEEN = {
  'facecolor': to_rgba(GREEN, 0.25),
  'edgecolor': GREEN,
  'linestyle': ':',
  'linewidth': 1.1,
}
_LAST = {'facecolor': BLUE, 'edgecolor': BLUE, 'linewidth': 1.1}


@dataclasses.dataclass(frozen=True)
class Change:
  """A number of two or more models.

  Attributes:
    name: of the number.
    models: by model, a share from 0 to 1, whose value is None where it is not
      defined.
  """

  name: str
  models: Mapping[str, Estimate]


def _styles(models: Collection[str]) -> dict[str, dict[str, Any]]:
  """The style of each model."""
  styles = [_FIRST, *[_BETWEEN] * (len(models) - 2), _LAST]
  return dict(zip(models, styles, strict=True))


def _add_legend(axes: Axes, styles: Mapping[str, dict[str, Any]]) -> None:
  handles = [Patch(**style) for style in styles.values()]
  axes.figure.legend(
    handles, list(styles), loc='upper center', ncols=len(styles)
  )


def axis_limit(changes: Sequence[Change]) -> float:
  """The upper limit of an axis that fits all values and intervals."""
  estimates = [e for change in changes for e in change.models.values()]
  numbers = [n for e in estimates for n in (e.value, e.high) if n is not None]
  limits = (0.05, 0.1, 0.2, 0.5, 1.0)
  return next((n for n in limits if max(numbers, default=1) <= n), 1.0)


@styled
def change_bars(changes: Sequence[Change], limit: float) -> Figure:
  """Horizontal bars for each model, with intervals if available.

  Args:
    changes: of shares, from top to bottom.
    limit: upper limit of the axis, not below any of the values.
  """
  styles = _styles(changes[0].models)
  height = 14.25 * len(styles) * len(changes)
  axes = new_axes((140, height), (19, 40, 16, 66), xlim=(0, limit))
  set_categories(axes, [change.name for change in changes])
  axes.set_xticks((0, limit / 2, limit))
  axes.xaxis.set_major_formatter(PercentFormatter(1))
  axes.grid(axis='x')
  spacing = 0.8 / len(styles)
  for number, (model, style) in enumerate(styles.items()):
    estimates = [change.models[model] for change in changes]
    offset = (number - (len(styles) - 1) / 2) * spacing
    y = [index + offset for index in range(len(changes))]
    for estimate, height in zip(estimates, y, strict=True):
      text = '-'
      if estimate.value is not None:
        text = f'{estimate.value:.1%}'
        axes.barh(height, estimate.value, 0.8 * spacing, **style)
      axes.text(1.03 * limit, height, text, va='center_baseline', size=SMALL)
    caps = {'color': INK, 'linewidth': 1.1, 'marker': '|', 'markersize': 5}
    draw_intervals(axes, estimates, y, **caps)
  _add_legend(axes, styles)
  return axes.figure


@styled
def label_shares(
  models: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> Figure:
  """Stacked bars of Good, Normal and Bad, one for each dimension and model.

  Args:
    models: by model and dimension, the share of each label.
  """
  dimensions = list(next(iter(models.values())))
  # In points: a dimension's name, and a bar for each model.
  title, bar, spacing = 13.2, 14.3, 16.3
  width, height = 207, title + spacing * len(models) + 5.2
  axes = new_axes((width, height * len(dimensions)), (0, 1, 0, 48), xlim=(0, 1))
  axes.set(xticks=[], ylim=(len(dimensions), 0))
  offsets = (title + spacing * (np.arange(len(models)) + 0.5)) / height
  y = np.add.outer(np.arange(len(dimensions)), offsets).ravel()
  axes.set_yticks(y, list(models) * len(dimensions))
  for index, dimension in enumerate(dimensions):
    axes.text(
      0, index + title / 2 / height, dimension, va='center', weight='bold'
    )
  shares = [model[name] for name in dimensions for model in models.values()]
  start = np.zeros(len(shares))
  for label in LABELS:
    share = np.array([one[label] for one in shares])
    drawn = axes.barh(
      y,
      share,
      bar / height,
      start,
      color=colours.LABEL_COLOURS[label],
      ec=BACKGROUND,
    )
    texts = [_bar_text(label, one, width * one) for one in share]
    axes.bar_label(
      drawn, texts, label_type='center', color=BACKGROUND, size=8.6
    )
    for patch, one in zip(drawn, share, strict=True):
      set_hover(patch, f'{label} {one:.1%}')
    start += share
  return axes.figure


def _bar_text(label: str, share: float, width: float) -> str:
  """As much text as fits a bar of this width in points."""
  if width >= 58:
    return f'{label} {share:.0%}'
  return f'{share:.0%}' if width >= 24 else ''
