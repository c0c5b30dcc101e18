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
  DemoContent,
  ShownClip,
  ShownPrompt,
)
from lift_jax.runtime.files import write_text
from tests import browser
from tests.report.demo_results import (
  EVIL,
  change,
  comparison,
  content,
  estimate,
  results,
  small_page,
)


class HeadlineTest(parameterized.TestCase):
  def headline(self, before, after, half):
    changed = results()
    changed['comparison']['rates']['all'] = change(before, after, half)
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
    changed['comparison']['bootstrap']['coverage'] = 0.8
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
    changed['comparison']['rates']['all']['difference'] = {
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

  @parameterized.parameters('before', 'after', 'difference')
  def test_unknown(self, name):
    changed = results()
    changed['comparison']['rates']['all'][name] = None
    title, _ = demo_page.headline(changed)
    self.assertStartsWith(title, 'No result')

  def test_unknown_base(self):
    changed = results()
    changed['from_base']['rates']['all']['before'] = None
    title, _ = demo_page.headline(changed)
    self.assertStartsWith(title, 'No result')


class FindingsTest(parameterized.TestCase):
  def test_dimensions(self):
    (line,) = demo_page.findings(comparison())
    self.assertEqual(
      line,
      'Feedback against plain fine-tuning, by the share of Good: better in '
      'semantic (+14.1 points) and motion (+22.1 points); no significant '
      'change in fidelity (+0.6 points).',
    )

  def test_all_alike(self):
    changed = comparison()
    changed['rates'] |= dict.fromkeys(
      ('semantic', 'motion', 'fidelity'), change(0.4, 0.6)
    )
    (line,) = demo_page.findings(changed)
    self.assertEqual(
      line,
      'Feedback against plain fine-tuning, by the share of Good: better in '
      'semantic (+20.0 points), motion (+20.0 points) and fidelity (+20.0 '
      'points).',
    )

  def test_warnings(self):
    """A gain is doubtful if more clips are static."""
    changed = comparison()
    changed['rates']['fidelity'] = change(0.6, 0.4)
    changed['static_share'] = change(0.04, 0.3)
    changed['speed'] = change(0.05, 0.02, 0.01)
    dimensions, still, speed = demo_page.findings(changed)
    self.assertIn('; worse in fidelity (−20.0 points).', dimensions)
    self.assertStartsWith(
      still, 'Warning: more clips are static (+26.0 points)'
    )
    self.assertStartsWith(speed, 'Shapes move less from frame to frame')


class PageTest(parameterized.TestCase):
  def test_table(self):
    page = demo_page.demo_page(content())
    rows = {
      row[0]: row[1:] for row in map(_cells, re.findall('<tr>(.*?)</tr>', page))
    }
    for name, cells in {
      'motion: Good, %': [
        '40.4 [35.4, 45.4]', '48.1 [43.1, 53.1]', '70.2 [65.2, 75.2]',
        '+22.1 [+17.1, +27.1]',
      ],
      'all three: Good, %': [
        '9.9 [4.9, 14.9]', '21.3 [16.3, 26.3]', '37.1 [32.1, 42.1]',
        '+15.8 [+10.8, +20.8]',
      ],
      'mean reward': [
        '0.459 [0.439, 0.479]', '0.507 [0.487, 0.527]', '0.634 [0.614, 0.654]',
        '+0.127 [+0.107, +0.147]',
      ],
      'step, % of image side': [
        '5.1 [4.7, 5.5]', '5.1 [4.7, 5.5]', '4.8 [4.4, 5.2]',
        '−0.3 [−0.7, +0.1]',
      ],
      'static, %': [
        '4.3 [2.3, 6.3]', '4.3 [2.3, 6.3]', '4.4 [2.4, 6.4]',
        '+0.1 [−1.9, +2.1]',
      ],
      'fidelity': ['91.2 [88.2, 94.2]', '87.2 [83.2, 91.2]', '4.3 [2.3, 6.3]'],
    }.items():  # fmt: skip
      self.assertEqual(rows[name], cells)

  def test_undefined(self):
    """Unknown numbers are shown as a dash, in tables and plots."""
    unknown = results()
    unknown['peak_memory_gib'] = None
    unknown['critic']['motion']['ece'] = None
    nothing = dict.fromkeys(('before', 'after', 'difference'))
    for name in ('comparison', 'from_base'):
      compared = unknown[name]
      compared['rates']['motion'] = nothing
      compared['speed'] = {
        name: estimate(None) for name in ('before', 'after', 'difference')
      }
    page = demo_page.demo_page(content(results=unknown))
    rows = [_cells(row) for row in re.findall('<tr>(.*?)</tr>', page)]
    self.assertIn(['motion: Good, %', '-', '-', '-', '-'], rows)
    self.assertIn(['step, % of image side', '-', '-', '-', '-'], rows)
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
    for compared in (empty['comparison'], empty['from_base']):
      for number in (compared, compared['rates']):
        for name, value in number.items():
          if isinstance(value, dict) and 'difference' in value:
            number[name] = dict.fromkeys(value)
      compared['flaws'] = {'before': {}, 'after': {}}
    empty |= {'counts': {}, 'seconds': {}}
    page = demo_page.demo_page(
      content(results=empty, prompts=[], curves={}, configs={})
    )
    self.assertIn('No clips were saved.', page)
    self.assertIn('No metrics were saved.', page)
    self.assertNotIn('None', page)

  def test_flaws(self):
    """The most frequent first, without those that were not found."""
    some = results()
    some['comparison']['flaws'] = {
      'before': {'jitter': 0.1, 'hole': 0.0, 'blur': 0.0},
      'after': {'jitter': 0.2, 'hole': 0.0, 'blur': 0.3},
    }
    some['from_base']['flaws'] = {'before': {'jitter': 0.05}, 'after': {}}
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
    evil['comparison']['flaws']['before'] = {EVIL: 0.1}
    page = demo_page.demo_page(
      DemoContent(
        evil, [ShownPrompt(EVIL, {EVIL: clip})], {EVIL: {EVIL: [(0, 1.0)]}},
        {EVIL: {EVIL: EVIL}},
      )
    )  # fmt: skip
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
