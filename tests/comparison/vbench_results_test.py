"""Result files of VBench and VBench-Long, and what is wrong with them."""

import copy
import json
import zipfile

from absl.testing import parameterized
import pytest

from lift_jax.comparison.vbench_results import read_results, write_submission
from lift_jax.data import vbench_dimensions
from lift_jax.data.vbench_dimensions import DIMENSIONS, PUBLISHED
from lift_jax.errors import UserError
from tests.comparison import sets

pytestmark = pytest.mark.fast

SCORES = PUBLISHED[0].scores
SUITE = sets.vbench_suite()


class _ResultsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path / 'results'

  def read(self, entries, *, suite=SUITE, allow_missing=False):
    sets.write_results(self.folder, entries)
    return read_results(self.folder, suite, allow_missing)


def _long(suite, scores):
  """The same in VBench-Long's form: scores of parts, and of clips."""
  entries = {}
  for name, (score, clips) in sets.vbench_entries(suite, scores).items():
    parts = []
    for clip in clips:
      stem = clip['video_path'].removeprefix('clips/').removesuffix('.mp4')
      for number, change in ((0, -0.001), (1, 0.001)):
        parts.append(
          {
            'video_path': f'clips/split_clip/{stem}/{stem}_{number:03}.mp4',
            'video_results': clip['video_results'] + change,
          }
        )
    entries[name] = [score, parts, clips]
  return entries


class ReadTest(_ResultsTest):
  def test_all(self):
    results = self.read(sets.vbench_entries(SUITE, SCORES))
    self.assertEqual(results.evaluator, 'vbench')
    self.assertEqual(list(results.dimensions), list(DIMENSIONS))
    for name, one in results.dimensions.items():
      self.assertEqual(one.score, SCORES[name])
      self.assertEqual(list(one.clips), SUITE.keys)
      # Of imaging quality, clips are in percent in the file.
      mean = sum(one.clips.values()) / len(one.clips)
      self.assertAlmostEqual(mean, SCORES[name])
    self.assertEqual(results.num_missing, 0)

  @parameterized.parameters(True, False)
  def test_long(self, has_means):
    """Clips in parts; some dimensions have the means of clips, some not."""
    suite = sets.vbench_suite('vbench_long')
    entries = _long(suite, {'scene': 0.5, 'color': 0.8})
    expected = {
      clip['video_path']: clip['video_results'] for clip in entries['scene'][2]
    }
    if not has_means:
      entries = {name: entry[:2] for name, entry in entries.items()}
    results = self.read(entries, suite=suite)
    self.assertEqual(results.evaluator, 'vbench_long')
    for (name, index), value in results.dimensions['scene'].clips.items():
      self.assertAlmostEqual(value, expected[f'clips/{name}-{index}.mp4'])

  def test_several_files(self):
    entries = sets.vbench_entries(SUITE, SCORES)
    sets.write_results(self.folder, {'color': entries.pop('color')}, 'one')
    # As some versions write them.
    entries = {name.replace('_', ' '): entry for name, entry in entries.items()}
    results = self.read(entries)
    self.assertLen(results.files, 2)
    self.assertLen(results.dimensions, 16)

  def test_bools(self):
    """Dynamic degree and human action say yes or no of each clip."""
    entries = sets.vbench_entries(SUITE, {'dynamic_degree': 0.5})
    for index, clip in enumerate(entries['dynamic_degree'][1]):
      clip['video_results'] = index % 2 == 0
    one = self.read(entries).dimensions['dynamic_degree']
    self.assertEqual(list(one.clips.values()), [1.0, 0.0] * 3)

  def test_flicker(self):
    """Five of the clips are left after VBench's filter."""
    suite = sets.vbench_suite(num_prompts=1)
    (prompt,) = suite.prompts
    raw = type(suite)(
      'vbench', (type(prompt)('p', 't', 25, prompt.dimensions),)
    )
    kept = type(suite)(
      'vbench', (type(prompt)('p', 't', 5, prompt.dimensions),)
    )
    entries = sets.vbench_entries(kept, {'temporal_flickering': 0.9})
    one = self.read(entries, suite=raw).dimensions['temporal_flickering']
    self.assertLen(one.clips, 5)
    self.assertEqual(one.missing, ())

  def test_color(self):
    """VBench itself leaves out clips without the object."""
    entries = sets.vbench_entries(SUITE, {'color': 0.5})
    del entries['color'][1][2]
    one = self.read(entries).dimensions['color']
    self.assertEqual((len(one.clips), one.missing), (5, ()))
    self.assertEqual(one.score, 0.5)

  def test_full_info(self):
    entries = sets.vbench_entries(SUITE, {'scene': 0.5})
    sets.write_results(self.folder, entries)
    listed = [clip['video_path'] for clip in entries['scene'][1]]
    info = self.folder / 'run_full_info.json'
    info.write_text(json.dumps([{'prompt_en': 'x', 'video_list': listed}]))
    read_results(self.folder, SUITE, False)
    info.write_text(json.dumps([{'prompt_en': 'x', 'video_list': listed[1:]}]))
    with self.assertRaisesRegex(UserError, 'keep the two files of a run'):
      read_results(self.folder, SUITE, False)


