"""The benchmark of kills: what it compares, and what it finds."""

import dataclasses
import json
import sys

from absl.testing import parameterized
import kills
import pytest

# A job that ends well at first. Run again, it does not do what a job should:
# it leaves what was half written, and writes other files.
_JOB = """
import pathlib, time
folder = pathlib.Path('job')
folder.mkdir(exist_ok=True)
first, partial = folder / 'first', folder / '.0.partial'
if first.exists():
  print('1 of 3 videos are in', folder)
  first.write_text('again')
  (folder / 'third').touch()
else:
  first.write_text('a')
  partial.touch()
  time.sleep(1)
  partial.unlink()
(folder / 'second').write_text('b')
(folder / 'last').write_text('c')
"""


@dataclasses.dataclass(frozen=True)
class _Stage:
  code: str
  folder: str = 'job'

  @property
  def command(self) -> list[str]:
    return [sys.executable, '-c', self.code]


class RunsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def test_killed(self):
    """All that the second run leaves otherwise is named."""
    runs = kills.Runs(self.folder)
    chains = [self.folder / name for name in ('undisturbed', 'disturbed')]
    for chain in chains:
      chain.mkdir()
    runs.whole(_Stage(_JOB), chains[0])
    kill = runs.killed(_Stage(_JOB), chains[1], share=0.6)
    self.assertEqual(kill.different, ('.0.partial', 'first', 'third'))
    self.assertEqual((kill.resumed, kill.num_same), ('1 of 3 videos', 2))
    cells = kills.row(1, kill).split(' | ')
    self.assertEqual(
      cells[3:], ['1 of 3 videos', '2', '.0.partial, first, third |']
    )

  def test_failed(self):
    """A job that fails ends the benchmark, with what it says."""
    with self.assertRaisesRegex(RuntimeError, 'job ended with 1:(.|\n)*Zero'):
      kills.Runs(self.folder).whole(_Stage('1 / 0'), self.folder)


@pytest.mark.fast
@pytest.mark.parametrize(
  ('log', 'expected'),
  [
    ('sample: 3 of 8 videos are in clips\n', '3 of 8 videos'),
    ('align: resumed at step 4\n', 'resumed at step 4'),
    ('sample: done\n', 'from the start'),
    (
      'rounds: stage 1 of 2, base/measure: already done\n'
      'rounds: stage 2 of 2, round_1/align\n'
      'align: resumed at step 4\n',
      'at round_1/align',
    ),
    (
      'rounds: stage 1 of 1, base/measure: already done\n',
      'after the last stage',
    ),
  ],
)
def test_where_resumed(log, expected):
  assert kills.where_resumed(log) == expected


@pytest.mark.fast
class ContentsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  @parameterized.parameters(
    ('metrics.jsonl', 'step_seconds', True),
    ('metrics.jsonl', 'loss', False),
    ('ratings.jsonl', 'stamp', True),
    ('ratings.jsonl', 'video', False),
    ('hashes.jsonl', 'signature', True),
    ('manifest.jsonl', 'stamp', False),
  )
  def test_clocks(self, name, key, is_same):
    found = []
    for value in (1, 2):
      line = {'step': 1, 'loss': 0, 'video': 0, 'stamp': 0, 'step_seconds': 0}
      text = json.dumps(line | {key: value}) + '\n'
      (self.folder / name).write_text(text)
      found.append(kills.contents(self.folder))
    self.assertEqual(found[0] == found[1], is_same)

  @parameterized.parameters(
    ('{"made_of": 1, "seconds": 1.5}', True), ('{"made_of": 2}', False)
  )
  def test_markers_of_stages(self, text, is_same):
    path = self.folder / 'stages' / 'a.json'
    path.parent.mkdir()
    path.write_text('{"made_of": 1, "seconds": 20.25}')
    before = kills.contents(self.folder)
    path.write_text(text)
    self.assertEqual(kills.contents(self.folder) == before, is_same)

  def test_paths(self):
    """Of two workdirs; a path elsewhere is compared."""
    found = []
    for workdir, model in (('a', 'x'), ('b', 'x'), ('c', 'y')):
      path = self.folder / workdir / 'config.json'
      path.parent.mkdir()
      path.write_text(f'{path.parent}/videos {self.folder}/{model}')
      found.append(kills.contents(path.parent))
    self.assertEqual(found[0], found[1])
    self.assertNotEqual(found[1], found[2])

  def test_rounds(self):
    """Each round begins with the model that the last one has exported."""
    stages = kills.stages(2)
    self.assertLen(stages, 9)
    self.assertLen({stage.folder for stage in stages}, 9)
    for stage in (stages[4], stages[6], stages[7]):
      self.assertEqual(stage.settings['model.path'], '1_align/export')
