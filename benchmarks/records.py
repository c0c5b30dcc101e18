"""Jobs with tens of thousands of records: docs/performance.md.

  python benchmarks/records.py --workdir=DIR [--records=1000,40000]
    [--only=prepare,align,sample,score,evaluate,compare]

Makes data sets of so many records: hard links to a few clips of the toy world,
each with a caption of its own. Then it starts each job as a process, with the
tiny networks of the `:smoke` configs, and takes the time and the peak memory
(resident set) of two runs:

  start    from the start of the process until its first batch has ended, which
           shows in a file: the first line of ratings.jsonl (score),
           manifest.jsonl (sample), metrics_*.jsonl (compare) or metrics.jsonl
           (align, after a step), or the first shard (prepare). Then the job
           gets SIGTERM. `evaluate` has no batches: its records are read, and
           the first metrics begin.
  restart  the same command once everything is done, from start to end.
           `evaluate` keeps nothing, so that this is a complete run.

Making 40,000 clips would take long. So what is done, before the restart, is
what the stopped job left of its first clip, written for every record by the
writers of the package: shards of the cache, lines of a manifest or a journal,
and hard links to clips. Only `align` is really finished: it trains for one
step. A comparison is of two models with half of the clips each.

Jobs read what others left: to measure `align`, name `prepare` too, and for
`compare`, `sample`.

Prints a table. Seconds are those of computing, in all threads: on one core, as
with `taskset -c 0`, that is the time that a job takes where nothing else runs.
"""

import argparse
import collections
from collections.abc import Callable, Iterable, Mapping
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader

from lift_jax.comparison.clip_sets import OF_CLIP, read_clips
from lift_jax.data import json_records
from lift_jax.data.cache import EncodedClip, LatentCache, unpack
from lift_jax.data.prompts import read_prompts
from lift_jax.data.records import read_alignment
from lift_jax.runtime import storage
from lift_jax.runtime.files import read_json, write_json
from lift_jax.runtime.journal import Journal
from lift_jax.sampling import manifest
from lift_jax.sampling.clips import Clip, make_clips
from lift_jax.sampling.manifest import Manifest
from lift_jax.toyworld import dataset, feedback

_CONFIGS = pathlib.Path(__file__).resolve().parents[1] / 'configs'
_CLIPS = 10  # that the records link to
_SHARD = 64  # records per shard of a complete cache
_MIB = 2.0**20
_AIM_SECONDS = {'start': 30, 'restart': 60}
_AIM_MEMORY = 2**30
_PROMPTS = 'prompts.txt'
_POLL = 0.1  # seconds
_LIMIT = 1800.0  # seconds that a run may take


@dataclasses.dataclass(frozen=True)
class Measured:
  """A run of a job.

  Attributes:
    seconds: from the start of its process.
    cpu: seconds of computing, of all its threads.
    memory: its peak by then, in bytes.
    silence: most seconds of computing without any output on its terminal, not
      counting those before the first line.
  """

  seconds: float
  cpu: float
  memory: float
  silence: float


@dataclasses.dataclass(frozen=True)
class Job:
  """A job of the benchmark; paths are relative to the folder of its data set.

  Attributes:
    name: verb of `lift`.
    config: a file of configs/.
    settings: of the config.
    is_started: whether the first batch has ended, from the folder of the data
      set and what the job printed.
    finish: writes what a finished job leaves, given what was stopped.
  """

  name: str
  config: str
  settings: Mapping[str, object]
  is_started: Callable[[pathlib.Path, bytes], bool]
  finish: Callable[[pathlib.Path], None]

  @property
  def command(self) -> list[str]:
    return [
      *(sys.executable, '-m', 'lift_jax', self.name),
      *(f'--config={_CONFIGS / self.config}', f'--workdir={self.name}'),
      *(f'--config.{name}={value}' for name, value in self.settings.items()),
    ]


def _has_line(pattern: str) -> Callable[[pathlib.Path, bytes], bool]:
  def is_started(folder: pathlib.Path, _: bytes) -> bool:
    return any(path.stat().st_size for path in folder.glob(pattern))

  return is_started


