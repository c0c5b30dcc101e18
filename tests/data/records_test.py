"""Alignment files: reading and error messages."""

import json
import os
import pathlib

from absl.testing import parameterized
import pytest

from lift_jax.data import records
from lift_jax.errors import UserError

pytestmark = pytest.mark.fast


def _item(video='videos/a.mp4', caption='a crane', **rest):
  return {'video': video, 'caption': caption, 'score': 0.5} | rest


class _RootTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _root(self, tmp_path):
    self.root = tmp_path / 'root'
    (self.root / 'videos').mkdir(parents=True)
    for name in 'abc':
      (self.root / 'videos' / f'{name}.mp4').write_bytes(b'x')

  def write(self, items, name='alignment.json'):
    text = items if isinstance(items, str) else json.dumps(items)
    (self.root / name).write_text(text, encoding='utf-8')

  def read(self, synthetic=('alignment.json',), real=(), **kwargs):
    return records.read_alignment(self.root, synthetic, real, **kwargs)

  def assert_error(self, *words, **kwargs):
    with self.assertRaises(UserError) as raised:
      self.read(**kwargs)
    message = str(raised.exception)
    self.assertLen(message.splitlines(), 1)
    for word in words:
      self.assertIn(word, message)


class ReadTest(_RootTest):
  def test_fields(self):
    self.write([_item(), _item('./videos//b.mp4', ' Ein Kranich ü ', score=1)])
    self.write([{'video': 'videos/c.mp4', 'caption': 'c'}], 'real.json')
    result = self.read(real=['real.json'])
    self.assertEqual(result.skipped, [])
    first, second, third = result.records
    self.assertEqual(
      first,
      records.AlignmentRecord(
        'videos/a.mp4',
        (self.root / 'videos/a.mp4').resolve(),
        'a crane',
        0.5,
        False,
        'alignment.json',
        'record 0',
      ),
    )
    self.assertEqual(first.where, 'alignment.json record 0 (videos/a.mp4)')
    self.assertEqual(second.video, 'videos/b.mp4')
    self.assertEqual(second.caption, ' Ein Kranich ü ')
    self.assertEqual((second.reward, second.place), (1.0, 'record 1'))
    self.assertIsInstance(second.reward, float)
    self.assertEqual(
      (third.reward, third.is_real, third.file, third.place),
      (1.0, True, 'real.json', 'record 0'),
    )

  @parameterized.parameters(0, 0.0, 0.05, 0.9, 1, 1.0)
  def test_score_kept(self, score):
    self.write([_item(score=score)])
    self.assertEqual(self.read().records[0].reward, score)

  def test_extra_keys(self):
    self.write([_item(labels={'motion issues': 'Good'}, note=None)])
    self.assertLen(self.read().records, 1)

  def test_same_video_other_caption(self):
    self.write([_item(), _item(caption='two cranes')])
    self.assertLen(self.read().records, 2)

  def test_real_score_one(self):
    self.write([_item(score=1.0)], 'real.json')
    self.assertEqual(self.read((), ['real.json']).records[0].reward, 1.0)

  def test_absolute_json_path(self):
    self.write([_item()])
    path = str(self.root / 'alignment.json')
    self.assertEqual(self.read([path]).records[0].file, path)

  def test_byte_order_mark(self):
    self.write('\ufeff' + json.dumps([_item()]))
    self.assertLen(self.read().records, 1)

  def test_without_files(self):
    self.write([_item('videos/gone.mp4')])
    (record,) = self.read(require_files=False).records
    self.assertEqual(record.path, (self.root / 'videos/gone.mp4').resolve())

  def test_root_by_relative_path(self):
    self.write([_item()])
    root = os.path.relpath(self.root)
    (record,) = records.read_alignment(root, ['alignment.json']).records
    self.assertTrue(record.path.is_absolute())

  def test_link_inside_root(self):
    (self.root / 'more').symlink_to('videos')
    self.write([_item('more/a.mp4')])
    (record,) = self.read().records
    self.assertEqual(record.video, 'more/a.mp4')
    self.assertEqual(record.path, (self.root / 'videos/a.mp4').resolve())


