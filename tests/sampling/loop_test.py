"""Rounds of a sampling job, with networks that are simple arithmetic."""

from collections.abc import Callable
import contextlib
import errno
import json
import logging
import pathlib
import random
import threading
import time
import types
from unittest import mock

from absl.testing import parameterized
import av
import numpy as np
import pytest

from lift_jax.data.prompts import Prompt
from lift_jax.errors import UserError
from lift_jax.runtime import hashes
from lift_jax.sampling import loop as job_lib
from lift_jax.sampling import noise as noise_lib
from lift_jax.sampling.clips import make_clips
from lift_jax.sampling.config import OutputConfig, SamplingRunConfig
from lift_jax.sampling.manifest import LATENTS, VIDEOS, Manifest
from tests.jobs import jobs

# F latent frames  h w height and width in latents  C channels
SHAPE = (1, 2, 2, 4)
FULL_DISK = OSError(errno.ENOSPC, 'No space left on device')


def make(num_clips):
  prompts = [
    Prompt(f'{number}', f'text {number}', f'{number}', f'line {number}')
    for number in range(num_clips)
  ]
  return make_clips(prompts, 1, 0, '{id}')[0]


def output(**changes) -> OutputConfig:
  settings = {
    'name': '{id}',
    'fps': 8.0,
    'crf': 18,
    'keep_latents': True,
    'sheet_clips': 0,
  }
  return OutputConfig(**settings | changes)


def frames_of(seed):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (2, 16, 16, 3), np.uint8)


def latents_of(seed):
  return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


class _JobTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path
    self.workdir = self.new_workdir('run')
    self.progress = []

  def new_workdir(self, name) -> pathlib.Path:
    workdir = self.root / name
    for kind in (VIDEOS, LATENTS):
      (workdir / kind).mkdir(parents=True)
    return workdir

  def manifest(self, kinds=(VIDEOS, LATENTS), host=0) -> Manifest:
    return Manifest(self.workdir, {}, kinds, host)

  def stems(self) -> list[str]:
    """Of the lines of the manifest, sorted."""
    text = (self.workdir / 'manifest.jsonl').read_text()
    return sorted(json.loads(line)['id'] for line in text.splitlines())

  def files(self, kind=VIDEOS) -> list[str]:
    return sorted(path.name for path in (self.workdir / kind).iterdir())


