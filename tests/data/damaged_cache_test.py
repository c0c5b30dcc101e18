"""Damage of a cache: found by its reader, and made good by `lift prepare`."""

import collections
from collections.abc import Callable
import dataclasses
import json
import logging
import os
import pathlib
import shutil
from unittest import mock

from absl.testing import parameterized
from array_record.python.array_record_module import (
  ArrayRecordReader,
  ArrayRecordWriter,
)
import jax
import numpy as np
import pytest

from lift_jax.data import cache as cache_lib
from lift_jax.data import pipeline, prepare
from lift_jax.data.clip_flags import ClipRules
from lift_jax.data.records import read_alignment
from lift_jax.errors import UserError
from tests import doc_tables
from tests.data import clips
from tests.data.encoders import Encoder

_LOGGER = logging.getLogger('damaged_cache_test')
_COUNT = 5
_CONFIG = prepare.PrepareConfig(
  # Two shards, of three clips and of two.
  batch_per_device=1, records_per_shard=3, num_threads=2,
  compute_dtype='float32', keep_dtype='float32', tiling=True,
)  # fmt: skip


class _SlotEncoder(Encoder):
  """Its results depend on the slot, as those of a real one may in last bits."""

  def videos(self, frames_bthw3):
    mean, logvar = super().videos(frames_bthw3)
    return mean + np.arange(len(mean))[:, None, None, None, None], logvar


class Cache:
  """A cache of five clips in two shards.

  Attributes:
    folder: the cache.
    root: of the clips.
    records: all of them.
  """

  def __init__(self, folder: pathlib.Path, root: pathlib.Path):
    self.folder, self.root = folder, root
    self.records = read_alignment(root, ['a.json'], require_files=False).records

  def open(self) -> cache_lib.LatentCache:
    return cache_lib.LatentCache(self.folder, {})

  def prepare(self, verify: bool = False) -> tuple[int, int]:
    """What `lift prepare` does.

    Args:
      verify: see `PrepareConfig`.

    Returns:
      How many clips, and empty captions, it has encoded.
    """
    data = prepare.DataConfig(
      root=str(self.root), synthetic=('a.json',), real=(),
      on_bad_record='error', cache='', sizes=((16, 32),), max_frames=5,
      fps=None, resize='crop', follow_links='hub',
    )  # fmt: skip
    cache = self.open()
    config = dataclasses.replace(_CONFIG, verify=verify)
    prepare.drop_damaged(cache, config, _LOGGER)
    kept, had_null_text = cache.finished(), cache.null_text_path.exists()
    if prepare.missing_from(cache, self.records, data):
      prepare.run(cache, self.records, _SlotEncoder, data, _CONFIG, _LOGGER)
    return len(cache.finished()) - len(kept), int(not had_null_text)

  def read(self) -> dict[str, bytes]:
    """What `lift align` reads: the caption of each clip and its tensors."""
    cache = self.open()
    iterator = pipeline.make_iterator(
      cache,
      [(s,) for s in pipeline.join(cache, self.records, ClipRules())],
      collections.defaultdict(lambda: 1),
      jax.sharding.SingleDeviceSharding(jax.devices()[0]),
      seed=0,
      num_threads=2,
    )
    batches = [next(iterator) for _ in range(_COUNT)]
    found = {
      str(batch['reward'][0]): b''.join(
        batch[name].tobytes() for name in ('mean', 'logvar', 'text')
      )
      for batch in batches
    }
    return found | {'': cache.null_text().tobytes()}

  def shard(self, number_of_clips: int = 3) -> pathlib.Path:
    """The shard of so many clips."""
    (path,) = (
      path.with_suffix('.array_record')
      for path in (self.folder / 'shards').glob('*.json')
      if len(json.loads(path.read_text())['records']) == number_of_clips
    )
    return path


@pytest.fixture(scope='module')
def intact(tmp_path_factory) -> Cache:
  root = tmp_path_factory.mktemp('root')
  items = []
  for index in range(_COUNT):
    name = f'{index}.mp4'
    clips.write_clip(root / name, 5, 16, 32, seed=index)
    score = (index + 1) / 8
    items.append({'video': name, 'caption': f'clip {index}', 'score': score})
  (root / 'a.json').write_text(json.dumps(items))
  cache = Cache(root / 'cache', root)
  cache.prepare()
  return cache


