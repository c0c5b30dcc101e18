"""Figures as inline SVG: text stays text, and ids are unique in a page."""

import os
import re
import subprocess
import sys
from xml.etree import ElementTree

from absl.testing import parameterized

from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import plots
from lift_jax.report.svg import Plot, new_axes, set_hover, styled, to_svg

EVIL = '</title><script>alert(1)</script> $x_1$ "\'&'

# Draws, and says which of the modules it was told are imported.
_DRAW = """
from lift_jax.report import plots, svg
figure = plots.bars({'a': 1.0}, str, size=(10, 10), left=10)
print(svg.to_svg(svg.Plot(figure, 't'), 's').count('<text'))
"""


@styled
def evil_figure():
  axes = new_axes((100, 100), (20, 20, 20, 20))
  axes.set_title(EVIL)
  (dot,) = axes.plot(0, 0, 'o', label=EVIL)
  set_hover(dot, EVIL)
  return axes.figure


class SvgTest(parameterized.TestCase):
  def test_text(self):
    root = ElementTree.fromstring(to_svg(Plot(evil_figure(), EVIL), 's'))
    self.assertEqual(root.get('role'), 'img')
    self.assertEqual((root[0].tag, root[0].text), ('title', EVIL))
    titles = [title.text for title in root.iter('title')]
    self.assertEqual(titles, [EVIL, EVIL])
    self.assertIn(EVIL, [text.text for text in root.iter('text')])
    # The page's font.
    for text in root.iter('text'):
      self.assertNotIn('family', text.get('style'))
      self.assertIn('font-size', text.get('style'))

  def test_size(self):
    """Sizes are in points, and scale with the page."""
    root = ElementTree.fromstring(to_svg(Plot(evil_figure(), 't'), 's'))
    self.assertEqual(
      [root.get(key) for key in ('width', 'height', 'viewBox')],
      ['140pt', '140pt', '0 0 140 140'],
    )

  def test_same_again(self):
    first, second = (to_svg(Plot(evil_figure(), 't'), 's') for _ in range(2))
    self.assertEqual(first, second)

  def test_ids(self):
    """All references resolve, to ids of this figure only."""
    figure = plots.intervals({'x': (Estimate(0.5, 0.4, 0.6), 0.2)}, 'r')
    ids = []
    for salt in ('1', '2'):
      svg = to_svg(Plot(figure, 't'), salt)
      ids.append(re.findall(' id="(.*?)"', svg))
      referred = re.findall('href="#(.*?)"', svg)
      self.assertNotEmpty(referred)
      self.assertEqual(set(referred), set(ids[-1]))
    self.assertLen(set(ids[0] + ids[1]), 2 * len(ids[0]))

  def test_nothing_for_the_whole_page(self):
    svg = to_svg(Plot(evil_figure(), 't'), 's')
    for forbidden in ('<style', 'http', 'matplotlib', '<!--', 'xmlns', 'url('):
      self.assertNotIn(forbidden, svg)


class ProcessTest(parameterized.TestCase):
  def test_home_cannot_be_written(self):
    environment = {
      name: value
      for name, value in os.environ.items()
      if name not in ('MPLCONFIGDIR', 'XDG_CACHE_HOME', 'XDG_CONFIG_HOME')
    }
    process = subprocess.run(
      [sys.executable, '-c', _DRAW], env=environment | {'HOME': '/dev/null'},
      capture_output=True, text=True, check=False,
    )  # fmt: skip
    self.assertEqual((process.stdout, process.stderr), ('2\n', ''))

  def test_other_jobs_do_without(self):
    """Importing Matplotlib takes long, and few jobs need it."""
    code = (
      'import sys; import lift_jax.cli.main; '
      'from lift_jax.jobs import align, sample, score; '
      'print({"jinja2", "matplotlib"} & set(sys.modules))'
    )
    process = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=False
    )
    self.assertEqual((process.stdout, process.stderr), ('set()\n', ''))
