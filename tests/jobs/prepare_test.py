"""`lift prepare`: what it survives, what it refuses, what it leaves behind."""

import collections
import json
import os
import pathlib
import shutil
import signal
from unittest import mock

from absl.testing import parameterized
import av
import numpy as np
import pytest

from lift_jax.data import cache as cache_lib
from lift_jax.data.video import decode
from lift_jax.jobs import align, prepare
from lift_jax.training import encoding
from tests.data import clips
from tests.jobs import jobs

# A process that dies while it writes its second shard, whose records are on
# disk and whose list is not.
_DIE_IN_SECOND_SHARD = """
import os, signal, sys
from lift_jax.cli import main
from lift_jax.data import cache

write_list = cache.write_list
lists = []

def write_and_die(path, content):
  if path.parent.name == 'shards':
    lists.append(path)
    if len(lists) == 2:
      os.kill(os.getpid(), signal.SIGKILL)
  write_list(path, content)

cache.write_list = write_and_die
main.main(sys.argv[1:])
"""


def _no_encoder():
  """Fails where networks are loaded."""
  return mock.patch.object(
    encoding, 'ClipEncoder', side_effect=AssertionError('an encoder is built')
  )


def _stamps(folder: pathlib.Path) -> dict[str, tuple]:
  """Time of change and content of every file."""
  return {
    path.name: (path.stat().st_mtime_ns, path.read_bytes())
    for path in folder.iterdir()
  }


class _PrepareTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, world, tmp_path):
    self.world, self.folder = world, tmp_path
    self.workdir = tmp_path / 'run'
    self.cache = self.workdir / 'cache'

  def arguments(self, job='prepare', **settings) -> list[str]:
    return [
      job,
      *jobs.flags(
        self.workdir,
        **{
          'model__path': self.world.workdir / 'model',
          'data__root': self.world.root,
          'data__synthetic': 'all.json',
        }
        | settings,
      ),
    ]

  def run_job(self, job='prepare', **settings) -> jobs.Outcome:
    return jobs.lift(*self.arguments(job, **settings))

  def copy_clips(self) -> pathlib.Path:
    root = self.folder / 'clips'
    shutil.copytree(self.world.root, root)
    return root

  def make_interlaced(self, path: pathlib.Path) -> None:
    frames_thw3 = decode(path, where='x').frames
    options = {'flags': '+ilme+ildct', 'x264-params': 'interlaced=1'}
    clips.write_encoded(path, frames_thw3, options=options)

  def copy_world(self) -> None:
    shutil.copytree(self.world.workdir, self.workdir)

  def assert_refused(self, outcome: jobs.Outcome, *words: str):
    self.assertEqual(outcome.status, 2, outcome)
    self.assertLen(outcome.stderr.splitlines(), 1)
    self.assertRegex(outcome.stderr, '^lift (prepare|align): error: ')
    for word in words:
      self.assertIn(word, outcome.stderr)
    self.assertEmpty(jobs.leftovers(self.workdir))


