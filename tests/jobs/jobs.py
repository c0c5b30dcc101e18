"""Runs of `lift prepare` and `lift align` at the smallest size there is."""

from collections.abc import Sequence
import contextlib
import dataclasses
import io
import json
import logging
import os
import pathlib
import re
import resource
import socket
import subprocess
import sys

from array_record.python.array_record_module import ArrayRecordReader
import jax
import numpy as np
import orbax.checkpoint as ocp

from lift_jax.cli import main
from tests.data import clips

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / 'configs' / 'align_sample.py'

STEPS = 6
_SIZES = {
  'model.random.transformer.num_layers': 1,
  'model.random.transformer.num_heads': 2,
  'model.random.transformer.head_dim': 16,
  'model.random.transformer.time_embed_dim': 16,
  'model.random.transformer.text_embed_dim': 16,
  'model.random.transformer.max_text_length': 16,
  'model.random.vae.block_out_channels': (8, 8, 8, 8),
  'model.random.vae.norm_num_groups': 4,
  'model.random.text_encoder.num_layers': 1,
  'model.random.text_encoder.d_model': 16,
  'model.random.text_encoder.d_ff': 16,
  'model.random.text_encoder.d_kv': 8,
  'model.random.text_encoder.num_heads': 2,
  'data.sizes': ((16, 32), (32, 16)),
  'data.max_frames': 5,
  'prepare.batch_per_device': 1,
  'train.steps': STEPS,
  'train.log_every': 1,
  'train.export': False,
  'checkpoint.every_steps': 2,
  'validation.every_steps': 0,
  # Some gradients are zero but for rounding (of the keys' bias, which attention
  # does not see). Adam would make whole steps of it, other ones on each mesh.
  'optimizer.eps': 1e-4,
}


