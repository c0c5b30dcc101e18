"""What killed runs leave behind, once they have run again: docs/launch.md.

  python benchmarks/kills.py --workdir=DIR [--kills=20] [--rounds=2] [--seed=0]

Aligns the model of the toy world in rounds: `lift sample`, `lift score`,
`lift prepare` and `lift align`, whose model the next round begins with; and
then by `lift rounds`, which is all of that in one job. First nothing disturbs
them. Then the same runs again, as often as needed for so many kills: a job is
killed (SIGKILL) after a random share of its time, and the same command runs
once more. What it leaves has to be what the undisturbed job left, bit for bit:
every file, encoded clip and array of a checkpoint, and nothing that is half
written. Not compared is what tells the time: TensorBoard's files, rates in
metrics.jsonl, the duration of a stage, and times of change of videos; nor which
shard of a cache a clip is in, nor the path of the workdir.

Prints a row for each kill. DIR must be empty, and gets all workdirs and logs.
"""

import argparse
from collections.abc import Mapping
import dataclasses
import hashlib
import json
import logging
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from array_record.python.array_record_module import ArrayRecordReader
import jax
import numpy as np
import orbax.checkpoint as ocp

from lift_jax.toyworld import feedback, scenes, weights

_CONFIGS = pathlib.Path(__file__).resolve().parents[1] / 'configs'
_CLIPS = 16  # of a round
_STEPS = 8

# What jobs say of the work of earlier runs.
_RESUMED = re.compile(
  r'resumed at step \d+|\d+ of \d+ (?:videos|clips)(?= are (?:in|rated))'
)
# A stage of a job that has stages, and whether it was done before the kill.
_STAGE = re.compile(r': stage \d+ of \d+, ([^\s:]+)(: already done)?$', re.M)
# Names of what is half written.
_PARTIAL = re.compile(r'\.partial|orbax-checkpoint-tmp')
_CLOCKS = (
  *('step_seconds', 'data_wait_seconds', 'videos_per_second_per_chip', 'mfu'),
)
# By name of a file: keys that tell the time.
_TIMES = {
  'metrics.jsonl': _CLOCKS,
  'ratings.jsonl': ('stamp',),
  'hashes.jsonl': ('signature',),
}
_SECONDS = re.compile(rb'"seconds": [0-9.]+')
# Folders whose files are not compared as they are.
_APART = {'cache', 'checkpoints', 'tensorboard'}
_NULL_TEXT = 'null_text.array_record'


@dataclasses.dataclass(frozen=True)
class Stage:
  """A job of a round.

  Attributes:
    folder: its workdir, in the folder of all rounds.
    job: verb of `lift`.
    config: a file of configs/.
    settings: of the config; paths are relative to the folder of all rounds.
  """

  folder: str
  job: str
  config: str
  settings: Mapping[str, object]

  @property
  def command(self) -> list[str]:
    return [
      *(sys.executable, '-m', 'lift_jax', self.job),
      *(f'--config={_CONFIGS / self.config}:smoke', f'--workdir={self.folder}'),
      *(f'--config.{name}={value}' for name, value in self.settings.items()),
    ]


def stages(num_rounds: int) -> list[Stage]:
  """The jobs of all rounds, in order, and the job that runs rounds."""
  found, model = [], str(weights.T2V)
  for number in range(1, num_rounds + 1):
    sample, score, prepare, align = (
      f'{number}_{job}' for job in ('sample', 'score', 'prepare', 'align')
    )
    found.append(
      Stage(
        sample,
        'sample',
        'sample.py',
        {
          'model.path': model,
          'prompts.file': '../prompts.txt',
          'prompts.seed': number,
          'video.height': 32,
          'video.width': 32,
          'sampler.num_steps': 20,
        },
      )
    )
    found.append(
      Stage(
        score,
        'score',
        'score.py',
        {
          'model.path': weights.CRITIC,
          'model.template': 'hermes-2',
          'prompts.questions': feedback.questions_path(),
          'prompts.text_buckets': (64,),
          'videos.root': sample,
          'videos.files': ('manifest.jsonl',),
        },
      )
    )
    settings = {
      'model.path': model,
      'data.root': sample,
      'data.synthetic': (f'../{score}/scores.json',),
      'data.cache': f'{prepare}/cache',
      'data.sizes': ((32, 32),),
      'train.steps': _STEPS,
      'train.caption_dropout': 0.1,
      'checkpoint.every_steps': 2,
      'validation.video.height': 32,
      'validation.video.width': 32,
    }
    found += [
      Stage(prepare, 'prepare', 'align_sample.py', settings),
      Stage(align, 'align', 'align_sample.py', settings),
    ]
    model = f'{align}/export'
  return [*found, Stage('rounds', 'rounds', 'rounds_cogvideox_2b.py', {})]