class CacheTest(_PrepareTest):
  def test_buckets(self):
    """Each clip lies in the bucket of its shape and length, once."""
    self.assertEqual(
      (self.world.outcome.status, self.world.outcome.stderr), (0, '')
    )
    records = jobs.records_of(self.world.workdir / 'cache')
    buckets = collections.Counter(bucket for bucket, _ in records.values())
    self.assertEqual(
      buckets, {jobs.BUCKETS[k]: count for k, (count, *_) in jobs.KINDS.items()}
    )
    for video, (bucket, data) in records.items():
      kind = pathlib.PurePath(video).stem.split('_')[0]
      self.assertEqual(bucket, jobs.BUCKETS[kind])
      arrays = cache_lib.unpack(data)
      self.assertEqual(arrays['mean'].shape, (*bucket, 16))
      self.assertEqual(arrays['logvar'].shape, (*bucket, 16))
      self.assertEqual(arrays['text'].shape, (16, 16))
      for array in arrays.values():
        self.assertTrue(np.all(np.isfinite(array)))
        self.assertGreater(array.std(), 0)

  def test_second_run_does_nothing(self):
    self.copy_world()
    before = _stamps(self.cache / 'shards'), (self.cache / 'index.json').stat()
    with _no_encoder():
      outcome = self.run_job()
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    after = _stamps(self.cache / 'shards'), (self.cache / 'index.json').stat()
    self.assertEqual(before[0], after[0])
    self.assertEqual(before[1].st_mtime_ns, after[1].st_mtime_ns)

  def test_only_new_clips_are_encoded(self):
    self.copy_world()
    root = self.copy_clips()
    clips.write_clip(root / 'videos' / 'wide_9.mp4', 5, 16, 32, seed=99)
    jobs.write_alignment(
      root / 'all.json',
      [*sorted(jobs.records_of(self.cache)), 'videos/wide_9.mp4'],
    )
    before = _stamps(self.cache / 'shards')
    outcome = self.run_job(data__root=root)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertTrue(outcome.has_logged('11 of 12 clips are in'))
    after = _stamps(self.cache / 'shards')
    self.assertLen(after, len(before) + 2)
    self.assertEqual(before, {name: after[name] for name in before})
    self.assertIn('videos/wide_9.mp4', jobs.records_of(self.cache))

  def test_killed(self):
    process = jobs.start(_DIE_IN_SECOND_SHARD, self.arguments())
    ((status, _, errors),) = jobs.finish(process)
    self.assertEqual(status, -signal.SIGKILL, errors)
    shards = self.cache / 'shards'
    before = _stamps(shards)
    self.assertLen(before, 3)
    ((lists, count),) = [
      (path, len(json.loads(path.read_text())['records']))
      for path in shards.glob('*.json')
    ]
    self.assertFalse((self.cache / 'index.json').exists())
    # Training does not start on half a cache.
    outcome = self.run_job()
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertTrue(outcome.has_logged(f'{count} of 11 clips are in'))
    after = _stamps(shards)
    for name in (lists.name, lists.with_suffix('.array_record').name):
      self.assertEqual(before[name], after[name])
    self.assertEqual(
      jobs.records_of(self.cache), jobs.records_of(self.world.workdir / 'cache')
    )
    self.assertEmpty(jobs.leftovers(self.workdir))

  def test_without_the_videos(self):
    """Encoded clips live on where their videos are gone."""
    self.copy_world()
    root = self.copy_clips()
    shutil.rmtree(root / 'videos')
    with _no_encoder():
      self.assertEqual(self.run_job(data__root=root).status, 0)

  def test_disk_full(self):
    with jobs.full_disk() as fill:
      fill(6_000)
      outcome = self.run_job()
    self.assert_refused(outcome, 'could not be written', 'make room')
    self.assertFalse((self.cache / 'index.json').exists())


