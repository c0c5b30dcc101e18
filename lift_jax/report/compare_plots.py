"""Plots that compare video models."""

from collections.abc import Mapping, Sequence
import itertools

from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
import numpy as np

from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import colours
from lift_jax.report.colours import BLUE, INK, MUTED, VERMILION
from lift_jax.report.plots import draw_intervals, set_categories
from lift_jax.report.svg import SMALL, new_axes, set_hover, styled

# Of models; the lines tell them apart without colour.
_COLOURS = (VERMILION, BLUE, '#00614a', MUTED)
_LINES = ((0, (3, 1.5)), 'solid', (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))


@styled
def model_radar(
  names: Sequence[str], models: Mapping[str, Sequence[float]]
) -> Figure:
  """A radar chart with a polygon for each model; from 0 to 1.

  Args:
    names: of the axes, at least three, clockwise from the top.
    models: values in the order of the names, by model.
  """
  axes = new_axes((220, 220), (56, 110, 24, 110), projection='polar')
  axes.set_theta_zero_location('N')
  axes.set_theta_direction(-1)
  axes.spines['polar'].set_color(colours.LINE)
  angles = 2 * np.pi * np.arange(len(names)) / len(names)
  axes.set_xticks(angles, names, color=INK)
  axes.tick_params(axis='x', labelsize=SMALL, pad=1)
  for label, side in zip(axes.get_xticklabels(), np.sin(angles), strict=True):
    is_centred = abs(side) < 1e-9
    label.set_ha('center' if is_centred else 'left' if side > 0 else 'right')
  axes.set_rgrids((0.25, 0.5, 0.75, 1), ('', '0.5', '', '1'))
  axes.set_rlabel_position(-180 / len(names))
  handles = []
  styles = itertools.cycle(zip(_COLOURS, _LINES, strict=True))
  for (model, values), (colour, line) in zip(
    models.items(), styles, strict=False
  ):
    style = {
      'facecolor': to_rgba(colour, 0.1), 'edgecolor': colour,
      'linestyle': line, 'linewidth': 1.8,
    }  # fmt: skip
    axes.fill(angles, values, **style)
    handles.append(Patch(**style))
    for name, angle, value in zip(names, angles, values, strict=True):
      (dot,) = axes.plot(angle, value, 'o', c=colour, ms=4)
      set_hover(dot, f'{name}, {model}: {value:.3f}')
  axes.set_ylim(0, 1)
  axes.figure.legend(handles, list(models), loc='upper center', ncols=2)
  return axes.figure


@styled
def difference_intervals(
  differences: Mapping[str, tuple[Estimate, bool]], unit: str
) -> Figure:
  """Differences as dots with their intervals, on both sides of zero.

  Args:
    differences: from top to bottom, by name, a difference that is defined and
      whether it is significant; those that are not are hollow.
    unit: of the axis.
  """
  axes = new_axes((330, 20 * len(differences)), (8, 16, 34, 210))
  set_categories(axes, list(differences))
  axes.set_xlabel(unit)
  axes.grid(axis='x')
  axes.axvline(0, color=MUTED, linewidth=0.9)
  for height, (name, (estimate, is_marked)) in enumerate(differences.items()):
    draw_intervals(axes, [estimate], [height], color=BLUE, linewidth=2)
    inside = BLUE if is_marked else colours.BACKGROUND
    (dot,) = axes.plot(estimate.value, height, 'o', c=BLUE, mfc=inside, ms=6.5)
    set_hover(dot, f'{name}: {estimate.value:+.2f}')
  return axes.figure