@dataclasses.dataclass(frozen=True)
class Kill:
  """A job that was killed and run again.

  Attributes:
    folder: of the stage.
    moment: seconds from its start to the kill.
    seconds: that it would have taken.
    resumed: what the second run says of the first.
    num_same: files, clips and arrays as in the undisturbed job.
    different: names of the others.
  """

  folder: str
  moment: float
  seconds: float
  resumed: str
  num_same: int
  different: tuple[str, ...]


class Runs:
  """Runs of stages, each with a log in the folder `logs`.

  Args:
    folder: of everything.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    # Programs are compiled once, so that not all kills are of a compiler.
    self._environment = {
      'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
    } | os.environ
    self._seconds: dict[str, float] = {}  # of each stage that nothing disturbs

  def whole(self, stage: Stage, chain: pathlib.Path) -> None:
    """Runs a stage from its start to its end."""
    start = time.monotonic()
    self._finish(stage, chain)
    self._seconds[stage.folder] = time.monotonic() - start

  def _finish(self, stage: Stage, chain: pathlib.Path) -> str:
    """Runs a stage to its end; returns what it printed."""
    process, log = self._start(stage, chain)
    status = process.wait()
    printed = log.read_text(encoding='utf-8')
    if status:
      raise RuntimeError(f'{stage.folder} ended with {status}:\n{printed}')
    return printed

  def killed(self, stage: Stage, chain: pathlib.Path, share: float) -> Kill:
    """Kills a stage after a share of its time, and runs it again."""
    while True:
      seconds = self._seconds[stage.folder]
      start = time.monotonic()
      process, _ = self._start(stage, chain)
      try:
        process.wait(timeout=share * seconds)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        break
      # It was faster than before, when programs had to be compiled.
      self._seconds[stage.folder] = time.monotonic() - start
      shutil.rmtree(chain / stage.folder)
    resumed = where_resumed(self._finish(stage, chain))
    num_same, different = compare(
      contents(self._folder / 'undisturbed' / stage.folder),
      contents(chain / stage.folder),
    )
    return Kill(
      stage.folder,
      share * seconds,
      seconds,
      resumed,
      num_same,
      different,
    )

  def _start(
    self, stage: Stage, chain: pathlib.Path
  ) -> tuple[subprocess.Popen, pathlib.Path]:
    log = self._folder / 'logs' / f'{chain.name}_{stage.folder}.txt'
    log.parent.mkdir(exist_ok=True)
    with log.open('w', encoding='utf-8') as file:
      process = subprocess.Popen(
        stage.command,
        cwd=chain,
        env=self._environment,
        stdout=file,
        stderr=subprocess.STDOUT,
      )
    return process, log


def where_resumed(log: str) -> str:
  """What the log of a job's second run says of the work of the first."""
  if stages := _STAGE.findall(log):
    todo = [name for name, done in stages if not done]
    return f'at {todo[0]}' if todo else 'after the last stage'
  found = _RESUMED.findall(log)
  return found[-1] if found else 'from the start'


def compare(
  expected: Mapping[str, str], found: Mapping[str, str]
) -> tuple[int, tuple[str, ...]]:
  """(number of equal contents, names of all others)."""
  names = sorted(expected.keys() | found.keys())
  different = [n for n in names if expected.get(n) != found.get(n)]
  return len(names) - len(different), tuple(different)


def contents(workdir: pathlib.Path) -> dict[str, str]:
  """Hash of all that a job left: files, clips of its cache, checkpoints."""
  found = {}
  for path in sorted(workdir.rglob('*')):
    name = path.relative_to(workdir)
    if _PARTIAL.search(path.name):
      found[str(name)] = 'half written'
    elif path.is_file() and not _APART.intersection(name.parts):
      # Jobs of `lift rounds` have paths below its workdir in their configs.
      lasting = _lasting(path).replace(str(workdir).encode(), b'WORKDIR')
      found[str(name)] = _hash(lasting)
    elif path.name == 'cache':
      found |= _below(name, _cached(path))
    elif path.name == 'checkpoints':
      for folder in path.iterdir():
        found |= _below(name / folder.name, _checkpoint(folder))
  return found


def _below(name: pathlib.Path, hashes: Mapping[str, str]) -> dict[str, str]:
  return {f'{name}/{key}': value for key, value in hashes.items()}


