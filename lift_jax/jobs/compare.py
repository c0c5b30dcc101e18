"""Compares video models by their clips of the same prompts.

usage: lift compare --config=FILE.py[:variant] --workdir=DIR [--multihost]
                    [--config.SECTION.FIELD=VALUE ...]
       lift compare prompts --suite=vbench|vbench_long|hra_test|FILE
                            [--file=FILE] --out=PROMPTS.json [--text=KEY]
                            [--clips=N] [--seed=N]
       lift compare check --suite=PROMPTS.json --clips=DIR [--allow_missing]

Says which of two or more models is better, by how much and how sure: measures
flicker, motion and diversity of the clips that lift sample wrote, with DINO and
CLIP their consistency, quality and style, and adds critics' scores, results of
VBench and pairs that people compared where given.
Writes DIR/comparison.json and DIR/report.html, a self-contained page. What is
measured is kept, and the same command again resumes.

`prompts` writes a suite of prompts for lift sample, with the seed and number of
clips: --suite=vbench and vbench_long need VBench_full_info.json (or LiFT's
rewritten prompts) as --file, hra_test the test split of a critic. `check`
compares the clips in a workdir of lift sample with a suite.

example: lift compare --config=configs/compare.py:smoke --workdir=runs/compare
"""

from collections.abc import Sequence
import dataclasses
import json
import logging
import pathlib

import jax

from lift_jax import partitioning
from lift_jax.cli import job_flags
from lift_jax.comparison import (
  measuring,
  metrics,
  network_metrics,  # noqa: F401, which registers its metrics
)
from lift_jax.comparison.clip_sets import (
  ClipSet,
  Key,
  share_of_same_noise,
)
from lift_jax.comparison.distance_measuring import (
  DistanceMeasurer,
  distance_measured,
)
from lift_jax.comparison.flow import FlowMeasurer, flow_measured
from lift_jax.comparison.model_comparison import (
  MetricValues,
  Tree,
  compare_model,
)
from lift_jax.comparison.pair_choice import choose_pairs, is_of_clips
from lift_jax.comparison.vbench_results import VBenchResults, write_submission
from lift_jax.data.suites import Suite
from lift_jax.data.vbench_dimensions import DIMENSIONS, PUBLISHED
from lift_jax.evaluation.velocity_distance import VelocityDistance
from lift_jax.jobs import compare_suites
from lift_jax.jobs.compare_config import (
  CompareConfig,
  DistanceConfig,
  ModelsConfig,
)
from lift_jax.jobs.compare_inputs import Given, read_given
from lift_jax.models import generator_config
from lift_jax.report import compare_table
from lift_jax.report.compare_findings import findings, verdict
from lift_jax.report.compare_page import CompareContent, ShownPair, compare_page
from lift_jax.runtime import distributed, storage
from lift_jax.runtime.files import write_json, write_text
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import Stopped
from lift_jax.sampling.clips import safe_name
from lift_jax.toyworld import compared_models

_TOY_MODELS = 'toy_models'


def main(argv: list[str]) -> int:
  if argv and argv[0] == 'prompts':
    return compare_suites.write_prompts(argv[1:])
  if argv and argv[0] == 'check':
    return compare_suites.check(argv[1:])
  with job_flags.start(argv, CompareConfig, 'compare') as (call, logger):
    run(call, logger)
  return 0


def run(call: job_flags.Invocation, logger: logging.Logger) -> None:
  """Runs the job."""
  content = compare(call, logger)
  if content is not None:
    _write(call, content, logger)


def compare(
  call: job_flags.Invocation, logger: logging.Logger
) -> CompareContent | None:
  """Compares, and returns what is to be written, on the primary host."""
  config, workdir = call.config, call.workdir
  is_synthetic = bool(config.toy_prompts and not config.models.folders)
  if is_synthetic:
    config = _with_toy_models(config, workdir, logger)
  given = read_given(config)
  if config.vbench.submission and distributed.is_primary():
    _write_submissions(config, workdir, given)
  job_flags.write_config(call, 'compare')

  own = _measure(config, workdir, given.sets, given.suite, logger)
  if not distributed.is_primary():
    return None
  measured = [*given.measured, *own]
  result = {
    'synthetic': is_synthetic,
    'suite': {
      'name': given.suite.name,
      'num_prompts': len(given.suite.prompts),
      'num_clips': given.suite.num_clips,
    },
    'settings': json.loads(call.source.to_json_best_effort()),
    'faults': given.missing,
    'comparisons': [
      _compare(config, given, measured, number)
      for number in range(len(config.models.compared))
    ],
    'vbench': {
      found.model: {name: one.score for name, one in results.dimensions.items()}
      for found, results in zip(given.sets, given.vbench, strict=False)
    },
    'not_measured': _not_measured(config, measured, given.vbench),
  }
  result['verdicts'] = [verdict(one) for one in result['comparisons']]
  return CompareContent(
    result,
    _pairs(config, given.sets, measured),
    [
      row
      for row in PUBLISHED
      if given.vbench and row.evaluator in (None, given.vbench[0].evaluator)
    ],
  )


