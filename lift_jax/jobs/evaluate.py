"""Evaluates a critic against ratings of clips, or comparisons of pairs.

usage: lift evaluate --config=FILE.py[:variant] --workdir=DIR
                     [--config.SECTION.FIELD=VALUE ...]

Reads scored records, as lift score writes them, and human ratings (HRA), pairs
that people compared, or both. Writes all metrics to DIR/evaluation.json and
DIR/report.html, a self-contained page. A table of the main metrics is printed.

example: lift evaluate --config=configs/eval_critic.py:smoke --workdir=runs/eval
"""

from collections import Counter
from collections.abc import Sequence
import dataclasses
import json
import logging
import pathlib

from lift_jax import config_lib
from lift_jax.cli import job_flags
from lift_jax.data.clip_paths import FOLLOW_LINKS
from lift_jax.data.hra import HRARecord, read_hra
from lift_jax.data.json_records import ON_BAD_RECORD, ReadResult
from lift_jax.data.pair_records import PairRecord, read_pairs
from lift_jax.data.rubric import Scale, read_rubric
from lift_jax.data.splits import check_disjoint, split_records
from lift_jax.errors import UserError
from lift_jax.evaluation.comparison import Comparison, Rating, join
from lift_jax.evaluation.critic_evaluation import (
  MetricsConfig,
  Tree,
  evaluate,
  worst,
)
from lift_jax.evaluation.preferences import evaluate_preferences
from lift_jax.evaluation.scores import ScoredRecord, read_scores
from lift_jax.jobs import inputs
from lift_jax.report import critic_table, preferences_table
from lift_jax.report.critic_page import (
  PageConfig,
  critic_page,
  preferences_page,
)
from lift_jax.rewards.weights import RewardMap
from lift_jax.runtime import distributed, hub
from lift_jax.runtime.files import write_json, write_text
from lift_jax.toyworld import dataset, feedback


@dataclasses.dataclass(frozen=True)
class ScoresConfig:
  """The scores of the critic.

  Attributes:
    files: scored records; relative to the current folder.
  """

  files: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LabelsConfig:
  """The ratings of annotators.

  Attributes:
    root: the folder of the videos, which need not exist, or the id of a data
      set on the hub; '' is the current folder.
    files: HRA files, relative to the root.
    questions: a prompt JSON or rubric (`data.rubric`) with the questions,
      labels and rewards of these files; '' detects the questions, of LiFT's
      dimensions and labels.
    on_bad_record: 'error' or 'skip'; applies to the scores too.
    follow_links: links out of the root that may be followed; see
      `clip_paths.ClipFolder`.
  """

  root: str
  files: tuple[str, ...]
  questions: str
  on_bad_record: str
  follow_links: str

  def __post_init__(self):
    config_lib.check_choice(
      'labels.on_bad_record', self.on_bad_record, ON_BAD_RECORD
    )
    config_lib.check_choice(
      'labels.follow_links', self.follow_links, FOLLOW_LINKS
    )


@dataclasses.dataclass(frozen=True)
class PreferencesConfig:
  """Pairs of clips that people compared.

  Attributes:
    files: see `data.pair_records`; relative to `labels.root`.
  """

  files: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TrainedOnConfig:
  """The training data of the critic.

  Attributes:
    files: HRA files; a video or caption that is in these and in the labels is
      an error.
  """

  files: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CalibrationConfig:
  """The ratings that temperatures and thresholds are fitted on.

  Attributes:
    files: HRA files of ratings for this purpose only.
    fraction: without files, the fraction of the labels' prompts, with all of
      their videos, that is used; 0 fits nothing.
    seed: of the choice of these prompts.
  """

  files: tuple[str, ...]
  fraction: float
  seed: int

  def __post_init__(self):
    if not 0 <= self.fraction < 1:
      raise UserError(
        f'calibration.fraction is {self.fraction:g}; it must be in [0, 1)'
      )


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """Sections of an evaluation.

  If no files are given, `toy_clips` clips of the toy world are used, with
  simulated ratings and scores.
  """

  scores: ScoresConfig
  labels: LabelsConfig
  preferences: PreferencesConfig
  train: TrainedOnConfig
  calibration: CalibrationConfig
  reward: RewardMap
  metrics: MetricsConfig
  report: PageConfig
  toy_clips: int