def _edit(path: pathlib.Path, change: Callable[[bytearray], None]) -> None:
  content = bytearray(path.read_bytes())
  change(content)
  path.write_bytes(content)


def _cut(path: pathlib.Path) -> None:
  _edit(path, lambda content: content.__delitem__(slice(-100, None)))


def _flip(path: pathlib.Path, offset: int) -> None:
  def change(content):
    content[offset] ^= 1

  _edit(path, change)


def _zero(path: pathlib.Path, start: int, stop: int | None) -> None:
  def change(content):
    content[start:stop] = bytes(len(content[start:stop]))

  _edit(path, change)


def _damaged(path: pathlib.Path) -> list[int]:
  """Positions of a shard that ArrayRecord cannot read."""
  reader = ArrayRecordReader(str(path))
  found = []
  for position in range(reader.num_records()):
    try:
      reader.read([position])
    except RuntimeError:
      found.append(position)
  reader.close()
  return found


def _offset_of(path: pathlib.Path, position: int) -> int:
  """An offset in a record of a shard; records are compressed."""
  for offset in range(100, 2**15, 20):
    _flip(path, offset)
    damaged = _damaged(path)
    _flip(path, offset)
    if damaged == [position]:
      return offset
  raise AssertionError(path)


def _zero_two(path: pathlib.Path) -> None:
  """Zeros from within the second record into the third."""
  _zero(path, _offset_of(path, 1), _offset_of(path, 2) + 8)


def _swap_records(path: pathlib.Path) -> None:
  """A whole shard, but with its records in another order."""
  reader = ArrayRecordReader(str(path))
  records = [reader.read([position])[0] for position in range(3)]
  reader.close()
  writer = ArrayRecordWriter(str(path), 'group_size:1')
  for record in records[::-1]:
    writer.write(record)
  writer.close()


def _replace(path: pathlib.Path, old: str, new: str) -> None:
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))


def _list(cache: Cache) -> pathlib.Path:
  return cache.shard().with_suffix('.json')


def _index(cache: Cache) -> pathlib.Path:
  return cache.folder / 'index.json'


def _null_text(cache: Cache) -> pathlib.Path:
  return cache.folder / 'null_text.array_record'


_DIGIT = '"position": 1', '"position": 2'

# Each input: how a cache comes to be like that; words of the error of a reader,
# or none if it reads what it should; and how many clips, and empty captions,
# `lift prepare` encodes again.
_CASES = {
  'an intact cache': (lambda cache: None, (), (0, 0)),
  'a shard with a byte changed between its records': (
    lambda cache: _flip(cache.shard(), -10), (), (0, 0)
  ),
  'a shard with a byte changed in a record': (
    lambda cache: _flip(cache.shard(), _offset_of(cache.shard(), 1)),
    ('record 1 (1.mp4) is damaged', 'hash mismatch'),
    (1, 0),
  ),
  'a shard with zeros from one record to the next': (
    lambda cache: _zero_two(cache.shard()),
    ('is damaged', 'hash mismatch'),
    (2, 0),
  ),
  'a shard with its records in another order': (
    lambda cache: _swap_records(cache.shard()),
    ('is damaged', 'its checksum is another one'),
    (2, 0),
  ),
  'a shard that is cut': (
    lambda cache: _cut(cache.shard()), ('is damaged',), (3, 0)
  ),
  'a shard of zeros': (
    lambda cache: _zero(cache.shard(), 0, None),
    ('is damaged', 'hash mismatch'),
    (3, 0),
  ),
  'an empty shard': (
    lambda cache: cache.shard().write_bytes(b''),
    ('is damaged', 'should be at least 64KB'),
    (3, 0),
  ),
  'a shard that is missing': (
    lambda cache: cache.shard().unlink(),
    ('is damaged', 'No such file'),
    (3, 0),
  ),
  'a list of a shard that is cut': (
    lambda cache: _cut(_list(cache)), (), (3, 0)
  ),
  'a list of a shard with a character changed': (
    lambda cache: _replace(_list(cache), *_DIGIT), (), (3, 0)
  ),
  'an index that is cut': (
    lambda cache: _cut(_index(cache)), ('index.json: not readable',), (0, 0)
  ),
  'an index with a character changed': (
    lambda cache: _replace(_index(cache), *_DIGIT),
    ('index.json: not readable', 'its checksum is another one'),
    (0, 0),
  ),
  'an empty caption that is missing': (
    lambda cache: _null_text(cache).unlink(),
    ('null_text.array_record is damaged', 'No such file'),
    (0, 1),
  ),
  'an empty caption with a byte changed': (
    lambda cache: _flip(_null_text(cache), _offset_of(_null_text(cache), 0)),
    ('null_text.array_record is damaged', 'hash mismatch'),
    (0, 1),
  ),
}  # fmt: skip