def _with_toy_models(
  config: CompareConfig, workdir: pathlib.Path, logger: logging.Logger
) -> CompareConfig:
  """The config with clips, scores and pairs of the toy world."""
  folder = workdir / _TOY_MODELS
  pairs = folder / compared_models.PAIRS
  if distributed.is_primary() and not pairs.exists():
    compared_models.write_models(folder, config.toy_prompts)
  distributed.barrier('the toy clips are written')
  logger.info(
    'compare: no folders are given, so clips, scores and preferences are '
    'simulated'
  )
  folders = tuple(str(folder / name) for name in compared_models.MODELS)
  return dataclasses.replace(
    config,
    models=ModelsConfig(compared_models.MODELS, folders, every_pair=False),
    critic=dataclasses.replace(
      config.critic,
      files=tuple(f'{one}/{compared_models.SCORES}' for one in folders),
      held_out=tuple(
        f'{one}/{compared_models.HELD_OUT_SCORES}' for one in folders
      ),
    ),
    people=dataclasses.replace(
      config.people, root=str(folder), files=(compared_models.PAIRS,)
    ),
  )


def _write_submissions(
  config: CompareConfig, workdir: pathlib.Path, given: Given
) -> None:
  """Writes a zip file for VBench's leaderboard for each model."""
  for found, results in zip(given.sets, given.vbench, strict=True):
    name = f'{safe_name(found.model, 100)}_vbench_submission.zip'
    write_submission(workdir / name, results, config.suite.allow_missing)


def _compare(
  config: CompareConfig,
  given: Given,
  measured: Sequence[MetricValues],
  number: int,
) -> Tree:
  """A comparison of two models, as in comparison.json."""
  pair = config.models.compared[number]
  base, other = (given.sets[index] for index in pair)
  statistics = config.statistics
  return {
    'base': base.model,
    'model': other.model,
    'coverage': statistics.bootstrap.coverage,
    'level': statistics.level,
    'same_noise': share_of_same_noise(base, other),
    'decisive': given.decisive,
    'missing_in_vbench': sum(
      given.vbench[which].num_missing for which in pair if given.vbench
    ),
    'rows': compare_model(
      [one.of(*pair) for one in measured],
      1,
      statistics,
      allow_missing=config.suite.allow_missing,
    ),
    'people': given.people[number] if given.people else {},
  }


def _measure(
  config: CompareConfig,
  workdir: pathlib.Path,
  sets: Sequence[ClipSet],
  suite: Suite,
  logger: logging.Logger,
) -> list[MetricValues]:
  """Measures all clips, of which each host measures its share."""
  weights = config.metrics.folders()
  registered = metrics.measures()
  opened = measuring.open_measures(registered, weights, suite.prompts)
  measurers = [
    measuring.ClipMeasurer(workdir, found, opened, suite) for found in sets
  ]
  for measurer in measurers:
    measurer.check_first()
  flows = [
    FlowMeasurer(workdir, found, storage.to_path(folder), suite)
    for found, folder in zip(
      sets if config.flow.folders else (), config.flow.folders, strict=True
    )
  ]
  distances = _distance_measurers(config.distance, workdir, sets)
  everything = [*measurers, *flows, *distances]
  total = sum(
    len(range(jax.process_index(), one.num_clips, jax.process_count()))
    for one in everything
  )
  progress = Progress(
    total, 'clip', logger=logger, enabled=distributed.is_primary()
  )
  if not measuring.measure_all(everything, config.run.num_readers, progress):
    logger.warning('compare: metrics are kept; run again to resume')
    raise Stopped
  results = [measurer.results() for measurer in measurers]
  measured = [
    MetricValues(metric, tuple(values[metric.name] for values, _ in results))
    for measure in registered
    if set(measure.needs) <= weights.keys()
    for metric in measure.metrics
  ]
  diversities = tuple(
    measuring.diversity_by_prompt(features) for _, features in results
  )
  flicker = [values[metrics.FLICKER] for values, _ in results]
  return [
    *measured,
    *flow_measured(flows, flicker, suite),
    MetricValues(metrics.DIVERSITY, diversities),
    *distance_measured(distances),
  ]


