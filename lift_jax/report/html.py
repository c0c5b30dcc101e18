"""Renders the templates of reports."""

import itertools
import re
from typing import Any

import jinja2
from markupsafe import Markup

from lift_jax.report.colours import CSS_COLOURS
from lift_jax.report.svg import Plot, to_svg

# Not allowed in HTML: controls but tabs and line breaks, and surrogates.
_FORBIDDEN = re.compile(
  '[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]'
)  # fmt: skip

# All text is escaped: a caption, a file name or an answer of a model cannot
# become part of a page's structure, whatever it holds.
_ENVIRONMENT = jinja2.Environment(
  loader=jinja2.PackageLoader('lift_jax.report'),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)
_ENVIRONMENT.filters['thousands'] = '{:,}'.format


def render(template: str, **content: Any) -> str:
  """A whole page, which needs no other file.

  Args:
    template: a file's name in `templates/`.
    **content: what the template refers to.
  """
  numbers = itertools.count(1)

  def svg(plot: Plot) -> Markup:
    return Markup(to_svg(plot, f'plot {next(numbers)}'))

  page = _ENVIRONMENT.get_template(template).render(
    svg=svg, colours=CSS_COLOURS, **content
  )
  return _FORBIDDEN.sub('\ufffd', page)
