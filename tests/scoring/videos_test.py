"""Lists of videos in every form that they come in."""

import json
import pathlib

from absl.testing import parameterized
import pytest

from lift_jax.errors import UserError
from lift_jax.scoring.videos import key_of, read_videos
from tests.data import feedback

pytestmark = pytest.mark.fast


class _VideosTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path / 'data'
    (self.root / 'videos').mkdir(parents=True)
    for name in 'abcd':
      (self.root / 'videos' / f'{name}.mp4').write_bytes(b'')
    self.outside = tmp_path / 'outside.mp4'
    self.outside.write_bytes(b'')

  def write(self, items, name='test.json') -> pathlib.Path:
    path = self.root / name
    if not isinstance(items, str):
      rows = (json.dumps(item, ensure_ascii=False) for item in items)
      items = '\n'.join(rows) if name.endswith('l') else json.dumps(items)
    path.write_text(items, encoding='utf-8')
    return path

  def read(self, *files, on_bad_record='error', questions=()):
    return read_videos(self.root, files, on_bad_record, questions)

  def pairs(self, *files, **settings) -> list[tuple[str, str]]:
    records = self.read(*files, **settings).records
    return [(record.video, record.caption) for record in records]

  def assert_refused(self, words, *files, **settings):
    with self.assertRaises(UserError) as caught:
      self.read(*files, **settings)
    text = str(caught.exception)
    self.assertLen(text.splitlines(), 1)
    for word in words:
      self.assertIn(word, text)


def item(name, caption='A cat.', **more):
  return {'video': f'videos/{name}.mp4', 'caption': caption, **more}


def made(name, prompt='A cat.', **more):
  """A line of the manifest of `lift sample`."""
  files = {f'videos/{name}.mp4': '0f', f'latents/{name}.npy': '1e'}
  return {'files': files, 'id': '7', 'prompt': prompt, 'seed': 1, **more}


def rated(name, caption='A cat.'):
  """Ratings of a clip in the three dimensions."""
  return [
    feedback.entry(f'videos/{name}.mp4', caption, dimension, 'Good. Yes.')
    for dimension in feedback.QUESTIONS
  ]


class PairsTest(_VideosTest):
  def test_each_clip_once(self):
    """Of benchmarks and of our own pairs; a clip is in many of them."""
    table = (
      'path_A,path_B,prompt,Overall\n'
      'videos/a.mp4,videos/b.mp4,A cat.,A\n'
      'videos/b.mp4,videos/c.mp4,A cat.,same\n'
    )
    own = {
      'videos': ['videos/c.mp4', 'videos/d.mp4'],
      'caption': 'A cat.',
      'overall': 'first',
    }
    vote = {
      'left_video': 'https://x.org/videos/d.mp4',
      'right_video': 'https://x.org/videos/a.mp4',
      'prompt': 'A cat.',
      'vote_type': 'bothbad_vote',
    }
    self.write(table, 'bench.csv')
    self.write([own], 'own.json')
    self.write([vote], 'votes.jsonl')
    found = self.pairs('bench.csv', 'own.json', 'votes.jsonl')
    self.assertEqual(found, [(f'videos/{n}.mp4', 'A cat.') for n in 'abcd'])


class ReadTest(_VideosTest):
  def test_list(self):
    self.write([item('a', ' A cat.\n', score=0.3), item('b', '猫 "é"')])
    one, two = self.read('test.json').records
    self.assertEqual((one.video, one.caption), ('videos/a.mp4', 'A cat.'))
    self.assertEqual(one.path, (self.root / 'videos/a.mp4').resolve())
    self.assertEqual(two.caption, '猫 "é"')
    self.assertEqual(two.where, 'test.json record 1 (videos/b.mp4)')

  def test_absolute_file(self):
    path = self.write([item('a')])
    self.assertEqual(self.pairs(str(path)), [('videos/a.mp4', 'A cat.')])

  def test_one_record_a_line(self):
    """Texts may contain characters that some treat as line ends."""
    captions = ['one\u2028two', 'three\x85four', 'five\x0csix']
    items = map(item, 'abc', captions)
    path = self.write(list(items), 'test.jsonl')
    path.write_text('\n\n' + path.read_text() + '\n \n')
    self.assertEqual(
      self.pairs('test.jsonl'),
      [(f'videos/{n}.mp4', c) for n, c in zip('abc', captions, strict=True)],
    )

  def test_manifest(self):
    self.write([made('a', ' One. '), made('b', 'Two.')], 'manifest.jsonl')
    self.assertEqual(
      self.pairs('manifest.jsonl'),
      [('videos/a.mp4', 'One.'), ('videos/b.mp4', 'Two.')],
    )

  def test_conversations(self):
    """Each clip once, and its caption without the question."""
    captions = ['A cat on a mat.', 'Two dogs at sea.', 'It rains.']
    entries = sum(map(rated, 'abc', captions), [])
    self.write(entries, 'hra.json')
    expected = [
      (f'videos/{n}.mp4', c) for n, c in zip('abc', captions, strict=True)
    ]
    self.assertEqual(self.pairs('hra.json'), expected)
    self.assertEqual(self.read('hra.json').records[1].place, 'record 3')

  def test_few_conversations(self):
    """Too few to detect the question: known questions are removed first."""
    self.write(rated('a'), 'hra.json')
    self.assert_refused(['hra.json record 0', 'question'], 'hra.json')
    # What these have in common is more than the question.
    self.write(
      rated('a', 'One cat. On a mat.') + rated('b', 'Two cats. On a mat.'),
      'two.json',
    )
    known = tuple(feedback.QUESTIONS.values())
    self.assertEqual(
      self.pairs('hra.json', 'two.json', questions=known),
      [
        ('videos/a.mp4', 'A cat.'),
        ('videos/a.mp4', 'One cat. On a mat.'),
        ('videos/b.mp4', 'Two cats. On a mat.'),
      ],
    )

  def test_other_questions_than_known(self):
    entries = sum(map(rated, 'abc', ['A cat.', 'A dog.', 'Rain.']), [])
    self.write(entries, 'hra.json')
    self.assertEqual(
      [caption for _, caption in self.pairs('hra.json', questions=(' Why?',))],
      ['A cat.', 'A dog.', 'Rain.'],
    )

  def test_listed_again(self):
    """Once for each caption, in whichever file it comes first."""
    self.write(
      [item('a'), item('b'), item('a', 'Other.'), item('a', ' A cat. ')]
    )
    self.write([made('b'), made('c')], 'manifest.jsonl')
    found = self.read('test.json', 'manifest.jsonl').records
    self.assertEqual(
      [(video.video, video.caption, video.file) for video in found],
      [
        ('videos/a.mp4', 'A cat.', 'test.json'),
        ('videos/b.mp4', 'A cat.', 'test.json'),
        ('videos/a.mp4', 'Other.', 'test.json'),
        ('videos/c.mp4', 'A cat.', 'manifest.jsonl'),
      ],
    )
    self.assertLen({video.key for video in found}, 4)

  def test_one_clip_by_two_ways_of_writing(self):
    other = item('a') | {'video': './videos//a.mp4'}
    self.write([item('a'), other])
    self.assertLen(self.read('test.json').records, 1)

  def test_keys(self):
    """They are stored in journals, which later versions resume."""
    self.assertEqual(key_of('videos/a.mp4', 'A cat.'), KEY)
    keys = {key_of('a', 'b c'), key_of('a b', 'c'), key_of('b c', 'a')}
    self.assertLen(keys, 3)