def flags(workdir: pathlib.Path, **settings) -> list[str]:
  """Flags of a job; settings are named like `data__root`."""
  named = {key.replace('__', '.'): value for key, value in settings.items()}
  overrides = (_SIZES | named).items()
  return [
    f'--config={CONFIG}:smoke',
    f'--workdir={workdir}',
    *(f'--config.{key}={value}' for key, value in overrides),
  ]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a job left behind: exit status, lines of the log, and the outputs."""

  status: int
  stderr: str
  log: list[str]
  stdout: str

  def has_logged(self, text: str) -> bool:
    return any(text in line for line in self.log)


class _Lines(logging.Handler):
  def __init__(self):
    super().__init__()
    self.lines = []

  def emit(self, record):
    self.lines.append(record.getMessage())


def lift(*argv: str) -> Outcome:
  """`lift ARGV` in this process."""
  handler = _Lines()
  logger = logging.getLogger('lift')
  logger.addHandler(handler)
  try:
    with (
      contextlib.redirect_stderr(io.StringIO()) as stderr,
      contextlib.redirect_stdout(io.StringIO()) as stdout,
    ):
      status = main.main(list(argv))
  finally:
    logger.removeHandler(handler)
  return Outcome(status, stderr.getvalue(), handler.lines, stdout.getvalue())


def start(
  code: str, argv: Sequence[str], num_devices: int = 8, **environment: str
) -> subprocess.Popen:
  """Runs Python code with `argv` in a process of its own.

  It has the compilation cache and the compiler's flags of the tests, so that
  it computes what they compute; and no torch, as the command.
  """
  code = f'from lift_jax.cli import main\nmain.hide_torch()\n{code}'
  count = f'--xla_force_host_platform_device_count={num_devices}'
  xla_flags = re.sub(
    r'--xla_force_host_platform_device_count=\d+',
    count,
    os.environ['XLA_FLAGS'],
  )
  return subprocess.Popen(
    [sys.executable, '-c', code, *argv],
    cwd=REPOSITORY,
    env=os.environ | {'XLA_FLAGS': xla_flags} | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(*processes: subprocess.Popen) -> list[tuple[int, str, str]]:
  """(return code, output, errors) of each, none of which lives on."""
  results = []
  try:
    for process in processes:
      output, errors = process.communicate(timeout=500)
      results.append((process.returncode, output, errors))
  finally:
    for process in processes:
      with process:
        process.kill()
  return results


def two_hosts(
  code: str, argv: Sequence[str], num_devices: int
) -> list[tuple[int, str, str]]:
  """What `finish` says of two processes that find each other.

  Args:
    code: Python.
    argv: of both.
    num_devices: of each.
  """
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
  hosts = [
    start(
      code,
      argv,
      num_devices,
      JAX_COORDINATOR_ADDRESS=f'127.0.0.1:{port}',
      JAX_NUM_PROCESSES='2',
      JAX_PROCESS_ID=str(index),
    )
    for index in range(2)
  ]
  return finish(*hosts)


def write_alignment(path: pathlib.Path, videos: Sequence[str]) -> None:
  """An alignment file of clips whose captions are their names."""
  items = [
    {
      'video': video,
      'caption': pathlib.PurePath(video).stem,
      'score': (index % 10) / 10,
    }
    for index, video in enumerate(videos)
  ]
  path.write_text(json.dumps(items), encoding='utf-8')


# Of each kind: how many clips, and their frames, height and width.
KINDS = {'wide': (8, 5, 16, 32), 'tall': (3, 3, 48, 24)}
BUCKETS = {'wide': (2, 2, 4), 'tall': (1, 4, 2)}


def make_clips(root: pathlib.Path) -> None:
  """Clips of every kind; all of them in all.json, wide ones in wide.json."""
  (root / 'videos').mkdir(parents=True)
  names = {}
  for kind, (count, *size) in KINDS.items():
    names[kind] = [f'videos/{kind}_{index}.mp4' for index in range(count)]
    for seed, name in enumerate(names[kind]):
      clips.write_clip(root / name, *size, seed=seed)
  # Kinds alternate, so that several buckets fill at a time.
  everything = sorted(sum(names.values(), []), key=lambda name: name[-5])
  write_alignment(root / 'all.json', everything)
  write_alignment(root / 'wide.json', names['wide'])


def state_of(workdir: pathlib.Path, step: int) -> dict:
  """What a checkpoint holds, as NumPy arrays."""
  path = workdir / 'checkpoints' / str(step) / 'state'
  with ocp.PyTreeCheckpointer() as checkpointer:
    tree = checkpointer.metadata(path).item_metadata.tree
    plain = jax.tree.map(lambda _: ocp.RestoreArgs(np.ndarray), tree)
    return checkpointer.restore(
      path, args=ocp.args.PyTreeRestore(restore_args=plain)
    )


def records_of(cache: pathlib.Path) -> dict[str, tuple]:
  """Every encoded record of a finished cache, by video."""
  index = json.loads((cache / 'index.json').read_text())
  records = {}
  for record in index['records']:
    path = cache / 'shards' / f'{record["shard"]}.array_record'
    reader = ArrayRecordReader(str(path))
    data = reader.read([record['position']])[0]
    reader.close()
    assert record['video'] not in records
    records[record['video']] = (tuple(record['bucket']), data)
  return records


@contextlib.contextmanager
def full_disk():
  """A disk that a test may fill: `fill(num_bytes)` limits every later file.

  The limit is the whole process's, so meanwhile nothing is put into the cache
  of compiled programs, and no bytecode is written: a cut file there would spoil
  the tests that follow.
  """
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  writes_bytecode = not sys.dont_write_bytecode
  least_seconds = 'jax_persistent_cache_min_compile_time_secs'
  before = getattr(jax.config, least_seconds)
  jax.config.update(least_seconds, 1e9)
  sys.dont_write_bytecode = True
  try:
    yield lambda num_bytes: resource.setrlimit(
      resource.RLIMIT_FSIZE, (num_bytes, limits[1])
    )
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    jax.config.update(least_seconds, before)
    sys.dont_write_bytecode = not writes_bytecode


def steps_of(workdir: pathlib.Path) -> list[int]:
  """Steps of metrics.jsonl with a loss, in its order."""
  return [line['step'] for line in metrics_of(workdir) if 'loss' in line]


def metrics_of(workdir: pathlib.Path) -> list[dict]:
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def checkpoints_of(workdir: pathlib.Path) -> list[str]:
  """Names of everything in the folder of the checkpoints."""
  folder = workdir / 'checkpoints'
  return (
    sorted(path.name for path in folder.iterdir()) if folder.exists() else []
  )


def leftovers(folder: pathlib.Path) -> list[pathlib.Path]:
  """Files and folders that something half-written would leave."""
  return [
    path
    for path in folder.rglob('*')
    if 'partial' in path.name or 'orbax-checkpoint-tmp' in path.name
  ]
