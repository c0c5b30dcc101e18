"""Inputs of `lift compare`: what is given besides the clips, and its checks."""

from collections import Counter
from collections.abc import Sequence
import dataclasses

from lift_jax.comparison import metrics
from lift_jax.comparison.clip_sets import (
  ClipSet,
  check_listed,
  check_same_prompts,
  read_clips,
  refuse,
)
from lift_jax.comparison.metric_files import read_metric_files
from lift_jax.comparison.model_comparison import (
  CRITIC,
  HELD_OUT,
  MetricValues,
  Tree,
  check_held_out,
  critic_measured,
  given_measured,
  people_results,
  vbench_measured,
)
from lift_jax.comparison.vbench_results import VBenchResults, read_results
from lift_jax.data import suites
from lift_jax.data.pair_records import read_pairs
from lift_jax.data.prompts import read_prompts
from lift_jax.data.splits import normalize_caption
from lift_jax.data.suites import Suite
from lift_jax.data.vbench_dimensions import TOTALS
from lift_jax.errors import UserError
from lift_jax.evaluation.scores import read_scores
from lift_jax.jobs.compare_config import (
  CompareConfig,
  CriticScoresConfig,
  ModelsConfig,
)
from lift_jax.runtime import storage


@dataclasses.dataclass(frozen=True)
class Given:
  """Everything that a comparison is given.

  Attributes:
    sets: clips of each model.
    suite: the clips that there should be.
    vbench: results of each model; empty if none are given.
    measured: metrics of VBench, of files and of critics.
    decisive: name of the metric that the verdict is about; '' for the usual.
    people: win rates by dimension, of each comparison; empty if no pairs are
      given.
    missing: clips that are missing though they may, as {'model', 'text'}.
  """

  sets: list[ClipSet]
  suite: Suite
  vbench: list[VBenchResults]
  measured: list[MetricValues]
  decisive: str
  people: list[dict[str, Tree]]
  missing: list[dict[str, str]]


def read_given(config: CompareConfig) -> Given:
  """Reads and checks everything but the clips themselves."""
  if not config.models.folders:
    raise UserError(
      'models.folders is empty: give workdirs of lift sample, as '
      '--config.models.folders=\'("BASE", "OTHER")\''
    )
  sets = _read_sets(config.models)
  suite = _suite(config, sets)
  _check_not_trained_on(config.critic, suite)
  allow_missing = config.suite.allow_missing
  vbench = [
    read_results(storage.to_path(folder), suite, allow_missing)
    for folder in config.vbench.folders
  ]
  _check_one_evaluator(vbench)
  files = read_metric_files(
    [storage.to_path(file) for file in config.metrics.files],
    sets if config.metrics.files else (),
  )
  measured = [
    *vbench_measured(vbench),
    *given_measured(files),
    *_critics(config.critic, sets),
  ]
  _check_names(measured)
  return Given(
    sets,
    suite,
    vbench,
    measured,
    files[0].decisive if files else '',
    _people(config, sets),
    _check_sets(sets, suite, allow_missing),
  )


def _check_names(measured: Sequence[MetricValues]) -> None:
  """Raises UserError if a metric of a file has the name of another one."""
  names = [
    *TOTALS,
    metrics.DIVERSITY.name,
    *(name for measure in metrics.measures() for name in measure.names),
    *(one.metric.name for one in measured),
  ]
  name, count = Counter(names).most_common(1)[0]
  if count > 1:
    raise UserError(
      f'metrics.files: {name!r} is the name of another metric; rename it'
    )


def _read_sets(models: ModelsConfig) -> list[ClipSet]:
  paths = [storage.to_path(folder) for folder in models.folders]
  names = models.names or tuple(path.name for path in paths)
  if len(set(names)) < len(names):
    raise UserError(
      f'models.folders: two are named {max(names, key=names.count)!r}; name '
      'the models in models.names'
    )
  return [
    read_clips(name, path) for name, path in zip(names, paths, strict=True)
  ]


def _suite(config: CompareConfig, sets: Sequence[ClipSet]) -> Suite:
  """That of the config, or else the clips that any of the models has."""
  if config.suite.file:
    return suites.read_suite(storage.to_path(config.suite.file))
  if config.vbench.folders:
    raise UserError(
      'suite.file is empty: VBench needs its suite, which lift compare prompts '
      'writes'
    )
  check_same_prompts(sets)
  clips = [
    (clip.key[0], clip.key[1], clip.prompt)
    for found in sets
    for clip in found.clips.values()
  ]
  return suites.suite_of(f'of {sets[0].model}', clips)


def _check_not_trained_on(critic: CriticScoresConfig, suite: Suite) -> None:
  """Raises UserError if a critic was trained on a prompt of the suite."""
  trained = {
    normalize_caption(prompt.text): prompt.where
    for file in critic.trained_on
    for prompt in read_prompts(file)[0]
  }
  for prompt in suite.prompts:
    for text in (prompt.text, prompt.name):
      if where := trained.get(normalize_caption(text)):
        raise UserError(
          f'{where}: the critic was trained on the prompt '
          f'{text[:60]!r}; compare clips of other prompts, or leave out its '
          'scores'
        )


def _check_one_evaluator(vbench: Sequence[VBenchResults]) -> None:
  evaluators = {results.evaluator: results.files[0] for results in vbench}
  if len(evaluators) > 1:
    one, other = evaluators.items()
    raise UserError(
      f'{one[1]} is from {one[0]}, {other[1]} from {other[0]}; their scores '
      'differ, so evaluate all models with one of them'
    )


def _critics(
  critic: CriticScoresConfig, sets: Sequence[ClipSet]
) -> list[MetricValues]:
  records = {
    kind: [
      read_scores(found.folder, (file,)).records
      for found, file in zip(sets, files, strict=True)
    ]
    for kind, files in ((CRITIC, critic.files), (HELD_OUT, critic.held_out))
    if files
  }
  if len(records) == 2:
    check_held_out(*records.values())
  return [
    measured
    for kind, scored in records.items()
    for measured in critic_measured(kind, sets, scored, critic.reward.scale())
  ]


def _people(
  config: CompareConfig, sets: Sequence[ClipSet]
) -> list[dict[str, Tree]]:
  people = config.people
  if not people.files:
    return []
  records = read_pairs(
    people.root or '.', people.files, follow_links=people.follow_links
  ).records
  return people_results(
    sets, records, config.models.compared, config.statistics.bootstrap
  )


def _check_sets(
  sets: Sequence[ClipSet], suite: Suite, allow_missing: bool
) -> list[dict[str, str]]:
  """What is missing; a UserError for anything else that is wrong."""
  missing = []
  for found in sets:
    faults = check_listed(found, suite)
    refuse(found, faults, allow_missing=allow_missing)
    missing += [{'model': found.model, 'text': str(one)} for one in faults]
  return missing