class StaleTest(_PrepareTest):
  @parameterized.product(
    job=('prepare', 'align'),
    case=(
      ({'data__max_frames': 3}, 'max_frames was 5 and is now 3'),
      ({'data__sizes': ((16, 32),)}, 'sizes was [[16, 32], [32, 16]] and is'),
      ({'data__resize': 'stretch'}, "resize was 'crop' and is now 'stretch'"),
      ({'data__fps': 4.0}, 'fps was None and is now 4.0'),
      ({'prepare__keep_dtype': 'bfloat16'}, "keep_dtype was 'float32' and is"),
      ({'prepare__tiling': False}, 'tiling was True and is now False'),
    ),
  )
  def test_other_settings(self, job, case):
    settings, *words = case
    cache = self.world.workdir / 'cache'
    outcome = self.run_job(job, data__cache=cache, **settings)
    self.assert_refused(outcome, str(cache), 'stale', *words)

  @parameterized.parameters('vae', 'text_encoder')
  def test_other_model(self, component):
    model = self.folder / 'model'
    shutil.copytree(self.world.workdir / 'model', model)
    (path,) = (model / component).glob('*.safetensors')
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    outcome = self.run_job(
      model__path=model, data__cache=self.world.workdir / 'cache'
    )
    self.assert_refused(outcome, 'stale', f'{component} was', 'data.cache')

  @parameterized.parameters('prepare', 'align')
  def test_replaced_video(self, job):
    """Even by one of the same size in bytes."""
    root = self.copy_clips()
    settings = {
      'data__root': root,
      'data__cache': self.world.workdir / 'cache',
    }
    path = root / 'videos' / 'wide_1.mp4'
    content = bytearray(path.read_bytes())
    path.write_bytes(content)
    with _no_encoder():
      self.assertEqual(self.run_job(**settings).status, 0)
    content[-1] ^= 1
    path.write_bytes(content)
    outcome = self.run_job(job, **settings)
    self.assert_refused(
      outcome, 'all.json record', '(videos/wide_1.mp4)', 'has changed',
      'another data.cache',
    )  # fmt: skip

  def test_cache_is_a_file(self):
    path = self.folder / 'cache'
    path.write_text('')
    outcome = self.run_job(data__cache=path)
    self.assert_refused(outcome, f'{path} is a file', 'data.cache')

  @parameterized.parameters(('gone', ''), ('changed', 'record 0'))
  def test_damaged_shard(self, damage, words):
    """`align` names it, and `prepare` makes it again."""
    self.copy_world()
    path = max(
      (self.cache / 'shards').glob('*.array_record'), key=os.path.getsize
    )
    if damage == 'gone':
      path.unlink()
    else:
      content = bytearray(path.read_bytes())
      content[1000] ^= 1
      path.write_bytes(content)
    outcome = self.run_job('align')
    self.assert_refused(outcome, path.name, words, 'run lift prepare with')
    outcome = self.run_job()
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertTrue(outcome.has_logged(': made again'))
    self.assertEqual(
      jobs.records_of(self.cache), jobs.records_of(self.world.workdir / 'cache')
    )


_GOOD = {'video': 'videos/wide_0.mp4', 'caption': 'wide', 'score': 0.5}

# The second record of a file, and what is said of it.
_BAD_RECORDS = {
  'parent': ({'video': '../x.mp4'}, '".."', 'below the data root'),
  'absolute': ({'video': '/etc/passwd'}, 'absolute path'),
  'text score': ({'score': '0.5'}, '"score" is a string'),
  'nan score': ({'score': float('nan')}, '"score" is nan'),
  'negative score': ({'score': -0.1}, '"score" is -0.1'),
  'score above 1': ({'score': 1.1}, '"score" is 1.1', 'between 0 and 1'),
  'empty caption': ({'caption': ''}, '"caption" is empty'),
  'duplicate': ({}, 'same video and caption', 'delete one of the two'),
}

_BAD_VIDEOS = {
  'missing': (None, 'no such video', 'add it or delete'),
  'text': (b'a text, not a video', 'cannot be decoded'),
  'empty': (b'', 'cannot be decoded'),
  'cut': ('cut', 'cut short'),
  'no frames': ('no frames', 'holds no frames'),
}


