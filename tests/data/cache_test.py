"""Caches on disk, below the level of any network."""

import json
import os
import pathlib

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data import cache as cache_lib
from lift_jax.data.records import AlignmentRecord
from lift_jax.errors import UserError
from lift_jax.runtime import storage
from lift_jax.runtime.files import file_sha256

pytestmark = pytest.mark.fast


def record(
  root: pathlib.Path, name: str, caption: str = 'a'
) -> AlignmentRecord:
  return AlignmentRecord(
    name, root / name, caption, 0.5, False, 'a.json', 'record 0'
  )


class _CacheTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path / 'cache'
    self.root = tmp_path

  def open(self, **changes) -> cache_lib.LatentCache:
    return cache_lib.LatentCache(
      self.folder, {'vae': 'a', 'sizes': [[1, 2]]} | changes
    )

  def items(self, *names):
    return [
      cache_lib.EncodedClip(
        record(self.root, n),
        n.encode(),
        (1, 2),
        'sum',
        (1, 8, 8),
        ('HDR: PQ',),
        0.5,
      )
      for n in names
    ]


class CacheTest(_CacheTest):
  def test_empty(self):
    cache = self.open()
    self.assertEqual((cache.entries(), cache.finished()), ({}, {}))
    self.assertEqual(cache.skipped(), {})
    self.assertFalse(self.folder.exists())

  def test_round_trip(self):
    cache = self.open()
    cache.start()
    cache.write_shard((1, 2, 3), self.items('a', 'b'))
    self.assertEqual(cache.entries(), {})  # before the index is written
    cache.write_index()
    entries = self.open().entries()
    self.assertEqual(entries, cache.finished())
    key = cache_lib.record_key(record(self.root, 'b'))
    entry = entries[key]
    self.assertEqual((entry.video, entry.position), ('b', 1))
    self.assertEqual((entry.bucket, entry.video_stamp), ((1, 2, 3), (1, 2)))
    self.assertEqual(entry.flags, ('HDR: PQ',))

  def test_key_is_of_video_and_caption_alone(self):
    keys = {
      cache_lib.record_key(item)
      for item in (
        record(self.root, 'a'),
        record(self.root / 'elsewhere', 'a'),
        record(self.root, 'a', 'b'),
        record(self.root, 'b'),
      )
    }
    self.assertLen(keys, 3)

  def test_half_written(self):
    """A shard counts from the moment its list is there."""
    cache = self.open()
    cache.start()
    cache.write_shard((1, 2, 3), self.items('a'))
    cache.write_shard((1, 2, 3), self.items('b'))
    shards = self.folder / 'shards'
    orphan = cache.finished()[
      cache_lib.record_key(record(self.root, 'b'))
    ].shard
    (shards / f'{orphan}.json').unlink()
    (shards / '.x.json.partial').write_text('{')
    (shards / '.x.array_record.partial').write_text('')
    cache.start()
    self.assertLen(cache.finished(), 1)
    self.assertLen(list(shards.iterdir()), 2)

  def test_same_record_twice(self):
    cache = self.open()
    cache.start()
    cache.write_shard((1, 2, 3), self.items('a', 'b'))
    cache.write_shard((1, 2, 3), self.items('b', 'a'))
    with self.assertRaisesRegex(UserError, 'is also in .*; delete this shard'):
      cache.write_index()

  def test_skipped(self):
    cache = self.open()
    cache.start()
    one = cache_lib.Skipped('a.json record 0: bad', (1, 2), ())
    two = cache_lib.Skipped('a.json record 1: HDR', None, ('HDR: PQ',))
    cache.write_skipped(0, {'one': one})
    cache.write_skipped(3, {'two': two})
    cache.write_skipped(4, {})
    self.assertEqual(self.open().skipped(), {'one': one, 'two': two})
    (self.folder / 'skipped-00003.json').write_text('{"two"')
    self.assertEqual(cache.skipped(), {'one': one})
    cache.clear_skipped()
    self.assertEqual(cache.skipped(), {})

  def test_null_text(self):
    cache = self.open()
    cache.start()
    text = np.arange(6, dtype=np.float32).reshape(2, 3)
    cache.write_null_text(text)
    np.testing.assert_array_equal(self.open().null_text(), text)


