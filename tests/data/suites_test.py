"""Suites: how many clips, of which names, from which text and noise."""

import json

from absl.testing import parameterized
import pytest

from lift_jax.data import suites
from lift_jax.data.prompts import read_prompts
from lift_jax.errors import UserError
from lift_jax.sampling.clips import make_clips
from tests.published import OURS, THEIRS, require

pytestmark = pytest.mark.fast

FULL_INFO = 'vbench_full_info_opt.json'


class SuitesTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def write(self, entries, name='info.json'):
    path = self.folder / name
    path.write_text(json.dumps(entries), encoding='utf-8')
    return path

  @parameterized.parameters(
    # One prompt is about flicker, and one is listed twice.
    (OURS, 9, 8 * 5 + 25),
    (THEIRS, 944, 869 * 5 + 75 * 25),
  )
  def test_vbench(self, root, num_prompts, num_clips):
    require(root)
    suite = suites.make_suite('vbench_long', root / FULL_INFO, '', None)
    self.assertEqual((len(suite.prompts), suite.num_clips),
                     (num_prompts, num_clips))  # fmt: skip
    self.assertLen(suite.keys, num_clips)
    path = self.folder / 'prompts.json'
    suites.write_suite(path, suite, seed=7)
    self.assertEqual(suites.read_suite(path), suite)
    # As lift sample reads it: without settings of its own but the pattern.
    prompts, num_duplicates = read_prompts(path)
    clips, skipped = make_clips(prompts, 1, 0, '{prompt}-{index}')
    self.assertEqual((num_duplicates, skipped), (0, []))
    self.assertEqual(
      [clip.stem for clip in clips], [f'{name}-{i}' for name, i in suite.keys]
    )
    entries = json.loads((root / FULL_INFO).read_text(encoding='utf-8'))
    text = ' '.join(entries[0]['prompt_opt'].split())
    self.assertEqual(clips[0].prompt.text, text)

  def test_style(self):
    """Of the prompts about style, as VBench nests it."""
    entry = {'prompt_en': 'a', 'dimension': ['appearance_style']}
    style = {'appearance_style': {'appearance_style': 'oil painting'}}
    other = {'color': {'color': 'red'}}
    file = self.write([
      entry | {'auxiliary_info': style},
      {'prompt_en': 'b', 'dimension': ['color'], 'auxiliary_info': other},
    ])  # fmt: skip
    suite = suites.make_suite('vbench', file, '', None)
    self.assertEqual(
      [prompt.style for prompt in suite.prompts], ['oil painting', '']
    )
    path = self.folder / 'prompts.json'
    suites.write_suite(path, suite, seed=0)
    self.assertEqual(suites.read_suite(path), suite)
    for wrong in ('oil', {'appearance_style': 3}):
      more = {'appearance_style': wrong}
      file = self.write([entry | {'auxiliary_info': more}])
      with self.assertRaisesRegex(UserError, 'record 0: .*appearance_style'):
        suites.make_suite('vbench', file, '', None)

  def test_both_entries_of_a_prompt(self):
    suite = suites.make_suite('vbench', OURS / FULL_INFO, '', None)
    (snail,) = (p for p in suite.prompts if p.name == 'a snail on a leaf')
    self.assertEqual(
      snail.dimensions, ('subject_consistency', 'imaging_quality')
    )
    self.assertStartsWith(snail.text, 'A snail with a brown')

  def test_text_and_noise(self):
    """The noise depends on name, index and seed, not on the text."""
    noise = {}
    for key in ('prompt_en', 'prompt_opt'):
      for seed in (0, 1):
        suite = suites.make_suite('vbench', OURS / FULL_INFO, key, 2)
        path = self.folder / f'{key}{seed}.json'
        suites.write_suite(path, suite, seed)
        # The job's own seed and number of clips do not count.
        clips, _ = make_clips(read_prompts(path)[0], 9, 5, '{prompt}-{index}')
        self.assertLen(clips, 18)
        noise[key, seed] = [clip.seed for clip in clips]
    self.assertEqual(noise['prompt_en', 0], noise['prompt_opt', 0])
    self.assertNotEqual(noise['prompt_en', 0], noise['prompt_en', 1])

  def test_own_prompts(self):
    path = self.folder / 'mine.txt'
    path.write_text('a dog\na cat\n', encoding='utf-8')
    suite = suites.make_suite('mine.txt', path, '', None)
    self.assertEqual(suite.num_clips, 10)
    self.assertEqual(suite.prompts[0].dimensions, ())

  def test_human_feedback(self):
    path = OURS / 'lift_sample' / 'hra.json'
    suite = suites.make_suite('hra_test', path, '', 3)
    self.assertEqual((len(suite.prompts), suite.num_clips), (2, 6))

  @parameterized.parameters(
    ([], 'no prompt'),
    (['a'], 'record 0: a string, not an object'),
    ([{'prompt_en': 'a'}], '"dimension" is not a list of names'),
    (
      [{'prompt_en': 'a', 'dimension': ['Human_Anatomy']}],
      'record 0: "dimension" has Human_Anatomy, which VBench 1 does not have',
    ),
    ([{'dimension': ['color']}], 'no "prompt_en"'),
  )
  def test_refused(self, entries, message):
    path = self.write(entries)
    with self.assertRaises(UserError) as raised:
      suites.make_suite('vbench', path, '', None)
    self.assertIn(message, str(raised.exception))
    self.assertStartsWith(str(raised.exception), str(path))

  @parameterized.parameters(
    ({'data': []}, 'not a suite'),
    ({'suite': 'x', 'data': []}, 'no prompt'),
    (
      {'suite': 'x', 'data': [{'name': 'a', 'prompt': 'a', 'clips': 0,
                               'dimensions': []}]},
      '"clips" is 0; write an integer from 1',
    ),
    (
      {'suite': 'x', 'data': 2 * [{'name': 'a', 'prompt': 'a', 'clips': 1,
                                   'dimensions': []}]},
      "2 prompts are named 'a'",
    ),
  )  # fmt: skip
  def test_not_a_suite(self, content, message):
    with self.assertRaisesRegex(UserError, message):
      suites.read_suite(self.write(content))