class RefuseTest(_PrepareTest):
  """What is wrong is said before a network is loaded."""

  def refused(self, job: str, root: pathlib.Path, *words: str, **settings):
    with _no_encoder():
      outcome = self.run_job(
        job, data__root=root, data__synthetic='bad.json', **settings
      )
    self.assert_refused(outcome, 'bad.json', *words)
    self.assertFalse((self.workdir / 'checkpoints').exists())
    for name in ('index.json', 'null_text.array_record'):
      self.assertFalse((self.cache / name).exists())
    if self.cache.exists():
      self.assertEmpty(list((self.cache / 'shards').iterdir()))

  def write(self, content) -> pathlib.Path:
    root = self.copy_clips()
    text = content if isinstance(content, str) else json.dumps(content)
    (root / 'bad.json').write_text(text)
    return root

  @parameterized.product(job=('prepare', 'align'), name=sorted(_BAD_RECORDS))
  def test_record(self, job, name):
    """Before a random model is made, too."""
    changes, *words = _BAD_RECORDS[name]
    other = {'caption': 'other'} if changes else {}
    root = self.write([_GOOD, _GOOD | other | changes])
    self.refused(job, root, 'record 1', *words, model__path='')
    self.assertEmpty(list(self.workdir.iterdir()))

  @parameterized.product(
    job=('prepare', 'align'),
    case=(
      ('[{"video": "videos/wide_0.mp4",}]', 'line 1 column 32', 'invalid JSON'),
      ('[{"video": "a", "video": "b"}]', "duplicate key 'video'", 'record 0'),
      ('{}', 'an object, not a list'),
      ('[]', 'no usable record'),
    ),
  )
  def test_file(self, job, case):
    text, *words = case
    self.refused(job, self.write(text), *words, model__path='')
    self.assertEmpty(list(self.workdir.iterdir()))

  @parameterized.product(job=('prepare', 'align'), name=sorted(_BAD_VIDEOS))
  def test_video(self, job, name):
    content, *words = _BAD_VIDEOS[name]
    bad = {'video': 'videos/bad.mp4', 'caption': 'bad', 'score': 0.5}
    root = self.write([_GOOD, bad])
    _write_bad(root / 'videos' / 'bad.mp4', content)
    self.refused(job, root, 'record 1 (videos/bad.mp4)', *words)

  def test_link_out_of_the_root(self):
    bad = {'video': 'videos/bad.mp4', 'caption': 'bad', 'score': 0.5}
    root = self.write([bad])
    (root / 'videos' / 'bad.mp4').symlink_to(
      self.world.root / 'videos' / 'wide_0.mp4'
    )
    self.refused('prepare', root, 'record 0', 'link to outside the data root')

  @parameterized.parameters(
    ({'data__sizes': '((17, 32),)'}, '17 x 32', 'even'),
    ({'data__sizes': '((24, 32),)'}, '24 x 32', 'multiple of 16'),
    ({'data__sizes': '()'}, 'data.sizes is empty'),
    ({'data__max_frames': 0}, 'data.max_frames is 0'),
    ({'data__fps': 0}, 'data.fps is 0'),
    ({'data__root': 'nowhere'}, 'nowhere', 'no such folder'),
    ({'data__root': '', 'toy_clips': 0}, 'data.root is empty'),
    ({'data__synthetic': 'none.json'}, 'none.json', 'no such file'),
    ({'data__synthetic': '()'}, 'no alignment file'),
    ({'model__path': 'nowhere'}, 'nowhere/model_index.json', 'no such file'),
    ({'model__path': '', 'model.random': None}, 'model.path is empty'),
    ({'prepare__num_threads': 0}, 'prepare.num_threads'),
    ({'data__on_bad_record': 'ignore'}, "'ignore'", "['error', 'skip']"),
  )  # fmt: skip
  def test_settings(self, settings, *words):
    with _no_encoder():
      self.assert_refused(self.run_job(**settings), *words)
    self.assertFalse(self.cache.exists())


def _write_bad(path: pathlib.Path, content: bytes | str | None) -> None:
  if content == 'cut':
    clips.write_clip(path, 20, 16, 32, faststart=True)
    path.write_bytes(path.read_bytes()[:-200])
  elif content == 'no frames':
    options = {'movflags': 'frag_keyframe+empty_moov'}
    with av.open(str(path), 'w', options=options) as container:
      stream = container.add_stream('mpeg4', rate=8)
      stream.width, stream.height, stream.pix_fmt = 32, 16, 'yuv420p'
      stream.codec_context.open()
      container.start_encoding()
  elif content is not None:
    path.write_bytes(content)