class BadFileTest(_RootTest):
  """Errors of a complete file, which cannot be skipped."""

  @parameterized.product(
    case=(
      # The published sample list has such a comma.
      ('[\n {"video": "a"},\n]', 'line 3 column 1', 'comma'),
      ('[{"video": "a" "caption": "b"}]', 'line 1 column 16', 'comma'),
      ('', 'line 1 column 1', 'invalid JSON'),
      ('{"video": "a"}', 'an object, not a list', 'write a list'),
      ('3', 'a number, not a list', 'write a list'),
      ('null', 'null, not a list', 'write a list'),
      ('[' * 100_000, 'invalid JSON', 'write a list'),
      ('[' + '9' * 5_000 + ']', 'invalid JSON', 'write a list'),
      ('[]', 'no usable record', 'list at least one'),
    ),
    on_bad_record=('error', 'skip'),
  )
  def test_content(self, case, on_bad_record):
    text, *words = case
    self.write(text)
    self.assert_error('alignment.json', *words, on_bad_record=on_bad_record)

  def test_not_utf8(self):
    (self.root / 'alignment.json').write_bytes(b'["\xff"]')
    self.assert_error('alignment.json', 'byte 2', 'save the file as UTF-8')

  def test_missing(self):
    self.assert_error('alignment.json', 'no such file', 'correct the file name')

  def test_missing_root(self):
    with self.assertRaisesRegex(UserError, 'nowhere: no such folder; set'):
      records.read_alignment(self.root / 'nowhere', ['alignment.json'])

  def test_no_file_named(self):
    self.assert_error('no alignment file', 'list one', synthetic=())

  def test_text_for_list(self):
    self.assert_error('alignment.json', 'list', synthetic='alignment.json')

  @parameterized.parameters('alignment.json', './videos/../alignment.json')
  def test_listed_twice(self, other):
    self.write([_item(score=1)])
    self.assert_error(other, 'listed twice', 'as real', real=[other])

  def test_unknown_policy(self):
    with self.assertRaisesRegex(ValueError, "'error', 'skip'"):
      self.read(on_bad_record='ignore')


_BAD_RECORDS = {
  'number': (3, 'a number, not an object', 'write'),
  'list': ([], 'a list, not an object', 'write'),
  'none': (None, 'null, not an object', 'write'),
  'no video': ({'caption': 'a', 'score': 1}, 'no "video"', 'add it'),
  'no caption': ({'video': 'videos/b.mp4', 'score': 1}, 'no "caption"', 'add'),
  'no score': (
    {'video': 'videos/b.mp4', 'caption': 'b'},
    'no "score"',
    'score the clip',
    'under real',
  ),
  'empty caption': (_item(caption=''), '"caption" is empty', 'fill'),
  'blank caption': (_item(caption=' \n\t'), '"caption" is empty', 'fill'),
  'null caption': (_item(caption=None), '"caption" is null', 'quotes'),
  'number caption': (_item(caption=3), '"caption" is a number', 'quotes'),
  'half caption': (_item(caption='a\ud800'), 'surrogate', 'write it again'),
  'empty video': (_item(''), '"video" is empty', 'fill'),
  'blank video': (_item('  '), '"video" is empty', 'fill'),
  'list video': (_item(['a']), '"video" is a list', 'quotes'),
  'text score': (_item(score='0.9'), '"score" is a string', 'without quotes'),
  'bool score': (_item(score=True), '"score" is true', 'write a number'),
  'null score': (_item(score=None), '"score" is null', 'write a number'),
  'nan score': (_item(score=float('nan')), '"score" is nan', 'between 0 and 1'),
  'infinite score': (_item(score=float('inf')), '"score" is inf', 'between'),
  'huge score': (_item(score=10**400), '"score" is inf', 'between 0 and 1'),
  'negative score': (_item(score=-0.01), '"score" is -0.01', 'between 0 and 1'),
  'large score': (_item(score=1.01), '"score" is 1.01', 'between 0 and 1'),
  'absolute': (_item('/etc/passwd'), 'an absolute path', 'below the data root'),
  'parent': (_item('videos/../../a.mp4'), '".."', 'below the data root'),
  'parent inside': (_item('videos/../videos/a.mp4'), '".."', 'below'),
  'backslash': (_item('videos\\b.mp4'), 'backslash', 'separate folders by "/"'),
  'nul': (_item('videos/a.mp4\0'), 'unprintable', 'give a path'),
  'newline': (_item('videos/\n.mp4'), 'unprintable', 'give a path'),
  'half': (_item('videos/\ud800.mp4'), 'unprintable', 'give a path'),
  'too long': (_item('v' * 5000), 'cannot be accessed', 'give a path'),
  'missing': (_item('videos/gone.mp4'), "'videos/gone.mp4'", 'put it there'),
  'folder': (_item('videos'), 'not a regular file', 'name an mp4 file'),
  'root': (_item('.'), 'not a regular file', 'name an mp4 file'),
  'file as folder': (_item('videos/a.mp4/b'), 'no video file', 'put it there'),
}


