"""Names and seeds of clips: for ever the same, and fit for a file system."""

import json
import random

from absl.testing import parameterized
import pytest

from lift_jax.data.prompts import Prompt, read_prompts
from lift_jax.errors import UserError
from lift_jax.sampling import clips as clips_lib
from tests.published import OURS, THEIRS, require

pytestmark = pytest.mark.fast

# What somebody may write, ask an id to be, or have a script make of it.
ODD = (
  'a/b\\c',
  'a\nb',
  'a\r\nb\tc',
  'nul\0byte',
  'bell\a, delete\x7f and next line\x85',
  'a dog 🐕 and a family 👩‍👩‍👧',
  '🐕' * 300,
  'x' * 1000,
  'x' * 999 + 'y',
  '猫' * 300,
  'a' + '猫' * 300,
  'ab' + '猫' * 300,
  'line\u2028and\u2029paragraph',
  'right\u202eto left',
  '.',
  '..',
  '...',
  '.hidden',
  '../../etc/passwd',
  '/etc/passwd',
  '~',
  ' ',
  '   ',
  'a',
  'a ',
  ' a',
  'a.',
  'a.mp4',
  'Is it?',
  'Is it:',
  'Is it*',
  'Is it_',
  '"quoted" <tags> | pipes',
  '{id} {index} {0} {',
  '%s $HOME `ls`',
  '-rf',
)


def prompt(name: str, own_id: str | None = None) -> Prompt:
  return Prompt(
    name if own_id is None else own_id, 'text', name, f'file.txt line {name!r}'
  )


def make_all(*args):
  """The clips, where none is left out."""
  clips, left_out = clips_lib.make_clips(*args)
  assert not left_out
  return clips


def stems(names, pattern='{prompt}', count=1):
  prompts = [prompt(name) for name in names]
  return [clip.stem for clip in make_all(prompts, count, 0, pattern)]


class SeedTest(parameterized.TestCase):
  # The first 53 bits of SHA-256, once written down: another value here makes
  # other clips of every prompt that was ever used.
  @parameterized.parameters(
    (0, 'a', 0, 5973958819961384),
    (0, 'a', 1, 3478628612001318),
    (1, 'a', 0, 7705375829459256),
    (0, 'b', 0, 7213092813176807),
    (7, '0f3c2a', 4, 1230159921966092),
    (-1, '猫', 2, 8002948054512798),
  )
  def test_golden(self, base_seed, prompt_id, index, seed):
    self.assertEqual(clips_lib.clip_seed(base_seed, prompt_id, index), seed)
    (*_, clip) = make_all(
      [prompt('name', prompt_id)], index + 1, base_seed, '{id}{index}'
    )
    self.assertEqual((clip.index, clip.seed), (index, seed))

  def test_json_keeps_it(self):
    seeds = {
      clips_lib.clip_seed(base, f'{number}', index)
      for base in range(4)
      for number in range(50)
      for index in range(5)
    }
    self.assertLen(seeds, 1000)
    for seed in seeds:
      self.assertBetween(seed, 0, 2**53 - 1)
      self.assertEqual(int(float(seed)), seed)
    self.assertGreater(max(seeds), 2**52)  # all 53 bits are used

  def test_no_run_of_digits_reads_in_two_ways(self):
    found = {
      clips_lib.clip_seed(base, own_id, index)
      for base, own_id, index in (
        (1, '11', 1),
        (11, '11', 1),
        (1, '1', 11),
        (11, '1', 1),
        (1, '1/1', 1),
        (1, '1', 1),
      )
    }
    self.assertLen(found, 6)

  def test_others_have_no_say(self):
    prompts = [prompt(f'prompt {number}') for number in range(6)]
    pattern = '{prompt}-{index}'
    expected = {
      clip.stem: (clip.seed, clip.index)
      for clip in make_all(prompts, 3, 5, pattern)
    }
    self.assertLen(expected, 18)
    rng = random.Random(0)
    for count in (1, 2, 4):
      some = rng.sample(prompts, 4) + [prompt('another')]
      rng.shuffle(some)
      found = {
        clip.stem: (clip.seed, clip.index)
        for clip in make_all(some, count, 5, pattern)
      }
      common = expected.keys() & found.keys()
      self.assertLen(common, 4 * min(count, 3))
      for stem in common:
        self.assertEqual(found[stem], expected[stem])

  def test_name_and_pattern_have_no_say(self):
    seeds = {
      make_all([prompt(name, 'one')], 1, 0, pattern)[0].seed
      for name in ('a', 'b')
      for pattern in ('{id}', '{prompt}', '{id} of {prompt}')
    }
    self.assertLen(seeds, 1)


class NameTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  # These too stay: a run that goes on finds its clips by them.
  @parameterized.parameters(
    ('A person is walking.', 'A person is walking.'),
    ("Van Gogh's café, 50% off; 猫", "Van Gogh's café, 50% off; 猫"),
    ('a/b', 'a_b~c14cddc0'),
    ('..', '_.~5ec1f7e7'),
    ('Is it?', 'Is it_~ecde6938'),
    ('line\nbreak', 'line_break~697affca'),
  )
  def test_golden(self, text, name):
    self.assertEqual(clips_lib.safe_name(text, 220), name)

  def test_odd_prompts_make_files(self):
    found = stems(ODD)
    self.assertLen(set(found), len(ODD))
    for text, stem in zip(ODD, found, strict=True):
      path = self.folder / f'{stem}.mp4'
      self.assertLessEqual(len(path.name.encode()), 255)
      self.assertEqual(path.parent, self.folder)
      self.assertEqual(path.resolve(), path)
      self.assertFalse(stem.startswith('.'))
      self.assertTrue(stem.isprintable(), stem)
      self.assertEqual(path.stem, stem)
      path.write_text(text, encoding='utf-8', newline='')
    written = {path.name for path in self.folder.iterdir()}
    self.assertEqual(written, {f'{stem}.mp4' for stem in found})
    for text, stem in zip(ODD, found, strict=True):
      path = self.folder / f'{stem}.mp4'
      with path.open(encoding='utf-8', newline='') as file:
        self.assertEqual(file.read(), text)

  @parameterized.parameters(
    '{prompt}', '{id}', '{id}{prompt}{index}', 'sixteen bytes: {prompt}'
  )
  def test_longest_name_fits(self, pattern):
    texts = [f'{char * 1000}{end}' for char in 'x猫🐕' for end in 'ab']
    if ':' in pattern:
      pattern = pattern.replace(':', ';')
    found = stems(texts, pattern)
    self.assertLen(set(found), len(texts))
    for stem in found:
      path = self.folder / f'{stem}.mp4'
      self.assertLessEqual(len(path.name.encode()), 255)
      path.touch()

  def test_cut_between_characters(self):
    for text in ('猫' * 300, 'a' + '猫' * 300, 'ab' + '猫' * 300, '🐕' * 300):
      name = clips_lib.safe_name(text, 220)
      kept, mark = name.split('~')
      self.assertTrue(text.startswith(kept))
      self.assertRegex(mark, '^[0-9a-f]{8}$')
      self.assertBetween(len(name.encode()), 217, 220)

  def test_just_long_enough(self):
    self.assertEqual(clips_lib.safe_name('x' * 220, 220), 'x' * 220)
    name = clips_lib.safe_name('x' * 221, 220)
    self.assertEqual(name[:212], 'x' * 211 + '~')
    self.assertLen(name, 220)
    # A blank where it is cut would stand before the mark.
    name = clips_lib.safe_name('x' * 209 + '  ' + 'y' * 20, 220)
    self.assertEqual(name[:210], 'x' * 209 + '~')

  def test_changed_names_differ_from_what_they_look_like(self):
    alike = ['a/b', 'a\\b', 'a:b', 'a\nb', 'a\0b', 'a\u2028b', 'a_b']
    names = [clips_lib.safe_name(text, 220) for text in alike]
    self.assertLen(set(names), len(alike))
    self.assertEqual({name[:3] for name in names}, {'a_b'})
    self.assertEqual(names[-1], 'a_b')

  def test_order(self):
    found = stems(['b', 'a'], '{prompt}-{index}', 2)
    self.assertEqual(found, ['b-0', 'b-1', 'a-0', 'a-1'])

  def test_prompts_that_state_their_clips(self):
    """Their number and seed take precedence over those of the job."""
    prompts = [
      Prompt('a', 'a', 'a', 'x', num_clips=3, seed=5),
      Prompt('b', 'b', 'b', 'y'),
    ]
    clips = make_all(prompts, 1, 7, '{prompt}-{index}')
    self.assertEqual(
      [(clip.stem, clip.seed) for clip in clips],
      [(f'a-{i}', clips_lib.clip_seed(5, 'a', i)) for i in range(3)]
      + [('b-0', clips_lib.clip_seed(7, 'b', 0))],
    )
    with self.assertRaisesRegex(UserError, 'with 3 videos per prompt, add'):
      make_all(prompts, 1, 7, '{prompt}')

  def test_pattern(self):
    clips = make_all(
      [prompt('a/b', 'no. 7')], 2, 0, '{{{index}}} {id}, {prompt}'
    )
    self.assertEqual(
      [clip.stem for clip in clips],
      ['{0} no. 7, a_b~c14cddc0', '{1} no. 7, a_b~c14cddc0'],
    )

  @parameterized.parameters((OURS, 9, 1), (THEIRS, 944, 2))
  def test_vbench(self, root, num_names, num_repeated):
    require(root)
    path = root / 'vbench_full_info_opt.json'
    items = json.loads(path.read_text(encoding='utf-8'))
    names = list(dict.fromkeys(item['prompt_en'] for item in items))
    self.assertLen(names, num_names)
    # As VBench looks them up.
    expected = [f'{name}-{index}' for name in names for index in range(5)]
    self.assertEqual(stems(names, '{prompt}-{index}', 5), expected)
    # From the long texts, of which some names have two.
    prompts, _ = read_prompts(path, 'prompt_opt')
    clips, left_out = clips_lib.make_clips(
      prompts, 5, 0, '{prompt}-{index}', 'first'
    )
    self.assertEqual([clip.stem for clip in clips], expected)
    self.assertLen(left_out, num_repeated)


