"""Sets of clips: what is read, and what is found to be wrong."""

import json

from absl.testing import parameterized
import pytest

from lift_jax.comparison import clip_sets
from lift_jax.comparison.clip_sets import (
  check_listed,
  check_opened,
  check_same_prompts,
  probe_clips,
  read_clips,
  share_of_same_noise,
)
from lift_jax.data.suites import Suite, SuitePrompt
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from tests.comparison import sets

pytestmark = pytest.mark.fast


class ReadTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def test_clips(self):
    folder = sets.write_model(
      self.folder / 'x', num_clips=2, texts={'a': 'an A'}
    )
    found = read_clips('X', folder)
    self.assertEqual(
      list(found.clips), [('a', 0), ('a', 1), ('b', 0), ('b', 1)]
    )
    clip = found.clips['a', 1]
    self.assertEqual((clip.prompt, clip.video), ('an A', 'videos/a-1.mp4'))
    self.assertTrue(clip.path.is_file())
    self.assertEqual(clip.settings, {'model': 'x'})
    self.assertIs(clip.settings, found.clips['b', 1].settings)
    self.assertEqual((found.doubles, found.unlisted), ((), ()))

  @parameterized.parameters('', '{"files": {"a.mp4": 1}}\n')
  def test_refused(self, text):
    (self.folder / 'manifest.jsonl').write_text(text)
    with self.assertRaisesRegex(UserError, 'give the workdir of lift sample'):
      read_clips('X', self.folder)


class CheckTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def suite(self, counts, name='mine'):
    return Suite(
      name, tuple(SuitePrompt(key, key, count) for key, count in counts.items())
    )

  def faults(self, folder, suite):
    found = read_clips('X', folder)
    infos = probe_clips(found.clips.values())
    return {
      fault.kind: (fault.clips, fault.detail)
      for fault in (
        *check_listed(found, suite),
        *check_opened(found, suite, infos),
      )
    }

  def test_complete(self):
    folder = sets.write_model(self.folder / 'x', num_clips=2)
    self.assertEqual(self.faults(folder, self.suite({'a': 2, 'b': 2})), {})

  def test_missing_and_extra(self):
    folder = sets.write_model(self.folder / 'x', num_clips=2)
    found = self.faults(folder, self.suite({'a': 3, 'c': 1, 'b': 1}))
    self.assertEqual(
      found,
      {
        'missing': (('a-2', 'c-0'), ''),
        'extra': (('b-1',), ''),
      },
    )

  def test_double_and_unlisted(self):
    folder = sets.write_model(self.folder / 'x')
    manifest = folder / 'manifest.jsonl'
    first = json.loads(manifest.read_text().splitlines()[0])
    first['files'] = {'videos/other.mp4': ''}
    with manifest.open('a') as file:
      file.write(json.dumps(first) + '\n')
    for name in ('other', 'stray'):
      write_mp4(folder / 'videos' / f'{name}.mp4', sets.noise())
    found = self.faults(folder, self.suite({'a': 1, 'b': 1}))
    self.assertEqual(found['double'][0], ('videos/other.mp4',))
    self.assertEqual(found['not in the manifest'][0], ('videos/stray.mp4',))

  def test_without_a_file(self):
    """Found from the folder alone; other folders than `videos` are possible."""
    folder = sets.write_model(self.folder / 'x', 'abc')
    (folder / 'videos' / 'b-0.mp4').unlink()
    (folder / 'videos' / 'c-0.mp4').rename(folder / 'c-0.mp4')
    manifest = folder / 'manifest.jsonl'
    manifest.write_text(manifest.read_text().replace('videos/c', 'c'))
    found = check_listed(
      read_clips('X', folder), self.suite(dict.fromkeys('abc', 1))
    )
    self.assertEqual(
      list(map(str, found)),
      ['1 without a file (videos/b-0.mp4): run lift sample again'],
    )

  def test_pictures(self):
    shapes = {'b': (4, 32), 'c': (5, 16), 'd': (4, 16), 'e': (4, 16)}
    folder = sets.write_model(
      self.folder / 'x',
      'abcdefg',
      frames=lambda name, _: sets.noise(*shapes.get(name, (4, 16))),
    )
    write_mp4(folder / 'videos' / 'd-0.mp4', sets.noise(), fps=12)
    cut = folder / 'videos' / 'e-0.mp4'
    cut.write_bytes(cut.read_bytes()[:-300])
    found = self.faults(folder, self.suite(dict.fromkeys('abcdefg', 1)))
    self.assertEqual(
      found,
      {
        'cut or damaged': (('videos/e-0.mp4',), ''),
        'of another size': (('videos/b-0.mp4',), 'not 16x16'),
        'of another number of frames': (('videos/c-0.mp4',), 'not 4'),
        'of another rate': (('videos/d-0.mp4',), 'not 8 fps'),
      },
    )

  def test_settings(self):
    """Clips of another checkpoint or sampler than the rest."""
    folder = sets.write_model(self.folder / 'x', 'abc')
    manifest = folder / 'manifest.jsonl'
    lines = manifest.read_text().splitlines()
    lines[2] = lines[2].replace('"model": "x"', '"model": "y"')
    manifest.write_text('\n'.join(lines) + '\n')
    found = self.faults(folder, self.suite(dict.fromkeys('abc', 1)))
    self.assertEqual(
      found, {'with another model': (('videos/c-0.mp4',), "'y' instead of 'x'")}
    )

  def test_text(self):
    folder = sets.write_model(self.folder / 'x', texts={'a': 'something else'})
    found = self.faults(folder, self.suite({'a': 1, 'b': 1}))
    self.assertEqual(list(found), ['from another text'])

  @parameterized.parameters(
    ('vbench', 39, None),
    ('vbench', 40, 'of 5 s or more'),
    ('vbench_long', 40, None),
    ('vbench_long', 39, 'below 5 s'),
    ('mine', 40, None),
  )
  def test_length(self, suite, num_frames, kind):
    folder = sets.write_model(
      self.folder / 'x', 'a', frames=lambda *_: sets.noise(num_frames)
    )
    found = self.faults(folder, self.suite({'a': 1}, suite))
    self.assertEqual(list(found), [kind] if kind else [])

  def test_name(self):
    """VBench finds a clip by the name of its file."""
    folder = sets.write_model(self.folder / 'x', 'a')
    (folder / 'videos' / 'a-0.mp4').rename(folder / 'videos' / 'id-0.mp4')
    manifest = folder / 'manifest.jsonl'
    manifest.write_text(manifest.read_text().replace('a-0.mp4', 'id-0.mp4'))
    found = self.faults(folder, self.suite({'a': 1}, 'vbench'))
    self.assertEqual(list(found), ['that VBench does not find'])
    self.assertEqual(self.faults(folder, self.suite({'a': 1})), {})

  def test_words(self):
    fault = clip_sets.Fault('of another size', tuple('abcde'), 'not 2x2')
    self.assertEqual(
      str(fault), '5 of another size (a, b, c and 2 more): not 2x2'
    )


class PairedTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def read(self, name, **settings):
    return read_clips(name, sets.write_model(self.folder / name, **settings))

  def test_same(self):
    base, other = self.read('base'), self.read('other')
    check_same_prompts([base, other])
    self.assertEqual(share_of_same_noise(base, other), 1)

  def test_other_noise(self):
    base, other = self.read('base'), self.read('other', seed=1)
    check_same_prompts([base, other])
    self.assertEqual(share_of_same_noise(base, other), 0)

  def test_other_prompts(self):
    with self.assertRaisesRegex(UserError, "different prompts, such as 'c'"):
      check_same_prompts([self.read('base'), self.read('other', names='abc')])

  def test_other_texts(self):
    with self.assertRaisesRegex(UserError, "'b' were generated from different"):
      check_same_prompts(
        [self.read('base'), self.read('other', texts={'b': 'B'})]
      )