class _DamageTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _copy(self, intact, tmp_path):
    self.intact = intact
    root = tmp_path / 'root'
    shutil.copytree(intact.root, root)
    self.cache = Cache(root / 'cache', root)


class DamageTest(_DamageTest):
  def test_documented(self):
    rows = doc_tables.rows('inputs.md', 'Prepared caches')
    self.assertEqual(rows.keys(), _CASES.keys())
    for name, result in rows.items():
      verb = 'refused' if _CASES[name][1] else 'read'
      self.assertStartsWith(result, verb, name)

  @parameterized.parameters(*_CASES)
  def test_damage(self, name):
    """Readers refuse it; `lift prepare` makes it again, and nothing else."""
    damage, words, encoded_again = _CASES[name]
    damage(self.cache)
    if words:
      with self.assertRaises(UserError) as caught:
        self.cache.read()
      message = str(caught.exception)
      for word in (*words, str(self.cache.folder), 'run lift prepare with the'):
        self.assertIn(word, message)
      self.assertNotIn('\n', message)
    else:
      self.assertEqual(self.cache.read(), self.intact.read())
    self.assertEqual(self.cache.prepare(), encoded_again)
    self.assertEqual(self.cache.read(), self.intact.read())
    self.assertEqual(self.cache.prepare(), (0, 0))

  def test_log(self):
    """`lift prepare` says what it makes again."""
    path = self.cache.shard()
    _flip(path, _offset_of(path, 1))
    with self.assertLogs(_LOGGER, 'WARNING') as logs:
      self.cache.prepare()
    (line,) = logs.output
    self.assertRegex(line, rf'{path}: record 1 \(1.mp4\) is .*: made again$')


class UnchangedTest(_DamageTest):
  """Shards of the same size and time of change are not read."""

  def test_looks_unchanged(self):
    path = self.cache.shard()
    times = path.stat()
    _flip(path, _offset_of(path, 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    self.assertEqual(self.cache.prepare(), (0, 0))
    self.assertEqual(self.cache.prepare(verify=True), (1, 0))
    self.assertEqual(self.cache.read(), self.intact.read())

  @parameterized.parameters('copied', 'older')
  def test_read_once(self, kind):
    """Not again and again after a copy, nor after an older version."""
    if kind == 'copied':
      for path in (self.cache.folder / 'shards').glob('*.array_record'):
        path.touch()
    else:
      for path in (self.cache.folder / 'shards').glob('*.json'):
        content = json.loads(path.read_text())
        del content['signature']
        path.write_text(json.dumps(content))
    read, read_record = [], cache_lib.LatentCache.read_record

    def count(cache, entry, *args):
      if cache.folder == self.cache.folder:  # threads of other tests read, too
        read.append(entry.video)
      return read_record(cache, entry, *args)

    with mock.patch.object(cache_lib.LatentCache, 'read_record', count):
      self.assertEqual(self.cache.prepare(), (0, 0))
      self.assertCountEqual(read, [f'{number}.mp4' for number in range(_COUNT)])
      self.assertEqual(self.cache.prepare(), (0, 0))
      self.assertLen(read, _COUNT)


class WithoutVideosTest(_DamageTest):
  """A damaged clip needs its video, and the others of its shard do not."""

  def test_kept(self):
    path = self.cache.shard()
    _flip(path, _offset_of(path, 1))
    videos = {name: self.cache.root / f'{name}.mp4' for name in range(_COUNT)}
    gone = videos[1].read_bytes()
    for video in videos.values():
      video.unlink()
    with self.assertRaisesRegex(
      UserError, r'record 1 \(1.mp4\): no such video'
    ):
      self.cache.prepare()
    videos[1].write_bytes(gone)
    self.assertEqual(self.cache.prepare(), (1, 0))
    self.assertEqual(self.cache.read(), self.intact.read())
