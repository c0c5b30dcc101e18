"""The page of a comparison: contents, size, and rendering in a browser."""

import base64
import io
import re

from absl.testing import parameterized
import numpy as np
from PIL import Image
import pytest

from lift_jax.comparison.clip_sets import read_clips
from lift_jax.data.vbench_dimensions import DIMENSIONS, PUBLISHED
from lift_jax.errors import UserError
from lift_jax.report.compare_page import (
  CompareContent,
  ComparePageConfig,
  ShownPair,
  compare_page,
)
from lift_jax.runtime.files import write_text
from tests import browser
from tests.comparison import sets
from tests.report.comparison_results import (
  EVIL,
  comparison,
  result,
  row,
  win_rate,
)

GROUNDS = {'before': (12, 200, 34), 'after': (230, 0, 250)}
CONFIG = ComparePageConfig(
  pairs=2, frames=5, frame_width=64, max_bytes=10**6, seed=0
)
REWARDS = [
  row(f'{kind}_{name}', 0.5, 0.6, 'better')
  for kind in ('critic', 'held_out')
  for name in ('semantic', 'motion', 'fidelity', 'reward')
]


class PageTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.workdir = tmp_path / 'run'
    self.workdir.mkdir()
    self.folder = tmp_path

  def pairs(self, names=('a', 'b'), prompt=None):
    """Pairs of clips of plain colours; each is a gain of one metric."""
    models = {
      model: read_clips(
        model,
        sets.write_model(
          self.folder / model,
          names,
          frames=lambda *_, ground=ground: np.full(
            (9, 32, 32, 3), ground, np.uint8
          ),
        ),
      )
      for model, ground in GROUNDS.items()
    }
    return [
      ShownPair(
        0,
        prompt or name,
        [(metric, 'gain'), ('', 'random')],
        {model: found.clips[name, 0] for model, found in models.items()},
        [('a title', '1.0', '2.0')],
      )
      for name, metric in zip(
        names, ('critic_semantic', 'critic_motion'), strict=False
      )
    ]

  def page(self, content, pairs=(), published=(), config=CONFIG):
    return compare_page(
      CompareContent(content, pairs, published), self.workdir, config
    )

  @pytest.mark.fast
  def test_contents(self):
    content = result(
      comparison(*REWARDS, people={'overall': win_rate(7, 1, 2)}),
      not_measured=[{'name': 'DINO', 'reason': 'needs weights'}],
      faults=[{'model': 'after', 'text': '1 missing (a-0)'}],
    )
    page = self.page(content)
    heading = re.search('<h1>(.*?)</h1>', page)[1]
    self.assertStartsWith(heading, 'People prefer after to before: in 75.0%')
    self.assertIn('<strong>DINO: </strong>needs weights', page)
    self.assertIn('after: 1 missing (a-0)', page)
    self.assertIn('200 clips of 40 prompts (suite mine)', page)
    self.assertIn('No pairs were chosen.', page)
    # The radar has the six rewards by dimension.
    self.assertIn('critic motion, after: 0.600', page)
    self.assertNotIn('Published', page)

  @pytest.mark.fast
  def test_published_rows(self):
    """Next to ours, if the evaluator is the same or unknown."""
    mine = {name: 0.5 for name in DIMENSIONS}
    content = result(
      comparison(*REWARDS), vbench={'before': mine, 'after': mine}
    )
    page = self.page(content, published=PUBLISHED)
    cells = re.search('<th scope="row">Total</th>(.*?)</tr>', page)[1]
    self.assertEqual(
      re.findall('<td>(.*?)</td>', cells)[2:],
      ['80.91', '81.61', '80.25', '80.91', '82.15', '82.82'],
    )
    self.assertIn('>CogVideoX-5B, VBench leaderboard</th>', page)
    self.assertIn('The LiFT paper does not say which of them', page)

  @pytest.mark.fast
  def test_pairs(self):
    page = self.page(result(comparison(*REWARDS)), self.pairs())
    self.assertIn('class="card model0 m0-gain random"', page)
    self.assertIn('class="card model0 m1-gain random"', page)
    self.assertIn('<option value="m1">critic motion</option>', page)
    self.assertIn('href="../before/videos/a-0.mp4"', page)
    strips = re.findall(r'url\(data:image/jpeg;base64,(.*?)\)', page)
    self.assertLen(strips, 4)
    image = Image.open(io.BytesIO(base64.b64decode(strips[0])))
    # Nine frames at steps of two.
    self.assertEqual(image.size, (5 * 64, 64))
    self.assertIn('animation: 1.125s steps(5, jump-none)', page)

  @pytest.mark.fast
  def test_size(self):
    """Beyond the limit, pairs have links only."""
    config = ComparePageConfig(2, 5, 64, max_bytes=1, seed=0)
    page = self.page(result(comparison(*REWARDS)), self.pairs(), config=config)
    self.assertEqual(page.count('data:image/jpeg'), 1)
    self.assertEqual(page.count('>file</a>'), 4)

  @pytest.mark.fast
  def test_a_clip_that_is_gone(self):
    pairs = self.pairs()
    pairs[0].clips['before'].path.unlink()
    page = self.page(result(comparison(*REWARDS)), pairs)
    self.assertEqual(page.count('data:image/jpeg'), 3)

  @pytest.mark.fast
  def test_data_is_escaped(self):
    content = result(
      comparison(row('critic_semantic', 0.5, 0.6, title=EVIL), model=EVIL),
      not_measured=[{'name': EVIL, 'reason': EVIL}],
      faults=[{'model': EVIL, 'text': EVIL}],
      settings={EVIL: EVIL},
    )
    page = self.page(content, self.pairs('a', prompt=EVIL))
    for forbidden in ('<script', '<img src=x'):
      self.assertNotIn(forbidden, page)

  @pytest.mark.fast
  @parameterized.parameters('pairs', 'frames', 'frame_width', 'max_bytes')
  def test_refused(self, name):
    fields = dict.fromkeys(('pairs', 'max_bytes', 'seed'), 1)
    with self.assertRaisesRegex(UserError, f'report.{name} is -1'):
      ComparePageConfig(
        **{'frames': 1, 'frame_width': 16} | fields | {name: -1}
      )

  def test_browser(self):
    """The pairs of the chosen metric are shown, and play."""
    program = browser.find()
    if program is None:
      pytest.skip('no Chromium here')
    path = self.folder / 'report.html'
    content = result(comparison(*REWARDS))
    write_text(path, self.page(content, self.pairs()))
    picture = self.folder / 'page.png'
    process = browser.run(
      program, path, self.folder / 'profile', f'--screenshot={picture}',
      '--window-size=1200,2600', '--hide-scrollbars',
    )  # fmt: skip
    self.assertEqual(process.returncode, 0, process.stderr)
    self.assertNotIn('CONSOLE', process.stderr)
    pixels = np.asarray(Image.open(picture).convert('RGB')).reshape(-1, 3)
    for ground in GROUNDS.values():
      near = np.abs(pixels.astype(int) - ground).max(axis=1) < 12
      # One clip of each model: that of the other metric is hidden.
      self.assertBetween(near.sum(), 64**2 - 60, 64**2)
