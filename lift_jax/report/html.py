"""Renders the HTML templates of reports."""

import itertools
import re
from typing import Any

import jinja2
from markupsafe import Markup

from lift_jax.report.colours import CSS_COLOURS
from lift_jax.report.svg import Plot, to_svg

# Not allowed in HTML: control characters except tabs and line breaks, and
# surrogates.
_FORBIDDEN = re.compile(
  '[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]'
)  # fmt: skip

# All text is escaped: captions, file names and answers of a model cannot inject
# HTML.
_ENVIRONMENT = jinja2.Environment(
  loader=jinja2.PackageLoader('lift_jax.report'),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)
_ENVIRONMENT.filters['thousands'] = '{:,}'.format


def render(template: str, **content: Any) -> str:
  """A self-contained HTML page.

  Args:
    template: name of a file in `templates/`.
    **content: variables of the template.
  """
  numbers = itertools.count(1)

  def svg(plot: Plot) -> Markup:
    return Markup(to_svg(plot, f'plot {next(numbers)}'))

  page = _ENVIRONMENT.get_template(template).render(
    svg=svg, colours=CSS_COLOURS, **content
  )
  return _FORBIDDEN.sub('\ufffd', page)
