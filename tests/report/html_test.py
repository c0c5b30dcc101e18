"""Rendered pages: escaped text, and no missing variables."""

from html.parser import HTMLParser

from absl.testing import parameterized
import jinja2
import pytest

from lift_jax.report import html
from tests.report import demo_results, evaluation_results

# Elements without content (HTML Living Standard, section 13.1.2).
_VOID = frozenset(('br', 'col', 'hr', 'img', 'meta'))

pytestmark = pytest.mark.fast


class RenderTest(parameterized.TestCase):
  @parameterized.parameters(
    (evaluation_results.small_page,), (demo_results.small_page,)
  )
  def test_page(self, build):
    page = build()
    self.assertStartsWith(page, '<!DOCTYPE html>\n<html lang="en">\n<head>')
    self.assertIn("content=\"default-src 'none'; img-src data:", page)
    parser = _Balance()
    parser.feed(page)
    self.assertEqual(parser.open, [])
    self.assertLen(set(parser.ids), len(parser.ids))
    self.assertNotEmpty(parser.ids)
    self.assertEqual(page, build())

  def test_forbidden_characters(self):
    page = demo_results.small_page(configs={'a\x00b\x1b\ud800\tc\n': {}})
    self.assertIn('Config of a\ufffdb\ufffd\ufffd\tc\n', page)

  def test_undefined(self):
    with self.assertRaisesRegex(jinja2.UndefinedError, "'title' is undefined"):
      html.render('demo.html')


class _Balance(HTMLParser):
  def __init__(self):
    super().__init__()
    self.open = []
    self.ids = []

  def handle_starttag(self, name, attrs):
    self.ids += [value for key, value in attrs if key == 'id']
    if name not in _VOID:
      self.open.append(name)

  def handle_startendtag(self, name, attrs):
    self.ids += [value for key, value in attrs if key == 'id']

  def handle_endtag(self, name):
    assert self.open.pop() == name, name