def jobs() -> dict[str, Job]:
  """All jobs, in an order in which they have what they need."""
  cached = {
    'data.root': 'data',
    'data.synthetic': (dataset.SCORES,),
    'data.cache': 'prepare/cache',
    'prepare.records_per_shard': 2,  # one batch
    'validation.every_steps': 0,
    'checkpoint.every_steps': 1,
    'train.steps': 1,
    'train.log_every': 1,
  }
  found = [
    Job(
      'prepare',
      'align_sample.py:smoke',
      cached,
      _has_line('prepare/cache/shards/*.json'),
      _finish_prepare,
    ),
    Job(
      'align',
      'align_sample.py:smoke',
      cached,
      _has_line('align/metrics.jsonl'),
      lambda _: None,
    ),
    Job(
      'sample',
      'sample.py:smoke',
      {'prompts.file': f'data/{_PROMPTS}'},
      _has_line('sample/manifest.jsonl'),
      _finish_sample,
    ),
    Job(
      'score',
      'score.py:smoke',
      {'videos.root': 'data', 'videos.files': (dataset.SCORES,)},
      _has_line('score/ratings.jsonl'),
      _finish_score,
    ),
    Job(
      'evaluate',
      'eval_critic.py:smoke',
      {
        'scores.files': (f'data/{dataset.SCORES}',),
        'labels.root': 'data',
        'labels.files': (dataset.HRA,),
        'labels.questions': feedback.questions_path(),
      },
      lambda _, printed: b' ratings of ' in printed,
      lambda _: None,
    ),
    Job(
      'compare',
      'compare.py:smoke',
      {'models.folders': ('base', 'other')},
      _has_line('compare/metrics_*.jsonl'),
      _finish_compare,
    ),
  ]
  return {job.name: job for job in found}


def write_data(folder: pathlib.Path, num_records: int) -> None:
  """Writes clips, captions, scores and ratings of so many records.

  Their probabilities differ, as those of a critic do.
  """
  few, data = folder / 'few', folder / 'data'
  dataset.write_clips(few, _CLIPS, height=48, width=64)
  scores = {one['video']: one for one in _records(few / dataset.SCORES)}
  ratings = _records(few / dataset.HRA)
  rated_videos = {one['video'] for one in ratings}
  sources = [
    one
    for video, one in scores.items()
    if 'score' in one and video in rated_videos
  ]
  (data / 'videos').mkdir(parents=True)
  scored, rated = [], []
  for number in range(num_records):
    source = sources[number % len(sources)]
    video = f'videos/{number:06d}.mp4'
    caption = f'{number}: {source["caption"]}'
    os.link(few / source['video'], data / video)
    spread = (number % 997) / 5000
    probabilities = {
      dimension: {
        label: (1 - spread) * share + spread / len(shares)
        for label, share in shares.items()
      }
      for dimension, shares in source['probabilities'].items()
    }
    one = {'video': video, 'caption': caption, 'probabilities': probabilities}
    scored.append(source | one)
    for one in ratings:
      if one['video'] == source['video']:
        text = json.dumps(one | {'video': video})
        rated.append(json.loads(text.replace(source['caption'], caption)))
  write_json(data / dataset.HRA, rated)
  _write_lines(data / dataset.SCORES, map(json.dumps, scored))
  _write_lines(data / _PROMPTS, (one['caption'] for one in scored))


def _records(path: pathlib.Path) -> list[dict[str, Any]]:
  return [item for _, item in json_records.load_list(path.name, path, '')]


def _write_lines(path: pathlib.Path, lines: Iterable[str]) -> None:
  path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')