class ClipWriterTest(_JobTest):
  def writer(self, manifest, num_threads=2, limit=4, **changes):
    return job_lib.ClipWriter(manifest, output(**changes), num_threads, limit)

  def put(self, writer, clips):
    for seed, clip in enumerate(clips):
      writer.put(clip, frames_of(seed), latents_of(seed))

  def test_whole(self):
    clips = make(9)
    with self.manifest() as manifest, self.writer(manifest) as writer:
      self.put(writer, clips)
    self.assertEqual(writer.take_count(), 9)
    self.assertEqual(self.stems(), [f'{n}' for n in range(9)])
    self.assertEqual(self.files(), [f'{n}.mp4' for n in range(9)])
    self.assertEqual(
      self.manifest().finished(clips), {clip.stem for clip in clips}
    )
    for seed, clip in enumerate(clips):
      latents = np.load(self.manifest().file(clip, LATENTS))
      np.testing.assert_array_equal(
        latents.transpose(0, 2, 3, 1), latents_of(seed)
      )

  def test_settings_reach_the_file(self):
    manifest = self.manifest([VIDEOS])
    with manifest, self.writer(manifest, keep_latents=False, fps=12.5) as w:
      self.put(w, make(1))
    self.assertEqual(self.files(LATENTS), [])
    with av.open(str(self.workdir / 'videos' / '0.mp4')) as container:
      (stream,) = container.streams.video
      self.assertEqual(float(stream.average_rate), 12.5)
      self.assertEqual((stream.frames, stream.height), (2, 16))

  def test_copies(self):
    """What the caller does with its batch afterwards changes no file."""
    clips = make(2)
    may_write = threading.Event()
    write_mp4 = job_lib.write_mp4
    written = []

    def write(path, frames_thw3, *args):
      may_write.wait(30)
      written.append(frames_thw3.copy())
      write_mp4(path, frames_thw3, *args)

    with (
      mock.patch.object(job_lib, 'write_mp4', write),
      self.manifest() as manifest,
      self.writer(manifest, num_threads=1) as writer,
    ):
      for seed, clip in enumerate(clips):
        frames, latents = frames_of(seed), latents_of(seed)
        writer.put(clip, frames, latents)
        frames[:] = 0
        latents[:] = np.nan
      may_write.set()
    for seed, clip in enumerate(clips):
      np.testing.assert_array_equal(written[seed], frames_of(seed))
      latents = np.load(manifest.file(clip, LATENTS))
      np.testing.assert_array_equal(
        latents.transpose(0, 2, 3, 1), latents_of(seed)
      )

  def test_bounded(self):
    may_write = threading.Event()
    clips = make(4)
    has_put = threading.Event()

    def put_the_last():
      writer.put(clips[3], frames_of(0), latents_of(0))
      has_put.set()

    with (
      mock.patch.object(
        job_lib, 'write_mp4', lambda path, *_: _wait_and_touch(may_write, path)
      ),
      self.manifest() as manifest,
      self.writer(manifest, num_threads=1, limit=3) as writer,
    ):
      self.put(writer, clips[:3])  # returns at once
      thread = threading.Thread(target=put_the_last)
      thread.start()
      self.assertFalse(has_put.wait(0.3))
      self.assertEqual(writer.take_count(), 0)
      may_write.set()
      thread.join(30)
      self.assertTrue(has_put.is_set())
    self.assertEqual(writer.take_count(), 4)
    self.assertLen(self.stems(), 4)

  def test_line_comes_after_both_files(self):
    folder = self.workdir
    seen = []

    class Watched(Manifest):
      def add(self, clip):
        paths = [self.file(clip, kind) for kind in (VIDEOS, LATENTS)]
        seen.append([path.stat().st_size > 0 for path in paths])
        super().add(clip)

    with (
      Watched(folder, {}, (VIDEOS, LATENTS)) as manifest,
      self.writer(manifest) as writer,
    ):
      self.put(writer, make(3))
    self.assertEqual(seen, [[True, True]] * 3)

  def failing(self, name, number):
    """A function of the job that fails once, at its call of that number."""
    function, calls = getattr(job_lib, name), iter(range(1000))

    def call(*args):
      if next(calls) == number:
        raise FULL_DISK
      return function(*args)

    return mock.patch.object(job_lib, name, call)

  def test_error_comes_with_a_later_clip(self):
    with (
      self.assertRaises(UserError) as caught,
      self.failing('write_mp4', 1),
      self.manifest() as manifest,
      self.writer(manifest, num_threads=1, limit=1) as writer,
    ):
      clips = make(9)
      for seed, clip in enumerate(clips):
        number = seed
        writer.put(clip, frames_of(seed), latents_of(seed))
    self.assertLess(number, 4)
    path = self.workdir / 'videos' / '1.mp4'
    self.assertEqual(
      str(caught.exception),
      f'{path} cannot be written (No space left on device); make room and run '
      'the same command again to resume',
    )
    self.assertIn('0', self.stems())
    self.assertNotIn('1', self.stems())

  def test_error_comes_at_the_end(self):
    threads = set(threading.enumerate())
    with (
      self.assertRaisesRegex(UserError, r'2\.mp4 cannot be written'),
      self.failing('write_mp4', 2),
      self.manifest() as manifest,
      self.writer(manifest, num_threads=1, limit=9) as writer,
    ):
      self.put(writer, make(3))
    self.assertEqual(self.stems(), ['0', '1'])
    self.assertEmpty(set(threading.enumerate()) - threads)

  def test_error_at_the_end_ends_the_rest(self):
    """No clip is written after the error is raised."""
    threads = set(threading.enumerate())
    may_write = threading.Event()
    calls = []

    def write(path, *_):
      calls.append(path)
      if len(calls) == 1:
        may_write.wait(30)
        raise FULL_DISK
      _wait_and_touch(threading.Event(), path, 0.2)

    with (
      self.assertRaisesRegex(UserError, r'0\.mp4 cannot be written'),
      mock.patch.object(job_lib, 'write_mp4', write),
      self.manifest() as manifest,
      self.writer(manifest, num_threads=1, limit=9) as writer,
    ):
      self.put(writer, make(8))
      may_write.set()
    self.assertEmpty(set(threading.enumerate()) - threads)
    self.assertLess(len(calls), 8)

  def test_error_of_the_caller(self):
    threads = set(threading.enumerate())
    with (
      self.assertRaises(KeyError),
      self.manifest() as manifest,
      self.writer(manifest, num_threads=1) as writer,
    ):
      self.put(writer, make(3))
      raise KeyError
    self.assertEmpty(set(threading.enumerate()) - threads)
    self.assertLen(self.stems(), len(self.files()))

  @parameterized.parameters(0, 300)
  def test_full_disk_leaves_no_part_of_a_file(self, num_bytes):
    with (
      jobs.full_disk() as fill,
      self.assertRaisesRegex(UserError, 'cannot be written .File too large.'),
      self.manifest() as manifest,
      self.writer(manifest) as writer,
    ):
      fill(num_bytes)
      self.put(writer, make(3))
    self.assertEqual(self.files(), [])
    self.assertEqual(jobs.leftovers(self.workdir), [])
    self.assertEqual(self.stems(), [])

  def test_no_folder(self):
    (self.workdir / 'videos').rmdir()
    with (
      self.assertRaisesRegex(UserError, r'0\.mp4 cannot be written \(No such'),
      self.manifest() as manifest,
      self.writer(manifest) as writer,
    ):
      self.put(writer, make(1))

  def test_no_room_for_the_line(self):
    (self.workdir / '.manifest-1.jsonl').symlink_to('/dev/full')
    with (
      self.assertRaisesRegex(UserError, 'cannot be written .No space left'),
      self.manifest(host=1) as manifest,
      self.writer(manifest) as writer,
    ):
      self.put(writer, make(1))