@dataclasses.dataclass(frozen=True)
class _Input:
  """All records of an evaluation."""

  scored: ReadResult[ScoredRecord]
  labels: ReadResult[HRARecord]
  pairs: ReadResult[PairRecord]
  calibration: ReadResult[HRARecord]
  train: ReadResult[HRARecord]
  scale: Scale


def main(argv: list[str]) -> int:
  with job_flags.start(argv, EvaluateConfig, 'evaluate') as (call, logger):
    if distributed.is_primary():
      run(call, logger)
  return 0


def run(call: job_flags.Invocation, logger: logging.Logger) -> None:
  """Runs the job, on one host."""
  config, workdir = call.config, call.workdir
  is_synthetic = bool(
    config.toy_clips
    and not config.scores.files
    and not config.labels.files
    and not config.preferences.files
  )
  if is_synthetic:
    config = _with_toy_clips(config, workdir, logger)
  config = _with_local_root(config)
  records = _read(config)
  job_flags.write_config(call, 'evaluate')
  result: Tree = {
    'synthetic': is_synthetic,
    'critic': next((r.critic for r in records.scored.records if r.critic), ''),
    'settings': json.loads(call.source.to_json_best_effort()),
    'preferences': None,
  }
  if records.pairs.records:
    result['preferences'] = evaluate_preferences(
      records.pairs.records,
      records.scored.records,
      records.scale,
      config.metrics.bootstrap,
    )
  if records.labels.records:
    page = _evaluate_ratings(config, records, result, logger)
  else:
    result['left_out'] = {'skipped': _skipped(records)}
    page = preferences_page(result)
  write_json(workdir / 'evaluation.json', result)
  write_text(workdir / 'report.html', page)
  if records.labels.records:
    for line in critic_table.text_lines(result):
      logger.info('%s', line)
  if result['preferences']:
    for line in preferences_table.text_lines(result['preferences']):
      logger.info('%s', line)
  _log_omitted(result, logger)
  logger.info('evaluate: full report in %s', workdir / 'report.html')


def _evaluate_ratings(
  config: EvaluateConfig,
  records: _Input,
  result: Tree,
  logger: logging.Logger,
) -> str:
  """Adds what ratings tell to the result; returns the page."""
  comparison, evaluated, calibration = _compare(config, records)
  logger.info(
    'evaluate: %d ratings of %d videos, %d more to fit temperatures',
    len(evaluated),
    len({rating.video for rating in evaluated}),
    len(calibration),
  )
  shown = worst(evaluated, config.report.worst)
  result |= {
    'counts': _counts(records, evaluated, calibration),
    **evaluate(evaluated, calibration, records.scale, config.metrics),
    'left_out': _omitted(records, comparison),
    'worst': [_describe(rating) for rating in shown],
  }
  return critic_page(result, shown, config.report)


def _with_toy_clips(
  config: EvaluateConfig, workdir: pathlib.Path, logger: logging.Logger
) -> EvaluateConfig:
  """The config with clips, ratings and scores of the toy world."""
  folder = workdir / inputs.TOY_CLIPS
  dataset.write_clips(folder, config.toy_clips)
  logger.info(
    'evaluate: no files are given, so clips, ratings and scores are simulated'
  )
  return dataclasses.replace(
    config,
    scores=ScoresConfig((str(folder / dataset.SCORES),)),
    labels=dataclasses.replace(
      config.labels,
      root=str(folder),
      files=(dataset.HRA,),
      questions=str(feedback.questions_path()),
    ),
  )


def _with_local_root(config: EvaluateConfig) -> EvaluateConfig:
  """The config with a folder in place of the id of a data set."""
  labels = config.labels
  files = (
    *labels.files,
    *config.preferences.files,
    *config.calibration.files,
    *config.train.files,
  )
  root = str(hub.data_folder(labels.root, files))
  return dataclasses.replace(
    config, labels=dataclasses.replace(labels, root=root)
  )


