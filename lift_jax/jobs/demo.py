"""The full pipeline in the toy world: feedback, critic, rewards, alignment.

usage: lift demo [--workdir=DIR] [--from_scratch]
                 [--config=FILE.py[:variant]] [--config.SECTION.FIELD=VALUE ...]

Samples clips from a tiny CogVideoX, has simulated annotators rate some, trains
a critic on these ratings and scores the other clips with it. Then it fine-tunes
the model twice for the same number of steps: on all of these clips alike, and
on pairs of a better and a worse one. Both results and the original model are
compared on held-out prompts by `lift compare`, with the verdicts of checkers
that have ground truth.

DIR (default: runs/demo) gets every stage, results.json and report.html. The
same command again resumes. Both models come with the package; --from_scratch
pretrains them first, which takes hours.

example: lift demo --config=:smoke --workdir=runs/demo_smoke
"""

from collections.abc import Mapping, Sequence
import dataclasses
import importlib.metadata
import json
import logging
import pathlib
import platform
import resource
from typing import Any

from lift_jax.cli import job_flags
from lift_jax.data import video
from lift_jax.data.hra import DIMENSIONS
from lift_jax.errors import UserError
from lift_jax.jobs import demo_config
from lift_jax.jobs.demo_config import DemoConfig
from lift_jax.jobs.demo_stages import Demo
from lift_jax.report import compare_table
from lift_jax.report.compare_page import sections
from lift_jax.report.demo_page import (
  MODELS,
  DemoContent,
  ShownClip,
  ShownPrompt,
  demo_page,
  headline,
)
from lift_jax.runtime import distributed, lock, storage
from lift_jax.runtime.files import read_json, write_json, write_text
from lift_jax.toyworld import compute_dtype, judge, weights

_PRETRAINING = (
  'pretrain_vae',
  'pretrain_t2v',
  'pretrain_critic',
  'refine_critic',
)
_STAGES = (
  'sample',
  'annotate',
  'train_critic',
  'score',
  'evaluate',
  'align_plain',
  'align',
  *MODELS,
)
_WITH_NETWORK = ('sample', 'train_critic', 'score', 'align')
# Settings of plain fine-tuning, which differ from those of the demo.
PLAIN = {'objective.name': 'sft'}
_PACKAGES = ('lift_jax', 'jax', 'jaxlib', 'flax', 'optax', 'grain', 'numpy')


def main(argv: list[str]) -> int:
  call = job_flags.parse(
    argv,
    DemoConfig,
    'demo',
    default_config=demo_config.__file__,
    default_workdir='runs/demo',
    switches={'from_scratch': 'Pretrain both models first.'},
  )
  if call.multihost:
    raise UserError('the demo runs on one host; leave --multihost out')
  if storage.is_remote(call.workdir):
    raise UserError('the demo writes to a disk; give a folder as --workdir')
  logger = distributed.start_logging()
  job_flags.use_compilation_cache()
  with lock.locked(call.workdir / lock.NAME):
    run(call, logger)
  return 0


def run(call: job_flags.Invocation, logger: logging.Logger) -> dict[str, Any]:
  """Runs the demo; returns the content of results.json."""
  from_scratch = 'from_scratch' in call.switches
  stages = (*_PRETRAINING, *_STAGES) if from_scratch else _STAGES
  call = _with_compute_dtype(call, logger)
  demo = Demo(call, stages, logger)
  job_flags.write_config(call, 'demo')
  if from_scratch:
    demo.pretrain()
    model, critic = (
      call.workdir / 'pretrained' / name for name in ('t2v', 'critic')
    )
  else:
    model, critic = weights.T2V, weights.CRITIC
  demo.sample_training(model)
  demo.annotate()
  demo.train_critic(critic)
  demo.score()
  demo.evaluate_critic()
  plain = demo.align(model, name='align_plain', settings=PLAIN)
  feedback = demo.align(model)
  judged = {}
  for name, folder in zip(MODELS, (model, plain, feedback), strict=True):
    clips = demo.sample_held_out(folder, name)
    judged[name] = judge.judge_videos(clips)
  compared = demo.compare(judged)
  results = {
    'seed': call.config.seed,
    'versions': versions(),
    'counts': dataclasses.asdict(call.config.clips),
    'comparisons': compared.result['comparisons'],
    'labels': {name: judge.label_shares(judged[name]) for name in MODELS},
    'flaws': {name: judge.flaw_shares(judged[name]) for name in MODELS},
    'critic': critic_numbers(call.workdir / 'evaluation'),
    'seconds': demo.seconds(),
    # Linux counts KiB.
    'peak_memory_gib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    / 2**20,
  }
  write_json(call.workdir / 'results.json', results)
  content = DemoContent(
    results,
    sections(compared, call.workdir, call.config.compare.report),
    _shown_prompts(judged, call.config.shown_prompts),
    {
      'train_critic': _curves(call.workdir / 'critic'),
      'align_plain': _curves(call.workdir / 'align_plain'),
      'align': _curves(call.workdir / 'align'),
    },
    _configs(call),
  )
  write_text(call.workdir / 'report.html', demo_page(content))
  for line in _table(results):
    print(line)
  print(f'\nThe report: {call.workdir / "report.html"}')
  return results


