"""Encoding: of which clips, on which host, how often; with a fake encoder."""

import json
import logging
import os
import pathlib
import signal
from unittest import mock

from absl.testing import parameterized
import jax
import numpy as np
import pytest

from lift_jax.data import cache as cache_lib
from lift_jax.data import clip_paths, pipeline, prepare
from lift_jax.data.records import read_alignment
from lift_jax.errors import UserError
from lift_jax.runtime.shutdown import Stopped
from tests import threaded_hosts
from tests.data import clips
from tests.data.encoders import Encoder

_LOGGER = logging.getLogger('prepare_test')
_COUNT = 7


@pytest.fixture(scope='module')
def videos(tmp_path_factory) -> pathlib.Path:
  """Clips of two shapes that alternate, and one of another length."""
  root = tmp_path_factory.mktemp('root')
  items = []
  for index in range(_COUNT):
    height, width = ((16, 32), (32, 16))[index % 2]
    frames = 1 if index == 6 else 5
    name = f'{index}.mp4'
    clips.write_clip(root / name, frames, height, width, seed=index)
    items.append({'video': name, 'caption': f'c{index}', 'score': 0.5})
  (root / 'a.json').write_text(json.dumps(items))
  return root


class _PrepareTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, videos, tmp_path):
    self.root, self.folder = videos, tmp_path
    self.records = read_alignment(videos, ['a.json']).records
    # So many clips are in a batch.
    devices = mock.patch.object(jax, 'local_device_count', return_value=2)
    devices.start()
    self.addCleanup(devices.stop)

  def data(self, **changes) -> prepare.DataConfig:
    fields = {
      'root': str(self.root), 'synthetic': ('a.json',), 'real': (),
      'on_bad_record': 'error', 'follow_links': 'hub', 'cache': '',
      'sizes': ((16, 32), (32, 16)), 'max_frames': 5, 'fps': None,
      'resize': 'crop',
    }  # fmt: skip
    return prepare.DataConfig(**fields | changes)

  def cache(self, name='cache') -> cache_lib.LatentCache:
    return cache_lib.LatentCache(self.folder / name, {})

  def run_with(self, encoder, records=None, name='cache', **changes):
    config = prepare.PrepareConfig(1, 2, 2, 'float32', 'float32', True)
    prepare.run(
      self.cache(name), records or self.records, lambda: encoder,
      self.data(**changes), config, _LOGGER,
    )  # fmt: skip

  def bad_record(self, index):
    """The records, one of which has a file that is no video."""
    path = self.folder / 'bad.mp4'
    path.write_text('x')
    records = list(self.records)
    records[index] = read_alignment(
      self.write([{'video': 'bad.mp4', 'caption': 'bad', 'score': 0}]),
      ['b.json'],
    ).records[0]
    return records

  def write(self, items) -> pathlib.Path:
    (self.folder / 'b.json').write_text(json.dumps(items))
    return self.folder


class RunTest(_PrepareTest):
  def test_batches(self):
    """Full ones of one shape, and partial ones at the end."""
    encoder = Encoder()
    self.run_with(encoder)
    self.assertEqual(
      encoder.batches,
      [
        (2, 5, 16, 32, 3), (2, 5, 32, 16, 3),
        (1, 5, 16, 32, 3), (1, 5, 32, 16, 3), (1, 1, 16, 32, 3),
      ],
    )  # fmt: skip
    self.assertEqual(encoder.num_captions, _COUNT + 1)  # and the empty one
    cache = self.cache()
    self.assertLen(cache.entries(), _COUNT)
    np.testing.assert_array_equal(cache.null_text(), np.zeros((3, 4)))

  def test_again(self):
    self.run_with(Encoder())
    self.assertEqual(
      prepare.missing_from(self.cache(), self.records, self.data()), []
    )
    self.run_with(None)

  def test_after_a_fault(self):
    """Full shards stay, and only the rest is encoded."""
    with self.assertRaisesRegex(UserError, r'b.json record 0 \(bad.mp4\)'):
      self.run_with(Encoder(), self.bad_record(6))
    cache = self.cache()
    self.assertEqual(cache.entries(), {})
    self.assertLen(cache.finished(), 4)
    encoder = Encoder()
    self.run_with(encoder)
    self.assertEqual(sum(shape[0] for shape in encoder.batches), 3)
    self.assertLen(cache.entries(), _COUNT)

  @parameterized.parameters((1, 2, 1), (2, 4, 2), (5, _COUNT, 3))
  def test_sigterm(self, batch, num_kept, num_shards):
    """In a batch: it is kept, in shards of three that may not be full."""
    encoder = Encoder()

    def captions(texts):
      if len(encoder.batches) == batch:
        os.kill(os.getpid(), signal.SIGTERM)
      return Encoder.captions(encoder, texts)

    config = prepare.PrepareConfig(1, 3, 2, 'float32', 'float32', True)
    before = signal.getsignal(signal.SIGTERM)
    with (
      mock.patch.object(encoder, 'captions', captions),
      self.assertRaises(Stopped),
    ):
      prepare.run(
        self.cache(), self.records, lambda: encoder, self.data(), config,
        _LOGGER,
      )  # fmt: skip
    self.assertIs(signal.getsignal(signal.SIGTERM), before)
    cache = self.cache()
    self.assertLen(cache.finished(), num_kept)
    shards = {entry.shard for entry in cache.finished().values()}
    self.assertLen(shards, num_shards)
    self.assertEqual(cache.entries(), {})
    encoder = Encoder()
    self.run_with(encoder)
    self.assertEqual(
      sum(shape[0] for shape in encoder.batches), _COUNT - num_kept
    )
    self.assertLen(self.cache().entries(), _COUNT)

  def test_fault_before_the_encoder(self):
    def make_encoder():
      raise AssertionError('an encoder is made')

    config = prepare.PrepareConfig(1, 2, 2, 'float32', 'float32', True)
    with self.assertRaisesRegex(UserError, 'b.json record 0'):
      prepare.run(
        self.cache(), self.bad_record(1), make_encoder, self.data(), config,
        _LOGGER,
      )  # fmt: skip

  def test_video_is_gone(self):
    """That is seen before the first clip is decoded."""
    records = self.bad_record(6)
    records[6].path.unlink()
    with (
      mock.patch.object(prepare.video, 'decode', side_effect=AssertionError),
      self.assertRaisesRegex(UserError, 'b.json record 0 .*no such video'),
    ):
      self.run_with(Encoder(), records)

  def test_truncated_captions(self):
    items = [{'video': '0.mp4', 'caption': 'x' * 9, 'score': 1}]
    (self.root / 'long.json').write_text(json.dumps(items))
    records = read_alignment(self.root, ['long.json']).records
    with self.assertLogs(_LOGGER, 'WARNING') as logs:
      self.run_with(Encoder(), records)
    self.assertIn('1 captions are longer', logs.output[0])
    self.assertIn('long.json record 0 (0.mp4)', logs.output[0])