def _finish_prepare(folder: pathlib.Path) -> None:
  """A complete cache: the first encoded clip, for every record."""
  path = folder / 'prepare/cache'
  made_by = read_json(path / 'made_by.json')['made_by']
  cache = LatentCache(path, made_by)
  first = next(iter(cache.finished().values()))
  reader = ArrayRecordReader(str(cache.shard_path(first.shard)))
  (data,) = reader.read([first.position])
  shutil.rmtree(path / 'shards')
  cache.start()
  records = read_alignment(folder / 'data', (dataset.SCORES,)).records
  for first_index in range(0, len(records), _SHARD):
    cache.write_shard(
      first.bucket,
      [
        EncodedClip(
          record,
          data,
          _signature(record.path),
          first.video_sha256,
          first.frames_shape,
          first.flags,
          first.motion,
        )
        for record in records[first_index : first_index + _SHARD]
      ],
    )
  cache.write_null_text(unpack(data)['text'])
  cache.write_index()


def _signature(path: pathlib.Path) -> storage.FileSignature:
  found = storage.file_signature(path)
  assert found is not None  # it was just linked
  return found


def _clips(folder: pathlib.Path) -> list[Clip]:
  prompts, _ = read_prompts(folder / 'data' / _PROMPTS)
  return make_clips(prompts, 1, 0, '{id}-{index}')[0]


def _finish_sample(folder: pathlib.Path) -> None:
  """The first clip, for every prompt; and halves of them as two models."""
  workdir = folder / 'sample'
  line, *_ = manifest.read_lines(workdir).values()
  sampled = workdir / next(iter(line['files']))
  # A file has at most 65,000 links on ext4, so each folder has one of its own.
  few = {
    target: shutil.copy(sampled, folder / 'few' / f'{target}.mp4')
    for target in ('sample', 'base', 'other')
  }
  fingerprint = {k: v for k, v in line.items() if k not in OF_CLIP}
  clips = _clips(folder)
  half = len(clips) // 2
  shutil.rmtree(workdir / manifest.VIDEOS)
  for target, some in (
    (workdir, clips),
    (folder / 'base', clips[:half]),
    (folder / 'other', clips[:half]),
  ):
    (target / manifest.VIDEOS).mkdir(parents=True)
    with Manifest(target, fingerprint) as written:
      for clip in some:
        os.link(few[target.name], written.file(clip, manifest.VIDEOS))
        written.add(clip)


def _finish_score(folder: pathlib.Path) -> None:
  """The first rating, for every record."""
  path = folder / 'score' / 'ratings.jsonl'
  line = json.loads(path.read_text(encoding='utf-8').partition('\n')[0])
  with Journal(path, lambda line: line['video']) as journal:
    for one in _records(folder / 'data' / dataset.SCORES):
      stamp = storage.file_signature(folder / 'data' / one['video'])
      of_record = {k: one[k] for k in ('video', 'caption')} | {'stamp': stamp}
      journal.add(line | of_record)


def _finish_compare(folder: pathlib.Path) -> None:
  """The first measurements, for every clip."""
  (first, *_) = (
    path
    for path in (folder / 'compare').glob('metrics_*.jsonl')
    if path.stat().st_size
  )
  line = json.loads(first.read_text(encoding='utf-8').partition('\n')[0])
  for model in ('base', 'other'):
    found = read_clips(model, folder / model)
    path = folder / 'compare' / f'metrics_{model}.jsonl'
    with Journal(path, lambda line: line['video']) as journal:
      for clip in found.clips.values():
        stamp = storage.file_signature(clip.path)
        journal.add(line | {'video': clip.video, 'stamp': stamp})


