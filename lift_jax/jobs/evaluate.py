"""Evaluates a critic against ratings of clips, or comparisons of pairs.

usage: lift evaluate --config=FILE.py[:variant] --workdir=DIR
                     [--config.SECTION.FIELD=VALUE ...]

Reads scored records, as lift score writes them, and human ratings (HRA), pairs
that people compared, or both. Writes all metrics to DIR/evaluation.json and
DIR/report.html, a self-contained page. A table of the main metrics is printed.
With scores of several critics, another table compares them on the same ratings
and pairs, and DIR/ensemble.json has the scores of all of them as one critic.

example: lift evaluate --config=configs/eval_critic.py:smoke --workdir=runs/eval
"""

from collections import Counter
from collections.abc import Callable, Sequence
import dataclasses
import json
import logging
import pathlib

from lift_jax.cli import job_flags
from lift_jax.data.hra import HRARecord, read_hra
from lift_jax.data.json_records import ReadResult
from lift_jax.data.pair_records import PairRecord, read_pairs
from lift_jax.data.rubric import Scale, read_rubric
from lift_jax.data.splits import check_disjoint, split_records
from lift_jax.errors import UserError, listing
from lift_jax.evaluation import ensemble, normalization
from lift_jax.evaluation.comparison import Comparison, Rating, join
from lift_jax.evaluation.critic_comparison import compare_critics
from lift_jax.evaluation.critic_evaluation import Tree, evaluate, worst
from lift_jax.evaluation.normalization import Normalization
from lift_jax.evaluation.preferences import evaluate_preferences
from lift_jax.evaluation.scores import ScoredRecord, read_scores
from lift_jax.jobs import inputs
from lift_jax.jobs.evaluate_config import EvaluateConfig
from lift_jax.report import critic_table, critics_table, preferences_table
from lift_jax.report.critic_page import critic_page, preferences_page
from lift_jax.runtime import distributed, hub, storage
from lift_jax.runtime.files import write_json, write_text
from lift_jax.toyworld import dataset, feedback


@dataclasses.dataclass(frozen=True)
class _Input:
  """All records of an evaluation."""

  scored: ReadResult[ScoredRecord]
  others: dict[str, ReadResult[ScoredRecord]]  # by file
  normalizations: dict[str, Normalization]  # by fingerprint of a critic
  labels: ReadResult[HRARecord]
  pairs: ReadResult[PairRecord]
  tuning: ReadResult[PairRecord]
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
    'critic': _critic(records.scored.records),
    'settings': json.loads(call.source.to_json_best_effort()),
    'preferences': None,
    'critics': None,
  }
  if records.pairs.records:
    result['preferences'] = evaluate_preferences(
      records.pairs.records,
      records.scored.records,
      records.scale,
      config.metrics.bootstrap,
      tuning=records.tuning.records,
      normalization=records.normalizations.get(result['critic']),
    )
  if records.others:
    result['critics'] = _compare_critics(config, records, workdir)
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
  if result['critics']:
    for line in critics_table.text_lines(result['critics']):
      logger.info('%s', line)
  _log_omitted(result, logger)
  logger.info('evaluate: full report in %s', workdir / 'report.html')


def _critic(records: Sequence[ScoredRecord]) -> str:
  """The fingerprint of the critic, or ''."""
  return next((record.critic for record in records if record.critic), '')


def _compare_critics(
  config: EvaluateConfig, records: _Input, workdir: pathlib.Path
) -> Tree:
  """The table of several critics and of their ensemble, which is written."""
  scale = records.scale
  critics = {
    ', '.join(config.scores.files): records.scored.records,
    **{name: other.records for name, other in records.others.items()},
  }
  normalizations = {
    name: found
    for name, own in critics.items()
    if (found := records.normalizations.get(_critic(own)))
  }
  scored = list(critics.values())
  write_json(workdir / f'{ensemble.NAME}.json', ensemble.to_json(scored, scale))
  critics[ensemble.NAME] = ensemble.make_ensemble(scored, scale)
  return compare_critics(
    critics,
    records.labels.records,
    records.pairs.records,
    scale,
    config.metrics.bootstrap,
    normalizations,
  )


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
    scores=dataclasses.replace(
      config.scores, files=(str(folder / dataset.SCORES),)
    ),
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
    *config.preferences.tuning,
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

  def scores(files: Sequence[str]) -> ReadResult[ScoredRecord]:
    return read_scores(
      labels.root, files, labels.on_bad_record, labels.follow_links, scale
    )

  scored = scores(config.scores.files)
  records = _Input(
    scored=scored,
    others={file: scores([file]) for file in config.scores.others},
    normalizations=_normalizations(config, scored, scores, scale),
    labels=ratings(labels.files),
    pairs=_read_pairs(config, config.preferences.files),
    tuning=_read_pairs(config, config.preferences.tuning),
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


def _normalizations(
  config: EvaluateConfig,
  scored: ReadResult[ScoredRecord],
  scores: Callable[[Sequence[str]], ReadResult[ScoredRecord]],
  scale: Scale,
) -> dict[str, Normalization]:
  """The normalizations of critics by their fingerprint; makes missing ones."""
  folders = [storage.to_path(one) for one in config.normalization.critics]
  for folder, file in zip(folders, config.normalization.files, strict=False):
    found = normalization.fit(scores([file]).records, scale)
    normalization.write(folder, found)
  read = [normalization.read(folder, scale) for folder in folders]
  by_critic = {one.critic: one for one in read}
  critic = _critic(scored.records)
  if by_critic and critic not in by_critic:
    raise UserError(
      f'{", ".join(config.scores.files)}: scores of the critic {critic!r}, but '
      f'normalization.critics are of {listing(by_critic)}; give its folder too'
    )
  return by_critic


def _read_pairs(
  config: EvaluateConfig, files: Sequence[str]
) -> ReadResult[PairRecord]:
  if not files:
    return ReadResult([], [])
  return read_pairs(
    config.labels.root or '.',
    files,
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
      *records.others.values(),
      records.labels,
      records.pairs,
      records.tuning,
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