def _distance_measurers(
  config: DistanceConfig, workdir: pathlib.Path, sets: Sequence[ClipSet]
) -> list[DistanceMeasurer]:
  """Of all models but the first."""
  if not config.models:
    return []
  base_config, *_ = configs = config.model_configs()
  base, *others = (
    generator_config.open_chosen(one, workdir) for one in configs
  )
  mesh = partitioning.make_mesh(config.mesh, jax.local_devices())
  return [
    DistanceMeasurer(
      workdir,
      sets[0],
      found.model,
      VelocityDistance(
        base,
        other,
        base_config,
        mesh,
        draws=config.draws,
        batch_per_shard=config.batch_per_shard,
      ),
    )
    for found, other in zip(sets[1:], others, strict=True)
  ]


def _not_measured(
  config: CompareConfig,
  measured: Sequence[MetricValues],
  vbench: Sequence[VBenchResults],
) -> list[dict[str, str]]:
  """What the report lacks, and why."""
  weights = config.metrics.folders()
  reasons = {
    metric.title: 'needs a folder of weights: '
    + ', '.join(f'--config.metrics.weights.{name}' for name in measure.needs)
    for measure in metrics.measures()
    for metric in measure.metrics
    if not set(measure.needs) <= weights.keys()
  }
  if not vbench:
    reasons['VBench'] = 'no results are given (vbench.folders)'
    reasons['temporal style, overall consistency'] = (
      'need ViCLIP, which is not part of lift; they are read from results of '
      'VBench (vbench.folders)'
    )
  else:
    names = {one.metric.name for one in measured}
    for name in DIMENSIONS:
      if name not in names:
        reasons[name.replace('_', ' ')] = 'VBench gave no result for all models'
  for what, files, field in (
    ('critic', config.critic.files, 'critic.files'),
    ('held-out critic', config.critic.held_out, 'critic.held_out'),
    ('people', config.people.files, 'people.files'),
    ('static filter', config.flow.folders, 'flow.folders'),
    ('distance to base', config.distance.models, 'distance.models'),
  ):
    if not files:
      reasons[what] = f'none is given ({field})'
  empty = [one.metric.title for one in measured if not all(one.values)]
  reasons |= dict.fromkeys(empty, 'no prompt of the suite is about it')
  return [{'name': name, 'reason': reason} for name, reason in reasons.items()]


def _write(
  call: job_flags.Invocation, content: CompareContent, logger: logging.Logger
) -> None:
  """Writes the files of the comparison, and prints its table."""
  workdir = call.workdir
  write_json(workdir / 'comparison.json', content.result)
  page = compare_page(content, workdir, call.config.report)
  write_text(workdir / 'report.html', page)
  for comparison in content.result['comparisons']:
    logger.info('%s.', verdict(comparison))
    for line in findings(comparison):
      logger.info('%s', line)
    for line in compare_table.text_lines(comparison):
      logger.info('%s', line)
  logger.info('compare: full report in %s', workdir / 'report.html')


def _pairs(
  config: CompareConfig,
  sets: Sequence[ClipSet],
  measured: Sequence[MetricValues],
) -> list[ShownPair]:
  """The clips that the page shows side by side."""
  pairs = []
  for number, compared in enumerate(config.models.compared):
    base, other = (sets[index] for index in compared)
    of_both = [one.of(*compared) for one in measured]
    keys = [key for key in base.clips if key in other.clips]
    for chosen in choose_pairs(
      of_both, 1, keys, config.report.pairs, config.report.seed
    ):
      key = chosen.key
      pairs.append(
        ShownPair(
          number,
          base.clips[key].prompt,
          chosen.reasons,
          {found.model: found.clips[key] for found in (base, other)},
          _values(of_both, key),
        )
      )
  return pairs


def _values(
  measured: Sequence[MetricValues], key: Key
) -> list[tuple[str, str, str]]:
  """(title, value of the base, of the other) of a clip's metrics."""
  return [
    (one.metric.title, _text(one, 0, key), _text(one, 1, key))
    for one in measured
    if is_of_clips(one) and all(key in values for values in one.values)
  ]


def _text(one: MetricValues, which: int, key: Key) -> str:
  value = one.values[which][key]
  return f'{100 * value:.1f}' if one.metric.is_share else f'{value:.3f}'