class SkipTest(_PrepareTest):
  def test_skip(self):
    """Skips are counted and listed; training goes on with the rest."""
    root = self.copy_clips()
    bad = [f'videos/wide_{index}.mp4' for index in range(8)]
    bad += [f'videos/bad_{index}.mp4' for index in range(2)]
    jobs.write_alignment(root / 'bad.json', bad)
    items = json.loads((root / 'bad.json').read_text())
    items[2]['score'] = 'high'
    (root / 'bad.json').write_text(json.dumps(items))
    (root / 'videos' / 'bad_0.mp4').write_text('not a video')
    self.make_interlaced(root / 'videos' / 'wide_1.mp4')
    settings = {
      'data__root': root,
      'data__synthetic': 'bad.json',
      'data__on_bad_record': 'skip',
    }
    outcome = self.run_job(**settings)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    listed = self.workdir / 'skipped.json'
    self.assertTrue(
      outcome.has_logged(f'3 of 10 records were skipped, listed in {listed}')
    )
    first, second, third = json.loads(listed.read_text())
    self.assertIn('bad.json record 2: "score" is a string', first)
    self.assertIn('bad.json record 8 (videos/bad_0.mp4)', second)
    self.assertIn('bad.json record 9 (videos/bad_1.mp4)', third)
    self.assertLen(jobs.records_of(self.cache), 7)
    flagged = self.workdir / 'flagged.json'
    self.assertTrue(
      outcome.has_logged('1 of 7 clips are flagged: 1 interlaced; listed in')
    )
    self.assertEqual(
      json.loads(flagged.read_text()), {'videos/wide_1.mp4': ['interlaced']}
    )

    # Flagged clips can be left out of what is encoded already.
    with _no_encoder():
      outcome = self.run_job(**settings, data__skip_flagged='interlaced')
    self.assertTrue(outcome.has_logged('4 of 10 records were skipped'))
    self.assertFalse(flagged.exists())

    with _no_encoder():
      outcome = self.run_job('align', **settings)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertTrue(outcome.has_logged('7 videos with latents 2x2x4'))
    self.assertTrue(outcome.has_logged('3 of 10 records were skipped'))

    # What may not be skipped is not skipped because it was once.
    with _no_encoder():
      outcome = self.run_job(**settings | {'data__on_bad_record': 'error'})
    self.assert_refused(outcome, 'record 2', '"score" is a string')
    items[2]['score'] = 0.5
    (root / 'bad.json').write_text(json.dumps(items))
    with _no_encoder():
      outcome = self.run_job(**settings | {'data__on_bad_record': 'error'})
    self.assert_refused(outcome, 'record 9 (videos/bad_1.mp4)')

    # A clip that has been mended is looked at again.
    for index in range(2):
      shutil.copy(
        root / 'videos' / 'wide_0.mp4', root / 'videos' / f'bad_{index}.mp4'
      )
    outcome = self.run_job(**settings)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertLen(jobs.records_of(self.cache), 10)
    self.assertFalse(listed.exists())


class ExampleTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(jobs.REPOSITORY / 'configs', tmp_path / 'configs')
    self.folder = tmp_path

  def test_examples(self):
    """Those of both jobs, one after the other, but with the smallest model."""
    shrunk = [
      flag
      for flag in jobs.flags('', data__sizes=((16, 32),), train__export=True)
      if flag.startswith('--config.')
    ]
    for job, module in (('prepare', prepare), ('align', align)):
      *_, last = module.__doc__.strip().splitlines()
      words = last.split()
      self.assertEqual(words[:3], ['example:', 'lift', job])
      outcome = jobs.lift(*words[2:], *shrunk)
      self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertTrue(
      (self.folder / 'runs' / 'lift' / 'export' / 'model_index.json').exists()
    )