class SkipTest(_PrepareTest):
  @parameterized.parameters('error', 'skip')
  def test_vanishes_while_it_is_read(self, on_bad_record):
    """Between its decoding and its hash."""
    gone = self.root / '3.mp4'
    read = clip_paths.file_sha256

    def read_others(path):
      if path == gone:
        raise FileNotFoundError(2, 'No such file or directory')
      return read(path)

    with mock.patch.object(clip_paths, 'file_sha256', read_others):
      if on_bad_record == 'error':
        with self.assertRaisesRegex(
          UserError, r'^a.json record 3 \(3.mp4\): .*No such file.*; restore'
        ):
          self.run_with(Encoder())
      else:
        self.run_with(Encoder(), on_bad_record='skip')
        self.assertLen(self.cache().entries(), _COUNT - 1)

  def test_skip(self):
    records = self.bad_record(3)
    self.run_with(Encoder(), records, on_bad_record='skip')
    cache, skip = self.cache(), self.data(on_bad_record='skip')
    self.assertLen(cache.entries(), _COUNT - 1)
    ((key, skipped),) = cache.skipped().items()
    self.assertEqual(key, cache_lib.record_key(records[3]))
    self.assertIn('b.json record 0 (bad.mp4)', skipped.reason)
    self.assertEqual(prepare.missing_from(cache, records, skip), [])
    self.assertEqual(
      prepare.missing_from(cache, records, self.data()), [records[3]]
    )
    records[3].path.write_text('another file')
    self.assertEqual(prepare.missing_from(cache, records, skip), [records[3]])


