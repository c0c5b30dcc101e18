"""The critic's page: its content, and that data is escaped."""

import dataclasses
import io
import pathlib
import re

from absl.testing import parameterized
from PIL import Image
import pytest

from lift_jax.errors import UserError
from lift_jax.evaluation import critic_evaluation
from lift_jax.report import critic_page, critic_table
from tests.data import clips
from tests.evaluation.ratings import ratings
from tests.report.evaluation_results import SHOWN, result_of

EVIL = '</p><script>alert(1)</script><img src=x onerror=alert(2)> "\'&'


class PageTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.folder = tmp_path

  def test_data_is_escaped(self):
    rating = critic_evaluation.worst(ratings(0), 1)[0]
    scored = dataclasses.replace(rating.scored, caption=EVIL)
    rating = dataclasses.replace(
      rating, caption=EVIL, video=EVIL, rationales=(EVIL,), scored=scored,
      answer=dataclasses.replace(rating.answer, text=EVIL),
    )  # fmt: skip
    left_out = {
      'rated_not_scored': [[EVIL, EVIL]], 'scored_not_rated': [EVIL],
      'errors': [[EVIL, EVIL]], 'skipped': [[EVIL, EVIL]],
    }  # fmt: skip
    result = result_of(ratings(0, 6), critic=EVIL, left_out=left_out)
    result['settings']['file'] = EVIL
    page = critic_page.critic_page(result, [rating], SHOWN)
    self.assertGreaterEqual(page.count('&lt;script&gt;alert(1)'), 12)
    for forbidden in ('<script', '<img', 'src=x'):
      self.assertNotIn(forbidden, page.replace('&lt;img src=x', ''))

  def test_nothing_is_fetched(self):
    page = critic_page.critic_page(result_of(ratings(0)), [], SHOWN)
    for forbidden in ('http://', 'https://', 'url(', '@import', '<link'):
      self.assertNotIn(forbidden, page)

  def test_frames(self):
    path = self.folder / 'a.mp4'
    clips.write_clip(path, 9, 64, 96)
    files = critic_page.jpegs(path, 4, 48)
    self.assertLen(files, 4)
    for data in files:
      self.assertEqual(Image.open(io.BytesIO(data)).size, (48, 32))
    rating = dataclasses.replace(
      critic_evaluation.worst(ratings(0), 1)[0], path=path
    )
    page = critic_page.critic_page(result_of(ratings(0, 6)), [rating], SHOWN)
    self.assertEqual(page.count('<img src="data:image/jpeg;base64,'), 4)

  def test_no_frames(self):
    """A missing or broken file is reported, and the rest is shown."""
    broken = self.folder / 'b.mp4'
    broken.write_bytes(b'no video')
    first, second = critic_evaluation.worst(ratings(0), 2)
    shown = [
      dataclasses.replace(first, path=pathlib.Path('missing.mp4')),
      dataclasses.replace(second, path=broken),
    ]
    page = critic_page.critic_page(result_of(ratings(0, 6)), shown, SHOWN)
    self.assertIn('The video file is missing.', page)
    self.assertIn('cannot be decoded', page)

  @parameterized.parameters(
    {}, {'has_probabilities': False}, {'fail_every': 1}, {'fail_every': 5},
    {'num_videos': 1},
  )  # fmt: skip
  def test_what_is_missing(self, **kind):
    evaluated = ratings(0, **kind)
    result = result_of(evaluated)
    page = critic_page.critic_page(
      result, critic_evaluation.worst(evaluated, 3), SHOWN
    )
    self.assertIn('All metrics', page)
    self.assertNotIn('None', page)
    self.assertNotIn('nan', page)
    critic_table.text_lines(result)

  def test_confusion(self):
    """From the best label to the worst, with the annotators' labels as rows."""
    result = result_of(ratings(0, 6))
    # Classes rise: the last row is the annotators' Good, the last column the
    # critic's.
    section = result['dimensions']['motion']
    section['confusion'] = [[11, 12, 13, 0], [21, 22, 23, 0], [31, 32, 33, 0]]
    page = critic_page.critic_page(result, [], SHOWN)
    plot = page[page.index('<title>motion: confusion matrix') :]
    plot = plot[: plot.index('</svg>')]
    counts = re.findall(r'>([123][123])<', plot)
    self.assertEqual(' '.join(counts), '33 32 31 23 22 21 13 12 11')

  def test_synthetic(self):
    page = critic_page.critic_page(
      result_of(ratings(0, 6), synthetic=True), [], SHOWN
    )
    self.assertIn('Synthetic data.', page)

  def test_titles(self):
    """The page uses long titles of rows that the terminal abbreviates."""
    page = critic_page.critic_page(result_of(ratings(0), ratings(1)), [], SHOWN)
    for short, long in critic_page._LONG_TITLES.items():
      self.assertIn(f'>{long.strip()}</th>', page)
      self.assertNotIn(f'>{short.strip()}</th>', page)

  def test_list_is_cut(self):
    result = result_of(ratings(0, 6))
    result['left_out']['skipped'] = [[f'w{i}', 'r'] for i in range(50)]
    page = critic_page.critic_page(result, [], SHOWN)
    self.assertIn('Records that could not be used: 50', page)
    self.assertIn('and 38 more, in evaluation.json', page)

  @parameterized.parameters(
    ({'worst': -1}, 'report.worst is -1'), ({'frames': 0}, 'report.frames is 0')
  )
  def test_settings(self, changes, message):
    with self.assertRaisesRegex(UserError, message):
      dataclasses.replace(SHOWN, **changes)


class TableTest(parameterized.TestCase):
  def test_lines(self):
    lines = critic_table.text_lines(result_of(ratings(0), ratings(1)))
    self.assertLess(max(map(len, lines)), 101)
    self.assertEqual(
      lines[0].split(), ['semantic', 'motion', 'fidelity', 'all']
    )
    (line,) = [line for line in lines if line.startswith('accuracy')]
    self.assertRegex(line, r'^accuracy, % +\d\d\.\d \[\d\d\.\d, \d\d\.\d\]')
    # The numbers of a column are aligned.
    ends = {line.index(' [') for line in lines if ' [' in line}
    self.assertLen(ends, 1)