def _with_compute_dtype(
  call: job_flags.Invocation, logger: logging.Logger
) -> job_flags.Invocation:
  """The invocation with the number format that every stage computes in."""
  written = job_flags.config_path(call.workdir, 'demo')
  earlier = read_json(written) if written.is_file() else {}
  dtype = compute_dtype.choose(
    call.config.compute_dtype, earlier.get('compute_dtype'), logger
  )
  chosen = job_flags.make_call(
    call.source,
    DemoConfig,
    call.workdir,
    {
      'compute_dtype': dtype,
      **{f'{stage}.model.compute_dtype': dtype for stage in _WITH_NETWORK},
    },
  )
  return dataclasses.replace(call, config=chosen.config, source=chosen.source)


def versions() -> dict[str, str]:
  """Versions of Python and of the packages that affect the results."""
  found = {'python': platform.python_version()}
  for name in _PACKAGES:
    found[name] = importlib.metadata.version(name)
  return found


def critic_numbers(folder: pathlib.Path) -> dict[str, Any]:
  """The main metrics of `lift evaluate`, per dimension and over all."""
  evaluation = read_json(folder / 'evaluation.json')
  sections = {**evaluation['dimensions'], 'all': evaluation['all']}
  return {
    name: {
      'accuracy': section['agreement']['accuracy'],
      'macro_f1': section['agreement']['macro_f1'],
      'ece': section['calibration']['before']['ece'],
    }
    for name, section in sections.items()
  }


def _shown_prompts(
  judged: Mapping[str, Sequence[judge.JudgedClip]], count: int
) -> list[ShownPrompt]:
  """Prompts at even intervals, whatever the rewards of their clips.

  Args:
    judged: clips by model.
    count: prompts to show, at most.
  """
  by_key = {
    model: {clip.key: clip for clip in clips} for model, clips in judged.items()
  }
  first = judged[MODELS[0]]
  count = min(count, len(first))
  chosen = [first[number * len(first) // count] for number in range(count)]
  return [
    ShownPrompt(
      clip.caption,
      {model: _shown(clips[clip.key]) for model, clips in by_key.items()},
    )
    for clip in chosen
  ]


def _shown(clip: judge.JudgedClip) -> ShownClip:
  return ShownClip(
    video.decode(clip.path, where=str(clip.path)).frames,
    {name: verdict.label for name, verdict in clip.verdicts.items()},
    {name: verdict.rationale for name, verdict in clip.verdicts.items()},
    clip.reward,
  )


# Prefixes of the metrics to plot.
_PLOTTED = (
  'loss',
  'label_accuracy',
  'validation',
  'grad_norm',
  'implicit_accuracy',
  'winner_change',
  'loser_change',
)


def _curves(folder: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
  """Metrics of a training run by name."""
  curves: dict[str, list[tuple[int, float]]] = {}
  for line in (folder / 'metrics.jsonl').read_text().splitlines():
    scalars = json.loads(line)
    step = scalars.pop('step')
    for name, value in scalars.items():
      if name.startswith(_PLOTTED) and value is not None:
        curves.setdefault(name, []).append((step, value))
  return curves


def _configs(call: job_flags.Invocation) -> dict[str, Any]:
  """The resolved config of each run: by its name, its job and folder."""
  runs = {
    'demo': ('demo', '.'),
    'sample': ('sample', 'clips'),
    'train_critic': ('train_critic', 'critic'),
    'score': ('score', 'scores'),
    'evaluate': ('evaluate', 'evaluation'),
    'align_plain': ('align', 'align_plain'),
    'align': ('align', 'align'),
  }
  return {
    name: read_json(job_flags.config_path(call.workdir / folder, job))
    for name, (job, folder) in runs.items()
  }


def _table(results: dict[str, Any]) -> list[str]:
  """The lines of the table that is printed."""
  counts, critic = results['counts'], results['critic']
  lines = [
    '',
    f'{counts["held_out"]} held-out prompts, {counts["per_held_out"]} clips of '
    'each, from the same noise for all models',
    '',
    headline(results)[0],
  ]
  for comparison in results['comparisons']:
    lines += ['', *compare_table.text_lines(comparison)]
  lines += [
    '',
    'critic on clips that it has not learnt from',
    f'{"":12}{"accuracy":>22}{"macro-F1":>22}{"ECE":>22}',
  ]
  for name in (*DIMENSIONS, 'all'):
    cells = (critic[name][key] for key in ('accuracy', 'macro_f1', 'ece'))
    lines.append(f'{name:12}' + ''.join(map(_cell, cells)))
  lines += ['', 'where the time went']
  seconds = results['seconds']
  for name, value in seconds.items():
    lines.append(f'{name:14}{value:8.1f} s')
  lines.append(f'{"together":14}{sum(seconds.values()):8.1f} s')
  lines.append(f'memory at most {results["peak_memory_gib"]:.1f} GiB')
  return lines


def _cell(estimate: dict[str, float | None]) -> str:
  value = estimate['value']
  if value is None:
    return f'{"-":>22}'
  low, high = (
    '-' if bound is None else f'{100 * bound:.1f}'
    for bound in (estimate['low'], estimate['high'])
  )
  return f'{100 * value:.1f}% [{low}, {high}]'.rjust(22)
