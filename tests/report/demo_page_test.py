"""The demo's page: numbers, findings, and rendering in a browser."""

import base64
import copy
import dataclasses
import io
import re

from absl.testing import parameterized
import numpy as np
from PIL import Image
import pytest

from lift_jax.data.hra import DIMENSIONS
from lift_jax.report import demo_page
from lift_jax.report.colours import BLUE, LABEL_COLOURS
from lift_jax.report.demo_page import (
  MODELS,
  ShownClip,
  ShownPrompt,
)
from lift_jax.runtime.files import write_text
from tests import browser
from tests.report.demo_results import (
  EVIL,
  compared,
  content,
  estimate,
  results,
  small_page,
)


class HeadlineTest(parameterized.TestCase):
  def headline(self, before, after, half):
    changed = results()
    changed['comparisons'][0] = compared(
      'plain', 'feedback', before, after, half
    )
    return demo_page.headline(changed)

  def test_rise(self):
    title, text = self.headline(0.213, 0.371, 0.05)
    self.assertEqual(
      title,
      'Feedback beats plain fine-tuning: 37.1% of clips are Good in all three '
      'dimensions, against 21.3%',
    )
    self.assertStartsWith(
      text,
      'The difference is +15.8 points (95% interval: +10.8 to +20.8). Before '
      'fine-tuning it was 9.9%. ',
    )
    self.assertIn('Measured on 364 clips of 182 prompts', text)

  def test_fall(self):
    title, text = self.headline(0.371, 0.213, 0.05)
    self.assertEqual(
      title,
      'Feedback is worse than plain fine-tuning: 21.3% of clips are Good in '
      'all three dimensions, against 37.1%',
    )
    self.assertIn('is −15.8 points (95% interval: −20.8 to −10.8).', text)
    self.assertNotIn('chance', text)

  def test_coverage(self):
    changed = results()
    for one in changed['comparisons']:
      one['coverage'] = 0.8
    self.assertIn('(80% interval: ', demo_page.headline(changed)[1])
    page = demo_page.demo_page(content(0, results=changed))
    self.assertNotIn('95%', page)

  @parameterized.parameters((0.3, 0.34), (0.34, 0.3))
  def test_unclear(self, before, after):
    title, text = self.headline(before, after, 0.06)
    self.assertStartsWith(
      title,
      'No significant difference between feedback and plain fine-tuning: '
      f'{after:.1%} of clips are ',
    )
    self.assertEndsWith(title, f' dimensions, against {before:.1%}')
    self.assertIn('The interval includes zero: it may be due to', text)

  def test_interval_that_ends_at_zero(self):
    changed = results()
    changed['comparisons'][0]['rows'][0]['difference'] = {
      'value': 0.1, 'low': 0.0, 'high': 0.2
    }  # fmt: skip
    self.assertStartsWith(
      demo_page.headline(changed)[0], 'No significant difference'
    )

  def test_no_interval(self):
    title, text = self.headline(0.2, 0.4, None)
    self.assertStartsWith(title, 'No significant difference')
    self.assertIn(
      '+20.0 points; without an interval, it may be due to chance.', text
    )

  @parameterized.product(name=('base', 'other', 'difference'), number=(0, 1))
  def test_unknown(self, name, number):
    """Of any of the models; only the difference to base is not needed."""
    changed = results()
    row = changed['comparisons'][number]['rows'][0]
    row[name] = estimate(None)
    title, _ = demo_page.headline(changed)
    is_needed = (name, number) not in (('other', 1), ('difference', 1))
    self.assertEqual(title.startswith('No result'), is_needed)

  def test_no_base(self):
    changed = results()
    changed['comparisons'][1]['rows'][0]['base'] = estimate(None)
    title, _ = demo_page.headline(changed)
    self.assertStartsWith(title, 'No result')