class BadRecordTest(_RootTest):
  @parameterized.named_parameters(
    (name.replace(' ', '_'), *case) for name, case in _BAD_RECORDS.items()
  )
  def test_fault(self, item, *words):
    self.write([_item(), item, _item('videos/b.mp4', 'last')])
    self.assert_error('alignment.json record 1', *words)
    result = self.read(on_bad_record='skip')
    self.assertEqual(
      [record.place for record in result.records], ['record 0', 'record 2']
    )
    ((where, reason),) = result.skipped
    self.assertStartsWith(where, 'alignment.json record 1')
    for word in words:
      self.assertIn(word, reason)

  def test_duplicate_key(self):
    self.write('[{"video": "videos/a.mp4", "caption": "x", "caption": "y"}]')
    self.assert_error(
      'alignment.json record 0', "duplicate key 'caption'", 'keep one'
    )

  def test_nan_literal(self):
    self.write('[{"video": "videos/a.mp4", "caption": "x", "score": NaN}]')
    self.assert_error('alignment.json record 0', '"score" is nan', 'between')

  @parameterized.parameters(
    (0.9, '"score" is 0.9', 'list the file under synthetic'),
    (0, '"score" is 0', 'list the file under synthetic'),
    (float('nan'), '"score" is nan', 'list the file under synthetic'),
    (10**400, '"score" is inf', 'list the file under synthetic'),
    ('1', '"score" is a string', 'without quotes'),
    (True, '"score" is true', 'write a number'),
  )
  def test_real_with_score(self, score, *words):
    self.write([_item(score=score)], 'real.json')
    self.assert_error(
      'real.json record 0', *words, synthetic=(), real=['real.json']
    )

  def test_link_out_of_root(self):
    outside = self.root.parent / 'outside'
    outside.mkdir()
    (outside / 'x.mp4').write_bytes(b'x')
    (self.root / 'videos' / 'link.mp4').symlink_to(outside / 'x.mp4')
    (self.root / 'folder').symlink_to(outside)
    for video in ('videos/link.mp4', 'folder/x.mp4'):
      self.write([_item(video)])
      for require_files in (True, False):
        self.assert_error(
          'alignment.json record 0',
          video,
          'link to outside the data root',
          'put the clip itself',
          require_files=require_files,
        )

  def test_link_to_sibling_with_same_prefix(self):
    sibling = pathlib.Path(f'{self.root}_2')
    sibling.mkdir()
    (sibling / 'x.mp4').write_bytes(b'x')
    (self.root / 'x.mp4').symlink_to(sibling / 'x.mp4')
    self.write([_item('x.mp4')])
    self.assert_error('record 0', 'link to outside the data root')

  def test_link_to_itself(self):
    (self.root / 'loop.mp4').symlink_to('loop.mp4')
    self.write([_item('loop.mp4')])
    self.assert_error('alignment.json record 0', 'cannot be accessed', 'give')

  def test_pipe(self):
    os.mkfifo(self.root / 'pipe.mp4')
    self.write([_item('pipe.mp4')])
    self.assert_error('alignment.json record 0', 'not a regular file')

  def test_duplicate_in_one_file(self):
    self.write([_item(), _item('videos/b.mp4'), _item(score=0.1)])
    self.assert_error(
      'alignment.json record 2',
      'alignment.json record 0 (videos/a.mp4)',
      'delete one',
    )
    result = self.read(on_bad_record='skip')
    self.assertEqual([record.reward for record in result.records], [0.5, 0.5])
    self.assertLen(result.skipped, 1)

  def test_duplicate_over_files(self):
    self.write([_item('videos/b.mp4'), _item()])
    self.write([{'video': './videos/a.mp4', 'caption': 'a crane'}], 'real.json')
    self.assert_error(
      'real.json record 0',
      'alignment.json record 1 (videos/a.mp4)',
      'delete one',
      real=['real.json'],
    )

  def test_all_skipped(self):
    self.write([_item(score=2), _item(score='x')])
    self.assert_error(
      'alignment.json: no usable record (2 skipped)',
      'record 0',
      '"score" is 2',
      on_bad_record='skip',
    )