class FaultTest(parameterized.TestCase):
  @parameterized.parameters(
    ('{id', 1, r"expected '}' before end of string; write for example \{id\}$"),
    ('{id}}', 1, r"Single '}' encountered in format string; write for example"),
    ('{', 1, "Single '{' encountered"),
    ('{id!}', 1, r'write for example \{id\}$'),
    ('{}', 1, r'may contain \{id\}, \{prompt\} and \{index\}, each once and'),
    ('{0}', 1, 'may contain'),
    ('{name}', 1, 'may contain'),
    ('{ID}', 1, 'may contain'),
    ('{id.__class__}', 1, 'may contain'),
    ('{prompt[0]}', 1, 'may contain'),
    ('{id!r}', 1, 'may contain'),
    ('{id}-{index:03d}', 1, 'may contain'),
    ('{id:{index}}', 1, 'may contain'),
    ('{id}{id}', 1, 'each once'),
    ('{prompt} {prompt}-{index}', 5, 'each once'),
    ('', 1, r'add \{id\} or \{prompt\} to tell clips apart'),
    ('clip', 1, r'add \{id\} or \{prompt\}'),
    ('{index}', 5, r'add \{id\} or \{prompt\}'),
    ('{{id}}', 1, r'add \{id\} or \{prompt\}'),
    ('{id}', 5, r'with 5 videos per prompt, add \{index\}'),
    ('{prompt}{{index}}', 2, r'with 2 videos per prompt, add \{index\}'),
    ('{id}/{index}', 5, 'its literal text may have 16 bytes, without "'),
    ('../{id}', 1, 'its literal text'),
    ('.{id}', 1, 'without a leading dot$'),
    ('{id}\n', 1, 'its literal text'),
    ('{id}*', 1, 'its literal text'),
    ('x' * 17 + '{id}', 1, 'its literal text'),
    ('猫' * 6 + '{id}', 1, 'its literal text'),
  )
  def test_pattern(self, pattern, count, message):
    with self.assertRaisesRegex(UserError, message) as caught:
      make_all([prompt('a')], count, 0, pattern)
    text = str(caught.exception)
    self.assertStartsWith(text, f'output.name is {pattern!r}: ')
    self.assertLen(text.splitlines(), 1)

  @parameterized.parameters(
    ('{id}', 1),
    ('{prompt}', 1),
    ('{index}{id}', 1),
    ('{prompt}-{index}', 5),
    ('{id} {prompt} {index}', 5),
    ('x' * 16 + '{id}', 1),
    ('猫' * 5 + '{id}', 1),
  )
  def test_good_pattern(self, pattern, count):
    clips_lib.check_pattern(pattern, count)

  def test_same_name(self):
    first, second, third = (
      Prompt('1', 'one', 'a', 'p.json record 3'),
      Prompt('2', 'two', 'b', 'p.json record 4'),
      Prompt('3', 'three', 'a', 'p.json record 8'),
    )
    prompts = [first, second, third]
    with self.assertRaises(UserError) as caught:
      make_all(prompts, 2, 0, '{prompt}-{index}')
    self.assertEqual(
      str(caught.exception),
      "p.json record 8: its videos would be named 'a-0', like those of p.json "
      'record 3; put {id} into output.name, or set prompts.same_name = first '
      'to skip this prompt',
    )
    clips, left_out = clips_lib.make_clips(
      prompts, 2, 0, '{prompt}-{index}', 'first'
    )
    self.assertEqual(left_out, [third])
    self.assertEqual(clips, make_all([first, second], 2, 0, '{prompt}-{index}'))
    self.assertLen(make_all(prompts, 2, 0, '{id} {prompt}{index}'), 6)

  def test_same_name_through_the_index(self):
    # Video 1 of 'a1' and video 11 of 'a', as video 0 and 10.
    for names in (['a', 'a1'], ['a1', 'a']):
      with self.assertRaisesRegex(
        UserError, "would be named 'a10', like those"
      ):
        stems(names, '{prompt}{index}', 12)
      prompts = [prompt(name) for name in names]
      clips, left_out = clips_lib.make_clips(
        prompts, 12, 0, '{prompt}{index}', 'first'
      )
      self.assertLen({clip.stem for clip in clips}, 12)
      self.assertEqual(left_out, prompts[1:])