def _wait_and_touch(event, path, seconds=30.0):
  event.wait(seconds)
  path.touch()


class FakeGenerator:
  """Networks that are simple arithmetic; records their inputs.

  Latents follow from text, seed, noise and row, videos from latents: a clip
  that were made from another one's, or in another row, would show.

  Attributes:
    log: stages as they begin, take a batch, and end.
    after: called with the stage once it has taken a batch.
  """

  num_shards = 2
  latent_shape = SHAPE
  mesh = types.SimpleNamespace(size=4)

  def __init__(self, after: Callable[[str], None] = lambda stage: None):
    self.log = []
    self.after = after

  def flops(self):
    return 3e6

  def _stage(self, name, batches, compute, keep):
    """One batch ahead, as the networks work."""
    self.log.append(f'{name} begins')
    waiting = None
    for batch in batches:
      result = compute(batch)
      self.log.append(name)
      self.after(name)
      if waiting is not None:
        yield waiting
      waiting = result
    if waiting is not None:
      yield waiting
    self.log.append(f'{name} ends' if keep else f'{name} is dropped')

  def embed(self, batches, *, keep):
    def compute(texts):
      return np.array([[[float(text.removeprefix('text '))]] for text in texts])

    return self._stage('embed', batches, compute, keep)

  def denoise(self, batches, *, keep):
    def compute(batch):
      text_bsd, seeds, noise = batch
      latents = np.stack(
        [
          latents_of([seed, row, int(text_sd[0, 0])])
          for row, (seed, text_sd) in enumerate(
            zip(seeds, text_bsd, strict=True)
          )
        ]
      )
      return latents if noise is None else latents + noise

    return self._stage('denoise', batches, compute, keep)

  def decode(self, batches, *, keep):
    def compute(latents_bfhwc):
      return np.stack(
        [
          frames_of(int(1e6 * abs(latents_fhwc.sum())))
          for latents_fhwc in latents_bfhwc
        ]
      )

    return self._stage('decode', batches, compute, keep)


class _RunTest(_JobTest):
  @pytest.fixture(autouse=True)
  def _log(self, caplog):
    caplog.set_level(logging.INFO)
    self.caplog = caplog

  def run_job(
    self,
    clips,
    finished=(),
    generator=None,
    stop=None,
    peak_flops=None,
    initial_noise='',
    batches_per_round=2,
    **changes,
  ):
    """A job with batches of four clips; returns its generator."""
    generator = generator or FakeGenerator()
    self.is_done = job_lib.run(
      generator,
      clips,
      set(finished),
      self.manifest(),
      SamplingRunConfig(
        batch_per_shard=2,
        batches_per_round=batches_per_round,
        offload=True,
        num_writers=2,
      ),
      output(**changes),
      initial_noise,
      stop or types.SimpleNamespace(received=False, name='SIGTERM'),
      types.SimpleNamespace(update=self.add_progress),
      peak_flops,
      logging.getLogger('job_test'),
    )
    return generator

  def add_progress(self, units):
    self.progress.append(units)

  def tree(self):
    """All files but the list of hashes, which has times."""
    return {
      path.relative_to(self.workdir): path.read_bytes()
      for path in self.workdir.rglob('*')
      if path.is_file() and path.name != hashes.NAME
    }