def _read(config: EvaluateConfig) -> _Input:
  """Reads and checks all files; training and evaluation are disjoint."""
  labels = config.labels
  if not labels.files and not config.preferences.files:
    raise UserError(
      'labels.files is empty: give human ratings, as '
      '--config.labels.files=FILE, or pairs that people compared, as '
      '--config.preferences.files=FILE'
    )
  rubric = read_rubric(labels.questions) if labels.questions else None
  scale = config.reward.scale(rubric)

  def ratings(files: Sequence[str]) -> ReadResult[HRARecord]:
    if not files:
      return ReadResult([], [])
    return read_hra(
      labels.root,
      files,
      rubric.questions if rubric else None,
      labels.on_bad_record,
      require_files=False,
      follow_links=labels.follow_links,
      labels=scale.labels,
    )

  records = _Input(
    scored=read_scores(
      labels.root,
      config.scores.files,
      labels.on_bad_record,
      labels.follow_links,
      scale,
    ),
    labels=ratings(labels.files),
    pairs=_read_pairs(config),
    calibration=ratings(config.calibration.files),
    train=ratings(config.train.files),
    scale=scale,
  )
  check_disjoint(
    {
      'train.files': records.train.records,
      'calibration.files': records.calibration.records,
      'labels.files': records.labels.records,
    },
    by_file=True,
  )
  return records


def _read_pairs(config: EvaluateConfig) -> ReadResult[PairRecord]:
  if not config.preferences.files:
    return ReadResult([], [])
  return read_pairs(
    config.labels.root or '.',
    config.preferences.files,
    config.labels.on_bad_record,
    require_files=False,
    follow_links=config.labels.follow_links,
  )


def _compare(
  config: EvaluateConfig, records: _Input
) -> tuple[Comparison, list[Rating], list[Rating]]:
  """The comparison, and its ratings for evaluation and for calibration."""
  scored = records.scored.records
  comparison = join(
    [*records.labels.records, *records.calibration.records],
    scored,
    records.scale,
  )
  if records.calibration.records:
    videos = {record.video for record in records.calibration.records}
    calibration = [r for r in comparison.ratings if r.video in videos]
    evaluated = [r for r in comparison.ratings if r.video not in videos]
  elif config.calibration.fraction:
    fraction = config.calibration.fraction
    parts = split_records(
      comparison.ratings,
      {'evaluated': 1 - fraction, 'calibration': fraction},
      config.calibration.seed,
      by_file=True,
    )
    evaluated, calibration = parts['evaluated'], parts['calibration']
  else:
    evaluated, calibration = comparison.ratings, []
  if not evaluated:
    raise UserError(
      f'{", ".join(config.labels.files)}: no clips with scores other than '
      'those of calibration.files; run lift score on them'
    )
  return comparison, evaluated, calibration


def _counts(
  records: _Input, evaluated: Sequence[Rating], calibration: Sequence[Rating]
) -> Tree:
  flags = Counter(
    flag for record in records.scored.records for flag in record.flags
  )
  return {
    'scored_records': len(records.scored.records),
    'human_records': len(records.labels.records)
    + len(records.calibration.records),
    'train_records': len(records.train.records),
    'ratings_evaluated': len(evaluated),
    'videos_evaluated': len({rating.video for rating in evaluated}),
    'ratings_aside': len(calibration),
    'videos_aside': len({rating.video for rating in calibration}),
    'flags': dict(sorted(flags.items())),
  }


def _omitted(records: _Input, comparison: Comparison) -> Tree:
  """Records that were not compared, or count as wrong without an answer."""
  return {
    'rated_not_scored': [list(item) for item in comparison.rated_not_scored],
    'scored_not_rated': comparison.scored_not_rated,
    'errors': [
      [record.where, record.error]
      for record in records.scored.records
      if record.error
    ],
    'skipped': _skipped(records),
  }


def _skipped(records: _Input) -> list[list[str]]:
  return [
    list(item)
    for part in (
      records.scored,
      records.labels,
      records.pairs,
      records.calibration,
      records.train,
    )
    for item in part.skipped
  ]


def _describe(rating: Rating) -> Tree:
  """A disagreement, as written to evaluation.json."""
  assert rating.answer is not None  # `worst` chooses among those answered
  return {
    'video': rating.video,
    'caption': rating.caption,
    'dimension': rating.dimension,
    'human': rating.human,
    'rationales': list(rating.rationales),
    'answer': dataclasses.asdict(rating.answer),
    'where': [rating.where, rating.scored.where],
  }


def _log_omitted(result: Tree, logger: logging.Logger) -> None:
  """Logs a line for each kind of omitted record."""
  logger.info('')
  for kind, items in result['left_out'].items():
    if items:
      logger.warning(
        '%d %s, listed in evaluation.json', len(items), kind.replace('_', ' ')
      )