# From Python's own json and hashlib, by hand.
KEY = '9642bf4d0cfae347'


class RefuseTest(_VideosTest):
  @parameterized.parameters(
    (['a'], 'a string, not an object'),
    ([[]], 'a list, not an object'),
    ([{'video': 'videos/a.mp4'}], 'no "caption"'),
    ([{'caption': 'A cat.'}], 'no "video"'),
    ([item('a', '  ')], '"caption" is empty'),
    ([item('a', 7)], '"caption" is a number'),
    ([item('a', '\ud800')], 'surrogate'),
    ([item('x')], "no video file 'videos/x.mp4'"),
    ([item('a') | {'video': '../outside.mp4'}], 'contains ".."'),
    ([item('a') | {'video': '/etc/passwd'}], 'absolute path'),
    ([item('a') | {'video': 'videos'}], 'not a regular file'),
    ([made('a', files=None)], '"files" must name one'),
    ([made('a', files=7)], '"files" must name one'),
    ([made('a', files=['videos/a.mp4'])], '"files" must name one'),
    ([made('a', files={'latents/a.npy': '0'})], '"files" must name one'),
    (
      [made('a', files={'a.mp4': '0', 'b.mp4': '1'})],
      '"files" must name one',
    ),
    ([made('a', '')], '"prompt" is empty'),
    ([item('a') | {'conversations': 7}], '"conversations" is a number'),
    ([item('a') | {'conversations': [7]}], 'a number, not an object'),
    ([item('a') | {'conversations': []}], 'no human turn'),
  )
  def test_record(self, items, words):
    self.write([item('b'), *items])
    self.assert_refused(['test.json record 1', words], 'test.json')
    found = self.read('test.json', on_bad_record='skip')
    self.assertLen(found.records, 1)
    ((where, reason),) = found.skipped
    self.assertEqual(where, 'test.json record 1')
    self.assertIn(words, reason)

  def test_link_out_of_the_root(self):
    (self.root / 'videos' / 'x.mp4').symlink_to(self.outside)
    self.write([item('x')])
    self.assert_refused(
      ['record 0', 'link to outside the data root'], 'test.json'
    )

  @parameterized.parameters(
    ('test.json', '{', 'line 1 column 2'),
    ('test.json', '{"video": "a"}', 'an object, not a list'),
    ('test.json', '', 'invalid JSON'),
    ('test.json', '[]', 'no usable record'),
    ('test.jsonl', '\n', 'no usable record'),
    ('test.jsonl', '{}\n\n{"video": }', 'line 3 column 11'),
  )
  def test_file(self, name, text, words):
    self.write(text, name)
    for on_bad_record in ('error', 'skip'):
      self.assert_refused([name, words], name, on_bad_record=on_bad_record)

  def test_duplicate_key(self):
    self.write('[{"video": "videos/a.mp4", "caption": "a", "caption": "b"}]')
    self.assert_refused(["duplicate key 'caption'"], 'test.json')

  def test_nothing_usable(self):
    self.write([item('x'), item('y')])
    self.assert_refused(
      ['test.json: no usable record (2 skipped)', "'videos/x.mp4'"],
      'test.json',
      on_bad_record='skip',
    )

  def test_names(self):
    self.write([item('a')])
    self.assert_refused(['videos.files is empty'])
    self.assert_refused(['gone.json', 'no such file'], 'gone.json')
    self.assert_refused(['listed twice'], 'test.json', './test.json')
    self.root = self.root / 'gone'
    self.assert_refused(['gone', 'no such folder'], 'test.json')