class RefuseTest(_CacheTest):
  @parameterized.parameters(
    ({'vae': 'b'}, "vae was 'a' and is now 'b'"),
    ({'sizes': [[2, 1]]}, r'sizes was \[\[1, 2\]\] and is now \[\[2, 1\]\]'),
    ({'new': 1}, 'new was missing and is now 1'),
  )
  def test_stale(self, changes, message):
    self.open().start()
    with self.assertRaisesRegex(
      UserError, f'is stale: {message}; .*data.cache'
    ):
      self.open(**changes)

  def test_format(self):
    self.open().start()
    path = self.folder / 'made_by.json'
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    with self.assertRaisesRegex(UserError, 'format was 1 and is now 2'):
      self.open()

  @parameterized.parameters('', '{', '[]', '{}', '{"made_by": 3}')
  def test_torn_note(self, text):
    self.open().start()
    (self.folder / 'made_by.json').write_text(text)
    with self.assertRaisesRegex(UserError, 'made_by.json: not readable'):
      self.open()

  @parameterized.parameters('', '{', '[]', '{}', '{"records": [{"key": "a"}]}')
  def test_torn_index(self, text):
    self.open().start()
    (self.folder / 'index.json').write_text(text)
    with self.assertRaisesRegex(
      UserError, 'index.json: not readable as a list'
    ):
      self.open().entries()

  def test_index_of_another_cache(self):
    cache = self.open()
    cache.start()
    cache.write_index()
    path = self.folder / 'index.json'
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {'hash': 'x'}))
    with self.assertRaisesRegex(UserError, 'was made with other settings'):
      self.open().entries()

  def test_file(self):
    self.folder.write_text('')
    with self.assertRaisesRegex(UserError, 'is a file; give a folder'):
      self.open()


class UnchangedTest(_CacheTest):
  def setUp(self):
    super().setUp()
    self.video = self.root / 'a'
    self.video.write_bytes(b'abc')
    self.record = record(self.root, 'a')
    self.cache = self.open()
    self.entry = cache_lib.CacheEntry(
      'key', 'a', (1, 2, 3), 'shard', 0, 0,
      storage.file_signature(self.video), file_sha256(self.video), (1, 8, 8),
      (), 0.5,
    )  # fmt: skip

  def check(self):
    cache_lib.check_unchanged(self.cache, self.record, self.entry)

  def test_same(self):
    self.check()
    os.utime(self.video, (1, 1))  # as after a copy
    self.check()
    self.video.unlink()
    self.check()

  @parameterized.parameters(b'abcd', b'abd', b'')
  def test_changed(self, content):
    self.video.write_bytes(content)
    os.utime(self.video, (1, 1))
    with self.assertRaisesRegex(UserError, r'a.json record 0 \(a\): the video'):
      self.check()


class PackTest(parameterized.TestCase):
  @parameterized.parameters('float32', 'bfloat16')
  def test_round_trip(self, dtype):
    import ml_dtypes  # knows bfloat16 by name

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    rng = np.random.default_rng(0)
    arrays = {
      'mean': rng.normal(size=(2, 3, 4, 16)).astype(kind),
      'logvar': rng.normal(size=(2, 3, 4, 16)).astype(kind),
      'text': rng.normal(size=(5, 7)).astype(kind),
    }
    back = cache_lib.unpack(cache_lib.pack(**arrays))
    self.assertEqual(back.keys(), arrays.keys())
    for name, array in arrays.items():
      self.assertEqual(back[name].dtype, kind)
      np.testing.assert_array_equal(back[name], array)