def _hash(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def _lasting(path: pathlib.Path) -> bytes:
  """The content of a file without what tells the time."""
  drop = _TIMES.get(path.name)
  if drop is None:
    # What finished stages were made of, and how long they took.
    is_marker = 'stages' in path.parts and path.suffix == '.json'
    return (
      _SECONDS.sub(b'', path.read_bytes()) if is_marker else (path.read_bytes())
    )
  lines = map(json.loads, path.read_text(encoding='utf-8').splitlines())
  kept = [{k: v for k, v in line.items() if k not in drop} for line in lines]
  return json.dumps(kept).encode()


def _cached(cache: pathlib.Path) -> dict[str, str]:
  """Hashes of the encoded clips, and of the empty caption."""
  found = {'null_text': _record_hash(cache / _NULL_TEXT, 0)}
  index = json.loads((cache / 'index.json').read_text(encoding='utf-8'))
  for entry in index['records']:
    found[entry['video']] = _record_hash(
      cache / 'shards' / f'{entry["shard"]}.array_record', entry['position']
    )
  return found


def _record_hash(path: pathlib.Path, position: int) -> str:
  reader = ArrayRecordReader(str(path))
  (record,) = reader.read([position])
  reader.close()
  return _hash(record)


def _checkpoint(folder: pathlib.Path) -> dict[str, str]:
  """Hashes of the arrays of a training state."""
  path = folder / 'state'
  with ocp.PyTreeCheckpointer() as checkpointer:
    tree = checkpointer.metadata(path).item_metadata.tree
    plain = jax.tree.map(lambda _: ocp.RestoreArgs(np.ndarray), tree)
    state = checkpointer.restore(
      path, args=ocp.args.PyTreeRestore(restore_args=plain)
    )
  return {
    jax.tree_util.keystr(key): _hash(np.ascontiguousarray(leaf).tobytes())
    for key, leaf in jax.tree_util.tree_leaves_with_path(state)
  }


def row(number: int, kill: Kill) -> str:
  """A row of the table."""
  named = ', '.join(kill.different[:3]) or 'none'
  if len(kill.different) > 3:
    named += f' and {len(kill.different) - 3} more'
  return (
    f'| {number} | {kill.folder} | {kill.moment:.1f} of {kill.seconds:.1f} | '
    f'{kill.resumed} | {kill.num_same} | {named} |'
  )


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--rounds', type=int, default=2)
  parser.add_argument('--seed', type=int, default=0)
  flags = parser.parse_args()
  folder = flags.workdir.resolve()
  folder.mkdir(parents=True, exist_ok=True)
  if any(folder.iterdir()):
    parser.error(f'{folder} is not empty; give another --workdir')
  # Orbax warns of metadata that no checkpoint of these has.
  logging.getLogger('absl').setLevel(logging.ERROR)
  captions = [scene.caption for scene in scenes.training_scenes()[:_CLIPS]]
  (folder / 'prompts.txt').write_text('\n'.join(captions), encoding='utf-8')

  runs, jobs = Runs(folder), stages(flags.rounds)
  chains = [folder / 'undisturbed']
  chains[0].mkdir()
  for stage in jobs:
    runs.whole(stage, chains[0])

  rng = np.random.default_rng(flags.seed)
  num_chains = math.ceil(flags.kills / len(jobs))
  chosen = rng.permutation(num_chains * len(jobs))[: flags.kills].tolist()
  shares = dict(zip(chosen, rng.uniform(size=flags.kills), strict=True))
  kills = []
  print('| | job | killed after, s | resumed | same | different |')
  print('|---|---|---|---|---|---|')
  for number in range(num_chains):
    chains.append(folder / f'disturbed_{number + 1}')
    chains[-1].mkdir()
    for index, stage in enumerate(jobs, number * len(jobs)):
      if index not in shares:
        runs.whole(stage, chains[-1])
        continue
      kills.append(runs.killed(stage, chains[-1], shares[index]))
      print(row(len(kills), kills[-1]), flush=True)

  num_same = sum(not kill.different for kill in kills)
  models = [contents(chain / jobs[-1].folder) for chain in chains]
  num_equal = sum(model == models[0] for model in models)
  print(
    f'\n{num_same} of {len(kills)} killed jobs left what the undisturbed did; '
    f'{num_equal} of {len(chains)} chains end with the same model, bit for bit'
  )
  return int(num_same < len(kills) or num_equal < len(chains))


if __name__ == '__main__':
  sys.exit(main())