class PageTest(parameterized.TestCase):
  def test_tables(self):
    page = demo_page.demo_page(content())
    rows = [_cells(row) for row in re.findall('<tr>(.*?)</tr>', page)]
    self.assertIn(
      ['all three Good, %', '21.3 [16.3, 26.3]', '37.1 [32.1, 42.1]',
       '+15.8 [+10.8, +20.8]', '▲ better', '4.0', '-', '-', '364'],
      rows,
    )  # fmt: skip
    self.assertIn(
      ['fidelity', '91.2 [88.2, 94.2]', '87.2 [83.2, 91.2]', '4.3 [2.3, 6.3]'],
      rows,
    )
    headings = re.findall('<h2>(.*?)</h2>', page)
    self.assertEqual(
      headings[:2], ['feedback against plain', 'feedback against base']
    )

  def test_undefined(self):
    """Unknown numbers are shown as a dash, in tables and plots."""
    unknown = results()
    unknown['peak_memory_gib'] = None
    unknown['critic']['motion']['ece'] = None
    page = demo_page.demo_page(content(results=unknown))
    rows = [_cells(row) for row in re.findall('<tr>(.*?)</tr>', page)]
    self.assertIn(
      ['motion', '80.3 [77.3, 83.3]', '76.3 [72.3, 80.3]', '-'], rows
    )
    self.assertIn('peak memory -.', page)
    # Base64 of images may spell anything.
    page = re.sub('base64,[^"]*', '', page)
    self.assertNotIn('None', page)
    self.assertNotIn('nan', page)

  def test_nothing_at_all(self):
    empty = results()
    empty |= {
      'counts': {}, 'seconds': {}, 'flaws': dict.fromkeys(MODELS, {})
    }  # fmt: skip
    page = demo_page.demo_page(
      content(results=empty, prompts=[], curves={}, configs={})
    )
    self.assertIn('No clips were saved.', page)
    self.assertIn('No metrics were saved.', page)
    self.assertNotIn('None', page)

  def test_flaws(self):
    """The most frequent first, without those that were not found."""
    some = results()
    some['flaws'] = {
      'base': {'jitter': 0.05},
      'plain': {'jitter': 0.1, 'hole': 0.0, 'blur': 0.0},
      'feedback': {'jitter': 0.2, 'hole': 0.0, 'blur': 0.3},
    }
    page = demo_page.demo_page(content(0, results=some))
    self.assertIn(
      '<title>blur: base 0.000, plain 0.000, feedback 0.300</title>', page
    )
    self.assertIn(
      '<title>jitter: base 0.050, plain 0.100, feedback 0.200</title>', page
    )
    self.assertLess(page.index('<title>blur'), page.index('<title>jitter'))
    self.assertNotIn('>hole<', page)

  def test_clips(self):
    shown_content = content()
    page = demo_page.demo_page(shown_content)
    files = re.findall('src="data:image/gif;base64,(.*?)"', page)
    self.assertLen(files, 2 * 3)
    clips = [c for p in shown_content.prompts for c in p.clips.values()]
    for data, clip in zip(files, clips, strict=True):
      image = Image.open(io.BytesIO(base64.b64decode(data)))
      self.assertEqual(image.size, (32, 32))
      self.assertEqual(image.info['loop'], 0)
      for name in DIMENSIONS:
        self.assertIn(
          f'<span class="label {clip.labels[name]}">{clip.labels[name]}</span> '
          f'<strong>{name}</strong><div class="muted">'
          f'{clip.rationales[name]}</div>',
          page,
        )
      self.assertIn(f', reward {clip.reward:.2f}<', page)

  def test_data_is_escaped(self):
    frames_thw3 = np.zeros((2, 32, 32, 3), np.uint8)
    clip = ShownClip(frames_thw3, {EVIL: EVIL}, {EVIL: EVIL}, 0.5)
    evil = copy.deepcopy(results())
    evil['versions'] = evil['counts'] = {}
    evil['versions'][EVIL] = 1
    evil['seconds'] = {EVIL: 1.0}
    evil['flaws']['base'] = {EVIL: 0.1}
    page = demo_page.demo_page(
      content(
        results=evil,
        prompts=[ShownPrompt(EVIL, {EVIL: clip})],
        curves={EVIL: {EVIL: [(0, 1.0)]}},
        configs={EVIL: {EVIL: EVIL}},
      )
    )
    self.assertGreaterEqual(page.count('&lt;script&gt;alert(1)'), 18)
    for forbidden in ('<script', '<img src=x', 'onerror=alert(2)>'):
      self.assertNotIn(forbidden, page)

  def test_nothing_is_fetched(self):
    page = demo_page.demo_page(content())
    for forbidden in ('http://', 'https://', 'url(', '@import', '<link'):
      self.assertNotIn(forbidden, page)

  def test_settings(self):
    page = demo_page.demo_page(content())
    self.assertIn('Seed 0; python 3.11.2, jax 0.10.2.', page)
    self.assertIn('<summary>Config of align</summary>', page)
    self.assertIn('&#34;steps&#34;: 200', page)
    self.assertIn('Total time 6 min 10 s; peak memory 2.1 GiB.', page)


class BrowserTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.folder = tmp_path

  def test_browser(self):
    """All is rendered: plots, labels, and clips at six times their size."""
    program = browser.find()
    if program is None:
      pytest.skip('no Chromium here')
    grounds = (12, 200, 34), (230, 0, 250), (250, 240, 20)
    clips = {
      model: dataclasses.replace(
        content(1).prompts[0].clips[model],
        frames_thw3=np.full((9, 32, 32, 3), ground, np.uint8),
      )
      for model, ground in zip(MODELS, grounds, strict=True)
    }
    shown_content = content(prompts=[ShownPrompt('c', clips)])
    path = self.folder / 'report.html'
    write_text(path, demo_page.demo_page(shown_content))
    picture = self.folder / 'page.png'
    process = browser.run(
      program, path, self.folder / 'profile', f'--screenshot={picture}',
      '--window-size=1200,3600', '--hide-scrollbars',
    )  # fmt: skip
    self.assertEqual(process.returncode, 0, process.stderr)
    self.assertNotIn('CONSOLE', process.stderr)
    pixels = np.asarray(Image.open(picture).convert('RGB')).reshape(-1, 3)
    for colour in (BLUE, *LABEL_COLOURS.values()):
      level = tuple(bytes.fromhex(colour[1:]))
      self.assertGreater(np.all(pixels == level, axis=1).sum(), 100, colour)
    for ground in grounds:
      # Except the corners, which are round.
      num_pixels = np.all(pixels == ground, axis=1).sum()
      self.assertBetween(num_pixels, 192**2 - 40, 192**2)

  def test_colours_are_defined(self):
    style = re.search('<style>(.*?)</style>', small_page(), re.DOTALL)[1]
    used = re.findall(r'var\((--\w+)\)', style)
    self.assertNotEmpty(used)
    self.assertContainsSubset(used, re.findall(r'^ *(--\w+):', style, re.M))


def _cells(row):
  cells = re.findall('<t[hd].*?>(.*?)</t[hd]>', row)
  return [re.sub('<.*?>', '', cell) for cell in cells]
