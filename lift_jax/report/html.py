"""HTML from Python calls; what is not made here is text, and escaped.

`tag('p', 'a < b', class_='note')` is `<p class="note">a &lt; b</p>`. Only what
`tag` and `join` return is taken for HTML. So a caption, a file name or an
answer of a model cannot become part of a page's structure, whatever it holds.
"""

from collections.abc import Iterable
import html
import os
import pathlib
import re
import uuid

from lift_jax.report.style import STYLE

# What HTML has no use for: controls but tab and line breaks, and surrogates.
_UNFIT = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]')

# Elements without content (HTML Living Standard, section 13.1.2).
_VOID = frozenset(('br', 'col', 'hr', 'img', 'meta'))

# Nothing is loaded from anywhere and no script runs, whatever the page holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Html(str):
  """Text that is HTML already."""

  __slots__ = ()


Child = Html | str | int | float | None


def text(value: str | int | float) -> Html:
  """The value as text: no part of it is taken for HTML."""
  return Html(html.escape(_UNFIT.sub('\ufffd', str(value))))


def join(children: Iterable[Child]) -> Html:
  """One after the other; None is nothing."""
  return Html(
    ''.join(
      child if isinstance(child, Html) else text(child)
      for child in children
      if child is not None
    )
  )


def tag(name: str, /, *children: Child, **attributes: Child) -> Html:
  """An element.

  Args:
    name: such as 'p'.
    *children: its content, see `join`.
    **attributes: `class_` is `class`, and underscores are hyphens; None leaves
      an attribute out.
  """
  written = ''.join(
    f' {key.strip("_").replace("_", "-")}="{text(value)}"'
    for key, value in attributes.items()
    if value is not None
  )
  if name in _VOID:
    return Html(f'<{name}{written}>')
  return Html(f'<{name}{written}>{join(children)}</{name}>')


def table(
  head: Iterable[Child], rows: Iterable[Iterable[Child]], **attributes: Child
) -> Html:
  """A table whose first column names the rows."""
  body = []
  for first, *rest in rows:
    cells = [tag('th', first, scope='row')]
    cells += [tag('td', cell) for cell in rest]
    body.append(tag('tr', *cells))
  top = tag('tr', *(tag('th', cell, scope='col') for cell in head))
  return tag('table', tag('thead', top), tag('tbody', *body), **attributes)


def page(title: str, *children: Child) -> str:
  """A whole page that needs no other file."""
  head = tag(
    'head',
    tag('meta', charset='utf-8'),
    tag('meta', http_equiv='Content-Security-Policy', content=_POLICY),
    tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
    tag('title', title),
    tag('style', Html(STYLE)),
  )
  body = tag('body', tag('main', *children))
  return f'<!DOCTYPE html>\n{tag("html", head, body, lang="en")}\n'


def write(path: pathlib.Path, content: str) -> None:
  """Writes beside, then renames: the page exists whole or not at all."""
  partial = path.with_name(f'.{uuid.uuid4().hex}.partial')
  try:
    partial.write_text(content, encoding='utf-8')
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)