class FlaggedTest(_PrepareTest):
  @pytest.fixture(autouse=True)
  def _flagged(self, _setting):
    """The records, and one more whose clip is interlaced."""
    clips.write_encoded(
      self.folder / 'b.mp4',
      clips.moving_square(5, 16, 32),
      options={'flags': '+ilme+ildct', 'x264-params': 'interlaced=1'},
    )
    items = [{'video': 'b.mp4', 'caption': 'b', 'score': 0}]
    self.flagged = read_alignment(self.write(items), ['b.json']).records[0]
    self.all = [*self.records, self.flagged]
    self.key = cache_lib.record_key(self.flagged)
    self.skipping = self.data(skip_flagged=('interlaced',))

  def test_kept(self):
    """Its flag is in the index; the others have none."""
    self.run_with(Encoder(), self.all)
    entries = self.cache().entries()
    self.assertEqual(entries.pop(self.key).flags, ('interlaced',))
    self.assertEqual({entry.flags for entry in entries.values()}, {()})

  def test_left_out(self):
    """Although bad records are errors; and that is final."""
    self.run_with(Encoder(), self.all, skip_flagged=('interlaced',))
    cache = self.cache()
    self.assertLen(cache.entries(), _COUNT)
    self.assertEqual(
      cache.skipped()[self.key].reason,
      'b.json record 0 (b.mp4): flagged interlaced; see skip_flagged',
    )
    self.assertEqual(prepare.missing_from(cache, self.all, self.skipping), [])
    self.assertLen(pipeline.join(cache, self.all, self.skipping), _COUNT)
    # Without the rule it is encoded after all.
    self.assertEqual(
      prepare.missing_from(cache, self.all, self.data()), [self.flagged]
    )
    encoder = Encoder()
    self.run_with(encoder, self.all)
    # In the batch slot of a single run.
    self.assertEqual(encoder.batches, [(2, 5, 16, 32, 3)])

  def test_left_out_later(self):
    """Nothing is encoded again."""
    self.run_with(Encoder(), self.all)
    cache = self.cache()
    self.assertEqual(prepare.missing_from(cache, self.all, self.skipping), [])
    self.assertLen(pipeline.join(cache, self.all, self.skipping), _COUNT)
    self.assertLen(pipeline.join(cache, self.all, self.data()), _COUNT + 1)

  def test_undecodable(self):
    clips.write_open_gop(self.flagged.path)
    self.run_with(Encoder(), [self.flagged])
    flags = self.cache().entries()[self.key].flags
    self.assertEqual(flags, ('undecodable frames: 2',))
    with self.assertRaisesRegex(UserError, 'more than max_undecodable = 0.01'):
      self.run_with(None, [self.flagged], name='b', max_undecodable=0.01)


class FingerprintTest(_PrepareTest):
  def test_older_cache(self):
    """One whose frames other filters and decoders may have made."""
    new = prepare.fingerprint(self.data())
    old = {key: new[key] for key in ('sizes', 'max_frames', 'fps', 'resize')}
    cache_lib.LatentCache(self.folder / 'cache', old).start()
    with self.assertRaisesRegex(
      UserError,
      'is stale: decoder was missing and is now .PyAV .*libswscale.*; '
      "filter was missing and is now 'bicubic'; run lift prepare",
    ):
      cache_lib.LatentCache(self.folder / 'cache', new)

  def test_filter(self):
    filters = {
      policy: prepare.fingerprint(self.data(resize=policy))['filter']
      for policy in ('crop', 'crop_bilinear', 'stretch', 'stretch_bicubic')
    }
    self.assertEqual(
      filters,
      {
        'crop': 'bicubic', 'crop_bilinear': 'bilinear',
        'stretch': 'bilinear', 'stretch_bicubic': 'bicubic',
      },
    )  # fmt: skip


class HostsTest(_PrepareTest):
  @parameterized.parameters(2, 3)
  def test_shares(self, num_hosts):
    """Hosts split the work, and together make the cache of one."""
    self.run_with(Encoder(), name='one')
    encoders = [Encoder() for _ in range(num_hosts)]
    threaded_hosts.run(
      num_hosts, lambda host: self.run_with(encoders[host], name='many')
    )
    shares = [sum(s[0] for s in encoder.batches) for encoder in encoders]
    self.assertEqual(sum(shares), _COUNT)
    self.assertLessEqual(max(shares) - min(shares), 1)
    self.assertEqual(self.contents('many'), self.contents('one'))

  def contents(self, name) -> dict[str, bytes]:
    from array_record.python.array_record_module import ArrayRecordReader

    cache = self.cache(name)
    contents = {}
    for key, entry in cache.entries().items():
      reader = ArrayRecordReader(str(cache.shard_path(entry.shard)))
      contents[key] = reader.read([entry.position])
      reader.close()
    return contents


class ConfigTest(_PrepareTest):
  @parameterized.parameters(
    ({'sizes': ()}, 'data.sizes is empty'),
    ({'sizes': ((16, 31),)}, '16 x 31'),
    ({'sizes': ((0, 32),)}, '0 x 32'),
    ({'max_frames': 0}, 'data.max_frames is 0'),
    ({'fps': -1.0}, 'data.fps is -1.0'),
    ({'resize': 'pad'}, "data.resize is 'pad'"),
    ({'on_bad_record': ''}, 'data.on_bad_record'),
    ({'skip_flagged': ('VFR',)}, "skip_flagged lists 'VFR'"),
    ({'max_undecodable': 2.0}, 'max_undecodable is 2'),
  )
  def test_data(self, changes, message):
    with self.assertRaisesRegex(UserError, message):
      self.data(**changes)

  @parameterized.parameters(
    (0, 1, 1, 'float32', 'float32', 'prepare.batch_per_device'),
    (1, 0, 1, 'float32', 'float32', 'prepare.records_per_shard'),
    (1, 1, 0, 'float32', 'float32', 'prepare.num_threads'),
    (1, 1, 1, 'float64', 'float32', 'prepare.compute_dtype'),
    (1, 1, 1, 'float32', 'int8', 'prepare.keep_dtype'),
  )
  def test_prepare(self, *values_and_message):
    *values, message = values_and_message
    with self.assertRaisesRegex(UserError, message):
      prepare.PrepareConfig(*values, True)