class MissingTest(_ResultsTest):
  def test_refused(self):
    entries = sets.vbench_entries(SUITE, SCORES)
    del entries['scene'][1][:2]
    with self.assertRaisesRegex(
      UserError, r'\(scene\): 2 of 6 clips are missing, such as prompt 0-0.mp4'
    ):
      self.read(entries)

  def test_counts_as_0(self):
    """The totals fall as the leaderboard's rule says."""
    entries = sets.vbench_entries(SUITE, SCORES)
    del entries['scene'][1][:2]
    results = self.read(entries, allow_missing=True)
    one = results.dimensions['scene']
    self.assertAlmostEqual(one.score, SCORES['scene'] * 4 / 6)
    self.assertEqual(one.missing, (('prompt 0', 0), ('prompt 0', 1)))
    self.assertEqual(one.clips['prompt 0', 0], 0)
    self.assertEqual(results.num_missing, 2)
    scores = {name: one.score for name, one in results.dimensions.items()}
    lost = (
      vbench_dimensions.totals(SCORES)['total']
      - vbench_dimensions.totals(scores)['total']
    )
    self.assertAlmostEqual(lost, SCORES['scene'] / 3 / 0.8222 / 9 / 5)


class RefusedTest(_ResultsTest):
  def entries(self):
    return sets.vbench_entries(SUITE, {'scene': 0.5, 'color': 0.5})

  def assert_refused(self, entries, message, **settings):
    with self.assertRaises(UserError) as raised:
      self.read(entries, **settings)
    text = str(raised.exception)
    self.assertIn(message, text)
    self.assertStartsWith(text, str(self.folder))
    self.assertLen(text.splitlines(), 1)

  @parameterized.parameters(
    (float('nan'), 'nan is not a finite number'),
    ('0.5', "'0.5' is not a finite number"),
    (None, 'None is not a finite number'),
    (1.5, 'has 1.5, outside of the range'),
    (-0.1, 'has -0.1, outside of the range'),
  )
  def test_clip(self, value, message):
    entries = self.entries()
    entries['scene'][1][0]['video_results'] = value
    self.assert_refused(entries, message)

  @parameterized.parameters(
    (62.3, 'the score 62.3 is not between 0 and 1'),
    (float('nan'), 'nan is not a finite number'),
  )
  def test_score(self, value, message):
    entries = self.entries()
    entries['scene'][0] = value
    self.assert_refused(entries, message)

  def test_negative_cosine(self):
    entries = sets.vbench_entries(SUITE, {'temporal_style': 0.2})
    entries['temporal_style'][1][0]['video_results'] = -0.05
    self.read(entries)

  def test_twice(self):
    entries = self.entries()
    entries['scene'][1].append(copy.deepcopy(entries['scene'][1][0]))
    self.assert_refused(entries, 'two entries for prompt 0-0.mp4')

  def test_unknown_prompt(self):
    entries = self.entries()
    entries['scene'][1][0]['video_path'] = 'clips/a stranger-0.mp4'
    self.assert_refused(entries, 'a stranger-0.mp4 is no clip of the suite')

  def test_too_many_clips(self):
    entries = self.entries()
    entries['scene'][1][0]['video_path'] = 'clips/prompt 0-5.mp4'
    self.assert_refused(entries, 'prompt 0-5.mp4 is no clip of the suite')

  def test_name(self):
    entries = self.entries()
    entries['scene'][1][0]['video_path'] = 'clips/prompt.mp4'
    self.assert_refused(entries, "'prompt.mp4' is not named PROMPT-INDEX.mp4")

  @parameterized.parameters(
    ({'Human_Anatomy': [0.9, []]}, 'Human_Anatomy is no dimension of VBench 1'),
    ({'i2v_subject': [0.9, []]}, 'i2v_subject is no dimension of VBench 1'),
    ({'scene': 0.5}, '(scene): not [score, clips]'),
    ({'scene': [0.5, []]}, '(scene): no clips'),
    ({'scene': [0.5, [{}]]}, 'a clip without "video_results"'),
    ({'scene': [0.5, [{'video_results': 1}]]}, 'a clip without "video_path"'),
    ([], 'not an object of dimensions'),
  )
  def test_form(self, entries, message):
    self.assert_refused(entries, message)

  def test_evaluators_mixed(self):
    entries = self.entries() | _long(SUITE, {'scene': 0.5})
    self.assert_refused(entries, 'is from vbench_long')

  def test_another_evaluator(self):
    self.assert_refused(
      _long(SUITE, {'scene': 0.5}),
      'is from vbench_long, but the suite is vbench',
    )
    self.assert_refused(
      self.entries(),
      'is from vbench, but the suite is vbench_long',
      suite=sets.vbench_suite('vbench_long'),
    )

  def test_dimension_in_two_files(self):
    sets.write_results(self.folder, self.entries(), 'another')
    self.assert_refused(self.entries(), 'also in')

  def test_no_files(self):
    self.folder.mkdir()
    for folder, message in (
      (self.folder, 'no .*_eval_results.json'),
      (self.folder / 'none', 'no such folder'),
    ):
      with self.assertRaisesRegex(UserError, message):
        read_results(folder, SUITE, False)

  def test_not_json(self):
    sets.write_results(self.folder, {})
    (self.folder / 'run_eval_results.json').write_text('{')
    with self.assertRaisesRegex(UserError, 'not readable as JSON'):
      read_results(self.folder, SUITE, False)


class SubmissionTest(_ResultsTest):
  def test_zip(self):
    """What the leaderboard reads from it are the scores of the files."""
    entries = sets.vbench_entries(SUITE, SCORES)
    sets.write_results(self.folder, {'color': entries.pop('color')}, 'one')
    path = self.folder / 'x.zip'
    write_submission(path, self.read(entries), allow_missing=False)
    scores = {}
    with zipfile.ZipFile(path) as archive:
      self.assertLen(archive.namelist(), 2)
      for name in archive.namelist():
        for key, entry in json.loads(archive.read(name)).items():
          scores[key] = entry[0]
    self.assertEqual(scores, dict(SCORES))

  def test_incomplete(self):
    path = self.folder / 'x.zip'
    results = self.read(sets.vbench_entries(SUITE, {'scene': 0.5}))
    with self.assertRaisesRegex(UserError, 'no result for aesthetic_quality'):
      write_submission(path, results, allow_missing=False)
    self.assertFalse(path.exists())
    write_submission(path, results, allow_missing=True)
    self.assertTrue(path.exists())
