"""HTML: that text stays text."""

from html.parser import HTMLParser
import pathlib
import tempfile

from absl.testing import parameterized

from lift_jax.report import html
from lift_jax.report.html import Html, join, tag


class TagTest(parameterized.TestCase):
  @parameterized.parameters(
    (tag('p', 'a < b & c'), '<p>a &lt; b &amp; c</p>'),
    (tag('p', tag('b', '<i>')), '<p><b>&lt;i&gt;</b></p>'),
    (tag('p', 'x', class_='a"b\'c'), '<p class="a&quot;b&#x27;c">x</p>'),
    (
      tag('rect', stroke_width=1.5, fill=None),
      '<rect stroke-width="1.5"></rect>',
    ),
    (tag('img', src='a>b'), '<img src="a&gt;b">'),
    (tag('p', 1, None, 2.5), '<p>12.5</p>'),
    (join(['<', tag('br'), None]), '&lt;<br>'),
    (tag('p', 'a\x00b\x1b\ud800\tc\n'), '<p>a\ufffdb\ufffd\ufffd\tc\n</p>'),
  )
  def test_written(self, written, expected):
    self.assertEqual(written, expected)
    self.assertIsInstance(written, Html)

  def test_text_put_together_is_text(self):
    """Only whole elements are HTML; Python's own joining loses that."""
    glued = tag('b', 'x') + '<script>'
    self.assertNotIn('<script>', tag('p', glued))

  def test_table(self):
    written = html.table(('', 'a'), [('<x>', '1')])
    self.assertEqual(
      written,
      '<table><thead><tr><th scope="col"></th><th scope="col">a</th></tr>'
      '</thead><tbody><tr><th scope="row">&lt;x&gt;</th><td>1</td></tr>'
      '</tbody></table>',
    )


class PageTest(parameterized.TestCase):
  def test_page(self):
    page = html.page('<t>', tag('h1', 'x'))
    self.assertStartsWith(page, '<!DOCTYPE html>\n<html lang="en"><head>')
    self.assertIn('<title>&lt;t&gt;</title>', page)
    self.assertIn('content="default-src &#x27;none&#x27;; img-src data:', page)
    parser = _Balance()
    parser.feed(page)
    self.assertEqual(parser.open, [])

  def test_write(self):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / 'page.html'
      html.write(path, 'é')
      self.assertEqual(path.read_bytes(), 'é'.encode())
      with self.assertRaises(UnicodeEncodeError):
        html.write(path, '\ud800')
      self.assertEqual([p.name for p in path.parent.iterdir()], ['page.html'])


class _Balance(HTMLParser):
  def __init__(self):
    super().__init__()
    self.open = []

  def handle_starttag(self, name, attrs):
    if name not in html._VOID:
      self.open.append(name)

  def handle_endtag(self, name):
    assert self.open.pop() == name, name