class RunTest(_RunTest):
  def test_whole(self):
    clips = make(11)
    generator = self.run_job(clips)
    self.assertEqual(self.manifest().finished(clips), {c.stem for c in clips})
    self.assertLen(self.stems(), 11)  # what filled the last batch has no line
    self.assertEqual(sum(self.progress), 11)
    self.assertLen(self.files(), 11)
    for index, clip in enumerate(clips):
      latents = np.load(self.manifest().file(clip, LATENTS))
      np.testing.assert_array_equal(
        latents.transpose(0, 2, 3, 1),
        latents_of([clip.seed, index % 4, index]),
      )
    # Two rounds: each network works on all of a round, and ends before the
    # next one begins, so that they need not be in memory together. None is
    # kept after the last round.
    stages = ('embed', 'denoise', 'decode')
    self.assertEqual(
      generator.log,
      [
        line
        for num_batches, end in ((2, 'ends'), (1, 'is dropped'))
        for stage in stages
        for line in (
          f'{stage} begins',
          *[stage] * num_batches,
          f'{stage} {end}',
        )
      ],
    )

  def test_nothing_to_do(self):
    clips = make(5)
    generator = self.run_job(clips, [clip.stem for clip in clips])
    self.assertEqual((generator.log, self.caplog.messages), ([], []))
    self.assertEqual(self.stems(), [])

  @parameterized.parameters(*range(5))
  def test_going_on(self, seed):
    """Two runs give the same bytes as one."""
    clips = make(11)
    self.run_job(clips)
    self.manifest().gather(clips)
    undisturbed = self.tree()
    self.workdir = self.new_workdir('again')
    some = random.Random(seed).sample(clips, 2 * seed + 1)
    missing = {clip.stem for clip in some}
    self.run_job(clips, missing)
    self.assertLen(self.stems(), 11 - len(missing))
    finished = self.manifest().finished(clips)
    self.assertTrue(finished.isdisjoint(missing))
    self.run_job(clips, finished)
    self.manifest().gather(clips)
    self.assertEqual(self.tree(), undisturbed)

  @parameterized.parameters(1, 2, 8)
  def test_rounds_change_nothing(self, batches_per_round):
    clips = make(9)
    self.run_job(clips)
    self.manifest().gather(clips)
    expected = self.tree()
    self.workdir = self.new_workdir('again')
    self.run_job(clips, batches_per_round=batches_per_round)
    self.manifest().gather(clips)
    self.assertEqual(self.tree(), expected)

  def test_initial_noise(self):
    clips = make(6)
    folder = self.root / 'noise'
    folder.mkdir()
    for seed, clip in enumerate(clips):
      noise_lib.write_latents(
        folder / f'{clip.stem}.npy', latents_of(50 + seed)
      )
    self.run_job(clips, initial_noise=str(folder))
    for index, clip in enumerate(clips):
      latents = np.load(self.manifest().file(clip, LATENTS))
      np.testing.assert_array_equal(
        latents.transpose(0, 2, 3, 1),
        latents_of([clip.seed, index % 4, index]) + latents_of(50 + index),
      )

  @parameterized.parameters(np.nan, np.inf)
  def test_not_finite(self, value):
    """No clip of that round is written; those of earlier rounds are kept."""
    clips, test = make(20), self

    class Spoilt(FakeGenerator):
      def denoise(self, batches, **settings):
        is_second = 'decode ends' in self.log
        while is_second and len(test.stems()) < 8:
          time.sleep(0.01)  # until those of the first round are written
        for number, latents in enumerate(super().denoise(batches, **settings)):
          if is_second and number == 1:  # clips 12 to 15
            latents[2, 0, 1, 0, 3] = value
          yield latents

    with self.assertRaises(UserError) as caught:
      self.run_job(clips, generator=Spoilt())
    self.assertEqual(
      str(caught.exception),
      'line 14: the latents of video 0 are not finite; try '
      'model.compute_dtype = float32, or another checkpoint',
    )
    self.assertEqual(self.stems(), [f'{number}' for number in range(8)])
    self.assertEqual(self.files(), [f'{stem}.mp4' for stem in self.stems()])
    self.assertEqual(self.files(LATENTS), [f'{s}.npy' for s in self.stems()])

  def stopping(self, stage, number):
    """A signal, and a generator that receives it after a batch of a stage."""
    stop = types.SimpleNamespace(received=False, name='SIGTERM')

    def after(name):
      if generator.log.count(stage) == number and name == stage:
        stop.received = True

    generator = FakeGenerator(after)
    return {'stop': stop, 'generator': generator}

  @parameterized.parameters(
    # While the first texts are read: nothing is made.
    ('embed', 1, 0),
    # Of four batches in this round: what was begun is made.
    ('denoise', 1, 4),
    ('denoise', 3, 12),
    # All of this round, and none of the next.
    ('denoise', 4, 16),
    ('decode', 1, 16),
    ('decode', 4, 16),
    # The second round has one batch.
    ('embed', 5, 16),
    ('denoise', 5, 20),
    ('decode', 5, 20),
  )
  def test_stop(self, stage, number, num_made):
    clips = make(20)
    stopping = self.stopping(stage, number)
    self.run_job(clips, batches_per_round=4, **stopping)
    self.assertCountEqual(self.stems(), [f'{n}' for n in range(num_made)])
    self.assertEqual(sum(self.progress), num_made)
    self.assertEqual(self.is_done, num_made == len(clips))
    self.assertEqual(jobs.leftovers(self.workdir), [])
    self.assertLen(self.files(), num_made)
    self.assertIn(
      'SIGTERM: pending clips are written; run again to resume',
      self.caplog.messages,
    )
    if stage == 'embed':  # no network is put on the devices for nothing
      self.assertStartsWith(stopping['generator'].log[-1], 'embed ')

  def test_stopped_at_once(self):
    stop = types.SimpleNamespace(received=True, name='SIGTERM')
    generator = self.run_job(make(5), stop=stop)
    self.assertEqual(generator.log, [])
    self.assertLen(self.caplog.messages, 1)

  def test_disk_fills_up(self):
    with (
      mock.patch.object(job_lib, 'write_mp4', side_effect=FULL_DISK),
      self.assertRaisesRegex(UserError, 'No space left on device'),
    ):
      self.run_job(make(40))
    self.assertEqual((self.files(), self.stems()), ([], []))


