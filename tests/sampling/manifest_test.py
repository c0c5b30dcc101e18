"""Clips that the manifest lists as finished are intact and as configured."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random

from absl.testing import parameterized
import pytest

from lift_jax.data.prompts import Prompt
from lift_jax.errors import UserError
from lift_jax.runtime.files import file_sha256
from lift_jax.sampling.clips import Clip, make_clips
from lift_jax.sampling.manifest import LATENTS, VIDEOS, Manifest

pytestmark = pytest.mark.fast

BOTH = (VIDEOS, LATENTS)
MADE_BY = {
  'checkpoint': '0123456789abcdef',
  'video': {'height': 480, 'width': 720, 'num_frames': 49},
  'sampler': {'name': 'dpm', 'guidance_scale': 6.0},
  'sizes': (1, 2),
  'negative_prompt': '',
}


def make(*names: str, count: int = 1) -> list[Clip]:
  prompts = [
    Prompt(f'id of {name}', f'text of {name}', name, f'line of {name}')
    for name in names
  ]
  return make_clips(prompts, count, 0, '{prompt}-{index}')[0]


class _ManifestTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path
    self.workdir = self.new_workdir('run')

  def new_workdir(self, name) -> pathlib.Path:
    workdir = self.root / name
    for kind in BOTH:
      (workdir / kind).mkdir(parents=True)
    return workdir

  def open(self, kinds=(VIDEOS,), host=0, **changes) -> Manifest:
    return Manifest(self.workdir, MADE_BY | changes, kinds, host)

  def write(self, clip: Clip, kinds=BOTH) -> None:
    """Files of a clip, whose content follows from it."""
    manifest = self.open()
    for kind in kinds:
      manifest.file(clip, kind).write_text(f'{kind} of {clip.stem}')

  def finish(self, clips, kinds=(VIDEOS,), host=0) -> None:
    """What a host does that makes `clips` and is then killed."""
    with self.open(kinds, host) as manifest:
      for clip in clips:
        self.write(clip)
        manifest.add(clip)

  def finished(self, clips, kinds=(VIDEOS,), **changes) -> set[str]:
    manifest = self.open(kinds, **changes)
    manifest.gather(clips)
    return manifest.finished(clips)

  def lines(self) -> list[dict]:
    text = self.open().path.read_bytes().decode()
    assert not text or text.endswith('\n')
    return [json.loads(line) for line in text.split('\n')[:-1]]

  def stems(self) -> list[str]:
    """Of the clips of the lines, in their order."""
    return [f'{line["name"]}-{line["index"]}' for line in self.lines()]


def stems(clips) -> set[str]:
  return {clip.stem for clip in clips}


class LinesTest(_ManifestTest):
  def test_nothing(self):
    clips = make('a')
    self.assertEqual(self.open().finished(clips), set())
    self.open().gather(clips)
    self.assertEqual(self.lines(), [])
    self.assertEqual(self.open().finished(clips), set())

  def test_what_a_line_says(self):
    (clip,) = make('a')
    clip = dataclasses.replace(clip, initial_noise='0f')
    self.finish([clip], BOTH)
    (line,) = self.lines()
    files = {
      f'{folder}/a-0{suffix}': file_sha256(
        self.workdir / folder / f'a-0{suffix}'
      )
      for folder, suffix in (('videos', '.mp4'), ('latents', '.npy'))
    }
    self.assertEqual(
      line,
      {
        'files': files,
        'id': 'id of a',
        'index': 0,
        'name': 'a',
        'prompt': 'text of a',
        'seed': clip.seed,
        'initial_noise': '0f',
        **MADE_BY,
        'sizes': [1, 2],
      },
    )

  def test_is_there_at_once(self):
    """A run may be killed at any time."""
    clips = make('a', 'b')
    with self.open() as manifest:
      for number, clip in enumerate(clips, start=1):
        self.write(clip)
        manifest.add(clip)
        self.assertLen(self.lines(), number)

  def test_lines_are_appended(self):
    clips = make('a', 'b', 'c')
    self.finish(clips[:1])
    self.finish(clips[1:])
    self.assertEqual(self.stems(), ['a-0', 'b-0', 'c-0'])
    self.assertEqual(self.finished(clips), stems(clips))

  def test_no_line_without_files(self):
    clips = make('a', 'b')
    self.write(clips[0], [VIDEOS])
    with self.open(BOTH) as manifest:
      for clip in clips:
        with self.assertRaises(FileNotFoundError):
          manifest.add(clip)
    self.assertEqual(self.lines(), [])

  def test_last_line_of_a_clip_counts(self):
    clips = make('a')
    self.finish(clips)
    video = self.open().file(clips[0], VIDEOS)
    video.write_text('made again')
    with self.open() as manifest:
      manifest.add(clips[0])
    self.assertLen(self.lines(), 2)
    self.assertEqual(self.finished(clips), stems(clips))
    self.assertLen(self.lines(), 1)

  # Prompts and names that are easily taken apart on the way through a file.
  @parameterized.parameters(
    'line\u2028and\u2029paragraph',
    'next\x85line, form\x0cfeed and\x1eseparator',
    'carriage\rreturn\r\n',
    '猫 🐕 é e\u0301 \U0010ffff',
    '"quotes" \\ and / {braces}',
    'ends with a dot.',
    'ends with .mp4',
    ' ',
  )
  def test_odd_prompts(self, text):
    clips = make_clips(
      [Prompt(text, text, text, 'a line'), Prompt('b', 'b', 'b', 'another')],
      1,
      0,
      '{prompt}',
    )[0]
    self.finish(clips)
    for _ in range(2):
      self.assertEqual(self.finished(clips), stems(clips))
      self.assertEqual([line['prompt'] for line in self.lines()], [text, 'b'])

  def test_threads(self):
    clips = make('a', 'b', count=100)
    for clip in clips:
      self.write(clip)
    with (
      self.open() as manifest,
      concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
      list(pool.map(manifest.add, clips))
    self.assertEqual(set(self.stems()), stems(clips))
    self.assertLen(self.lines(), len(clips))
    self.assertEqual(self.finished(clips), stems(clips))

  def test_full_disk_is_told_once(self):
    """By `add`; closing the file does not fail once more."""
    (clip,) = make('a')
    self.write(clip)
    (self.workdir / '.manifest-1.jsonl').symlink_to('/dev/full')
    with self.open(host=1) as manifest, self.assertRaises(OSError):
      manifest.add(clip)


class GatherTest(_ManifestTest):
  @parameterized.parameters(1, 10, -12, -2, -1)
  def test_torn_line(self, length):
    """Of a run that was killed while it wrote the last one."""
    clips = make('a', 'b é')
    self.finish(clips)
    path = self.open().path
    whole = path.read_bytes()
    start = whole.index(b'\n') + 1
    end = start + length if length > 0 else len(whole) + length
    path.write_bytes(whole[:end])
    is_torn = length != -1  # then but for the line break
    expected = clips[:1] if is_torn else clips
    self.assertEqual(self.finished(clips), stems(expected))
    self.assertLen(self.lines(), len(expected))
    # The next line stands on its own.
    self.finish(clips[1:])
    self.assertEqual(self.finished(clips), stems(clips))
    self.assertEqual(path.read_bytes(), whole)

  def test_torn_within_a_character(self):
    clips = make('a', '猫')
    self.finish(clips)
    path = self.open().path
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex('猫'.encode()) + 1])
    self.assertEqual(self.finished(clips), stems(clips[:1]))

  @parameterized.parameters(
    b'',
    b'null',
    b'1',
    b'"text"',
    b'[]',
    b'{}',
    b'{"files": null}',
    b'{"files": {}}',
    b'{"files": {"latents/a-0.npy": "0f"}}',
    b'{"files": {"videos/a.mp4": "0", "videos/b.mp4": "1"}}',
    b'\0' * 100,
    b'\xff\xfe',
  )
  def test_other_lines(self, data):
    clips = make('a', 'b')
    self.finish(clips[:1])
    with self.open().path.open('ab') as file:
      file.write(data + b'\n')
    self.finish(clips[1:])
    self.assertEqual(self.finished(clips), stems(clips))
    self.assertLen(self.lines(), 2)

  def test_parts_of_other_hosts(self):
    clips = make('a', 'b', 'c', 'd', 'e')
    for host in range(3):
      self.finish(clips[host::3], host=host)
    parts = list(self.workdir.glob('.manifest-*'))
    self.assertLen(parts, 2)
    with parts[0].open('a') as file:
      file.write('{"files": {"vid')
    self.assertEqual(self.finished(clips), stems(clips))
    self.assertEqual(self.stems(), [clip.stem for clip in clips])
    files = [path.name for path in self.workdir.iterdir() if path.is_file()]
    self.assertCountEqual(files, ['manifest.jsonl', 'hashes.jsonl'])

  def test_other_number_of_hosts(self):
    """A clip that another host made again has its line, not the old one."""
    clips = make('a', 'b', 'c', 'd')
    self.finish(clips)
    self.open().gather(clips)
    video = self.open().file(clips[3], VIDEOS)
    video.write_text('damaged')
    self.assertEqual(self.finished(clips), stems(clips[:3]))
    video.write_text('another encoder')
    with self.open(host=1) as manifest:
      manifest.add(clips[3])
    self.assertEqual(self.finished(clips), stems(clips))

  def test_order_of_writing_has_no_say(self):
    clips = make('b', 'a', 'c', count=3)
    rng = random.Random(0)
    written = set()
    for number in range(6):
      self.workdir = self.new_workdir(f'{number}')
      num_hosts = 1 + number % 3
      for part in range(2):  # a killed run, and the one that goes on
        for host in range(num_hosts):
          mine = clips[host::num_hosts][part::2]
          rng.shuffle(mine)
          self.finish(mine, BOTH, host)
        self.open(BOTH).gather(clips)
      written.add(self.open().path.read_bytes())
    self.assertLen(written, 1)
    self.assertEqual(self.stems(), [clip.stem for clip in clips])

  def test_clips_of_other_runs_stay(self):
    others = make('z', 'y', 'x')
    self.finish(others)
    clips = make('b', 'y', 'a')
    self.finish(clips[:1])
    self.assertEqual(self.finished(clips), {'b-0', 'y-0'})
    self.assertEqual(self.stems(), ['b-0', 'y-0', 'x-0', 'z-0'])
    self.assertEqual(self.finished(others), stems(others))

  def test_twice_is_once(self):
    clips = make('a', 'b')
    self.finish(clips)
    self.open().gather(clips)
    before = self.open().path.read_bytes()
    self.open().gather(clips)
    self.assertEqual(self.open().path.read_bytes(), before)


class FinishedTest(_ManifestTest):
  def test_only_what_was_asked_about(self):
    clips = make('a', 'b', 'c')
    self.finish(clips[:2])
    self.assertEqual(self.finished(clips[1:]), {'b-0'})

  def spoil_and_check(self, clips, kind, kinds):
    path = self.open().file(clips[1], kind)
    whole = path.read_bytes()
    for data in (whole[:-1], b'', whole + b'\n', b'X' + whole[1:], None):
      if data is None:
        path.unlink()
      else:
        path.write_bytes(data)
      found = self.finished(clips, kinds)
      self.assertEqual(found, stems([clips[0], clips[2]]), data)
    path.mkdir()
    self.assertEqual(self.finished(clips, kinds), stems([clips[0], clips[2]]))
    path.rmdir()
    path.write_bytes(whole)
    self.assertEqual(self.finished(clips, kinds), stems(clips))

  @parameterized.parameters(
    (VIDEOS, (VIDEOS,)), (VIDEOS, BOTH), (LATENTS, BOTH)
  )
  def test_spoiled_file(self, kind, kinds):
    clips = make('a', 'b', 'c')
    self.finish(clips, kinds)
    self.spoil_and_check(clips, kind, kinds)

  def test_looks_unchanged(self):
    """Size and time of change are the same: only `verify` reads it."""
    clips = make('a', 'b')
    self.finish(clips)
    path = self.open().file(clips[0], VIDEOS)
    times = path.stat()
    path.write_bytes(b'X' + path.read_bytes()[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    self.assertEqual(self.finished(clips), stems(clips))
    self.assertEqual(self.open().finished(clips, verify=True), {'b-0'})

  def test_no_list_of_hashes(self):
    """As of older versions."""
    clips = make('a', 'b')
    self.finish(clips)
    (self.workdir / 'hashes.jsonl').unlink()
    self.open().file(clips[0], VIDEOS).write_text('changed')
    self.assertEqual(self.finished(clips), {'b-0'})

  def test_latents_are_wanted_later(self):
    clips = make('a', 'b')
    self.finish(clips)
    for clip in clips:
      self.open().file(clip, LATENTS).unlink()
    self.assertEqual(self.finished(clips, BOTH), set())
    # Some that the line does not know are not trusted.
    self.write(clips[0])
    self.assertEqual(self.finished(clips, BOTH), set())
    with self.open(BOTH) as manifest:
      manifest.add(clips[0])
    self.assertEqual(self.finished(clips, BOTH), {'a-0'})

  def test_latents_are_wanted_no_more(self):
    clips = make('a')
    self.finish(clips, BOTH)
    self.open().file(clips[0], LATENTS).unlink()
    self.assertEqual(self.finished(clips), stems(clips))


class OtherSettingTest(_ManifestTest):
  def check(self, clips, expected, **changes):
    manifest = self.open(**changes)
    manifest.gather(clips)
    before = self.open().path.read_bytes()
    with self.assertRaises(UserError) as caught:
      manifest.finished(clips)
    text = str(caught.exception)
    self.assertEqual(
      text, f'{manifest.path}: {expected}; give another --workdir'
    )
    self.assertLen(text.splitlines(), 1)
    self.assertEqual(self.open().path.read_bytes(), before)

  @parameterized.parameters(
    ('checkpoint', 'ff', "checkpoint = '0123456789abcdef'", "'ff'"),
    (
      'sampler',
      MADE_BY['sampler'] | {'name': 'ddim'},
      "sampler.name = 'dpm'",
      "'ddim'",
    ),
    (
      'sampler',
      MADE_BY['sampler'] | {'guidance_scale': 6.5},
      'sampler.guidance_scale = 6.0',
      '6.5',
    ),
    (
      'video',
      MADE_BY['video'] | {'num_frames': 9},
      'video.num_frames = 49',
      '9',
    ),
    ('video', MADE_BY['video'] | {'new': 1}, 'video.new = None', '1'),
    ('video', {'height': 480, 'width': 720}, 'video.num_frames = 49', 'None'),
    ('sizes', (1, 3), 'sizes = [1, 2]', '[1, 3]'),
    ('negative_prompt', 'bad', "negative_prompt = ''", "'bad'"),
    ('fps', 8.0, 'fps = None', '8.0'),
  )
  def test_setting(self, name, value, there, here):
    clips = make('a', 'b')
    self.finish(clips)
    self.check(
      clips,
      f'a-0 was made with {there}, which is now {here}',
      **{name: value},
    )

  def test_even_if_its_files_are_gone(self):
    clips = make('a')
    self.finish(clips)
    self.open().file(clips[0], VIDEOS).unlink()
    self.check(clips, 'a-0 was made with fps = None, which is now 8.0', fps=8.0)

  def test_same_settings_in_another_order(self):
    clips = make('a')
    self.finish(clips)
    self.assertEqual(
      self.finished(clips, **dict(reversed(MADE_BY.items()))), stems(clips)
    )

  @parameterized.parameters(
    ('text', 'another', "prompt = 'text of a'", "'another'"),
    ('text', 'a\u2028b\n', "prompt = 'text of a'", r"'a\u2028b\n'"),
    ('id', '7', "id = 'id of a'", "'7'"),
    ('name', 'A', "name = 'a'", "'A'"),
  )
  def test_prompt(self, field, value, there, here):
    (clip,) = make('a')
    self.finish([clip])
    prompt = dataclasses.replace(clip.prompt, **{field: value})
    self.check(
      [dataclasses.replace(clip, prompt=prompt)],
      f'a-0 was made with {there}, which is now {here}',
    )

  @parameterized.parameters(
    ('seed', 7, 'seed = SEED', '7'),
    ('initial_noise', '0f', 'initial_noise = None', "'0f'"),
    ('index', 1, 'index = 0', '1'),
  )
  def test_clip(self, field, value, there, here):
    (clip,) = make('a')
    self.finish([clip])
    there = there.replace('SEED', f'{clip.seed}')
    self.check(
      [dataclasses.replace(clip, **{field: value})],
      f'a-0 was made with {there}, which is now {here}',
    )

  def test_clips_that_are_not_asked_for_may_differ(self):
    clips = make('a', 'b')
    self.finish(clips[:1])
    self.assertEqual(self.finished(clips[1:], fps=8.0), set())
    self.assertEqual(self.stems(), ['a-0'])