def measure(
  job: Job, folder: pathlib.Path, until_start: bool, log: pathlib.Path
) -> Measured:
  """Runs a job, until its first batch has ended or to its end."""
  terminal, own = pty.openpty()
  termios.tcsetwinsize(own, (24, 80))  # bars of 0 columns are not shown
  start = time.monotonic()
  process = subprocess.Popen(
    job.command,
    cwd=folder,
    stdin=subprocess.DEVNULL,
    stdout=own,
    stderr=own,
  )
  os.close(own)
  printed, silence, memory, last = b'', 0.0, 0.0, None
  found = None
  while True:
    is_ready, _, _ = select.select([terminal], [], [], _POLL)
    seconds, cpu = time.monotonic() - start, _cpu_seconds(process.pid)
    memory = max(memory, _peak_memory(process.pid))
    if last is not None and found is None:
      silence = max(silence, cpu - last)
    if is_ready:
      try:
        printed, last = printed + os.read(terminal, 65536), cpu
      except OSError:  # the process has ended
        break
    if until_start and found is None and job.is_started(folder, printed):
      found = Measured(seconds, cpu, memory, silence)
      if job.name != 'align':
        process.send_signal(signal.SIGTERM)
    if seconds > _LIMIT:
      process.kill()
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  os.close(terminal)
  log.write_bytes(printed)
  is_stopped = process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)
  if process.returncode and not (found and is_stopped):
    raise RuntimeError(f'{job.name} ended with {process.returncode}; see {log}')
  if until_start:
    assert found is not None
    return found
  return Measured(
    time.monotonic() - start,
    usage.ru_utime + usage.ru_stime,
    memory,  # usage.ru_maxrss includes what this process had when it forked
    silence,
  )


def _cpu_seconds(process: int) -> float:
  """Seconds that a process has computed so far."""
  text = pathlib.Path(f'/proc/{process}/stat').read_text(encoding='utf-8')
  user, system = text.rpartition(')')[2].split()[11:13]
  return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def _peak_memory(process: int) -> float:
  """Largest resident set of a process so far, in bytes; 0 once it has ended."""
  text = pathlib.Path(f'/proc/{process}/status').read_text(encoding='utf-8')
  found = re.search(r'VmHWM:\s+(\d+) kB', text)
  return 1024.0 * int(found[1]) if found else 0.0


def table(results: Mapping[tuple[str, str], Mapping[int, Measured]]) -> str:
  """Rows of docs/performance.md.

  Args:
    results: of each job and kind of run, by number of records.
  """
  sizes = list(next(iter(results.values())))
  header = ['job', 'run']
  header += [f'{size:,} records, CPU s' for size in sizes]
  header += [f'{size:,} records, MiB' for size in sizes]
  header += ['CPU s per 1,000', 'MiB per 1,000', 'silent, CPU s', 'aims']
  rows = [header, ['---'] * len(header)]
  for (job, kind), by_size in results.items():
    runs = list(by_size.values())
    thousands = (sizes[-1] - sizes[0]) / 1000 or 1
    cpu_slope = (runs[-1].cpu - runs[0].cpu) / thousands
    memory_slope = (runs[-1].memory - runs[0].memory) / _MIB / thousands
    is_met = runs[-1].cpu <= _AIM_SECONDS[kind] and (
      kind == 'restart' or runs[-1].memory <= _AIM_MEMORY
    )
    rows.append(
      [
        job,
        kind,
        *(f'{run.cpu:.1f}' for run in runs),
        *(f'{run.memory / _MIB:.0f}' for run in runs),
        f'{cpu_slope:.3f}',
        f'{memory_slope:.1f}',
        f'{runs[-1].silence:.1f}',
        'met' if is_met else '**missed**',
      ]
    )
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--records', default='1000,40000')
  parser.add_argument('--only', default=','.join(jobs()))
  flags = parser.parse_args()
  root = flags.workdir.resolve()
  sizes = sorted(map(int, flags.records.split(',')))
  only = flags.only.split(',')
  results = collections.defaultdict(dict)
  for size in sizes:
    folder = root / str(size)
    if folder.exists():
      parser.error(f'{folder} exists; give another --workdir')
    write_data(folder, size)
    for name, job in jobs().items():
      if name not in only:
        continue
      for kind in ('start', 'restart'):
        log = folder / f'{name}_{kind}.txt'
        run = measure(job, folder, kind == 'start', log)
        results[name, kind][size] = run
        print(f'{size:,} {name} {kind}: {run}', flush=True)
        if kind == 'start':
          job.finish(folder)
  packages = ('jax', 'flax', 'numpy', 'av')
  versions = [f'{name} {importlib.metadata.version(name)}' for name in packages]
  print(f'\n{table(results)}\n\nPython {sys.version.split()[0]}, ', end='')
  print(', '.join(versions))
  return 0


if __name__ == '__main__':
  sys.exit(main())