@contextlib.contextmanager
def clock():
  """Time that only `pass_time(seconds)` moves on."""
  now = [0.0]

  def pass_time(seconds):
    now[0] += seconds

  with mock.patch.object(
    job_lib, 'time', types.SimpleNamespace(monotonic=lambda: now[0])
  ):
    yield pass_time


SECONDS = {'embed': 0.5, 'denoise': 8.0, 'decode': 1.5}


class SummaryTest(_RunTest):
  """The log at the end, with given seconds for each batch of a stage."""

  def summary(self, num_clips, **options):
    with clock() as pass_time:
      first = set()

      def after(stage):
        pass_time(SECONDS[stage] + 100 * (stage not in first))  # compiles
        first.add(stage)

      self.run_job(make(num_clips), generator=FakeGenerator(after), **options)
    return self.caplog.messages

  def test_several_rounds(self):
    # Rounds of two, two and one batches of four clips.
    first = (
      '20 videos in 350.0 s: text encoder 102.5 s, transformer 140.0 s, '
      'autoencoder 107.5 s, including compilation'
    )
    # 12 videos in 3 times 10 s, on 4 chips.
    rate = 'after the first round: 10 chip-seconds per video, 0.1 videos/s/chip'
    self.assertEqual(self.summary(20), [first, rate])
    self.caplog.clear()
    # 3e6 operations each, in 24 s of the transformer.
    self.workdir = self.new_workdir('again')
    self.assertEqual(
      self.summary(20, peak_flops=1e6),
      [first, rate, 'MFU of the transformer: 37.5%'],
    )

  def test_one_round(self):
    self.assertEqual(
      self.summary(7, peak_flops=1e6),
      [
        '7 videos in 320.0 s: text encoder 101.0 s, transformer 116.0 s, '
        'autoencoder 103.0 s, including compilation'
      ],
    )

  def test_only_what_was_made_counts(self):
    finished = {f'{number}' for number in range(20)} - {'3', '7', '11'}
    (line, rate) = self.summary(20, finished=finished)
    self.assertStartsWith(line, '3 videos in 330.0 s')
    # One clip in the second round, whose batch took the time of four.
    self.assertIn('40 chip-seconds per video, 0.025 videos', rate)
