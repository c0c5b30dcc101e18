"""What `lift train_critic` says of its data: skipped records, splits, sizes."""

from collections.abc import Sequence
import logging
import pathlib

from lift_jax.data import critic_units
from lift_jax.data.critic_examples import Example
from lift_jax.data.critic_records import CriticRecords
from lift_jax.data.critic_units import Unit
from lift_jax.data.hra import HRARecord, conversation
from lift_jax.data.json_records import ReadResult
from lift_jax.jobs import inputs
from lift_jax.runtime import distributed
from lift_jax.runtime.files import write_json


def report_skipped(
  workdir: pathlib.Path,
  records: CriticRecords,
  results: Sequence[ReadResult[Example]],
  failures: Sequence[str],
  logger: logging.Logger,
) -> None:
  """Reports records that could not be read or made into examples.

  Those whose clips have failed since the run began are listed after them.
  """
  skipped = [*records.skipped]
  num_left = sum(map(len, records.splits.values()))
  for examples in results:
    skipped += examples.skipped
    num_left -= len(examples.skipped)
  reasons = [f'{where}: {reason}' for where, reason in skipped]
  inputs.report_skipped(workdir, reasons, num_left, logger)
  if distributed.is_primary():
    for failure in failures:
      inputs.add_skipped(workdir, failure)


def write_splits(workdir: pathlib.Path, records: CriticRecords) -> None:
  """Writes each split in published format, for `lift score` and others."""
  if not distributed.is_primary():
    return
  folder = workdir / 'splits'
  folder.mkdir(exist_ok=True)
  for name, split in records.splits.items():
    entries = [
      conversation(
        r.video, r.caption, r.question, r.label, r.rationale, r.votes
      )
      for r in split
    ]
    write_json(folder / f'{name}.json', entries)


def describe(
  records: CriticRecords,
  examples: list[Example],
  units: list[Unit],
  logger: logging.Logger,
) -> None:
  """Logs what is trained on: answers, lengths, padding and pairs."""
  parts = [
    f'{name} {len(split)} answers on {_num_videos(split)} videos'
    for name, split in records.splits.items()
  ]
  logger.info('train_critic: %s', ', '.join(parts))
  for length in sorted({example.length for example in examples}):
    count = sum(example.length == length for example in examples)
    logger.info('train_critic: %d sequences of %d tokens', count, length)
  logger.info(
    'train_critic: %.1f%% of the tokens are padding',
    100 * critic_units.padding_share(units, examples),
  )
  num_pairs = sum(len(unit.pairs) for unit in units)
  num_overall = sum(any(unit.overall) for unit in units)
  if num_overall:
    logger.info('train_critic: %d pairs compared overall', num_overall)
  if num_pairs:
    num_members = sum(len(unit.members) for unit in units)
    logger.info(
      'train_critic: %d pairs, %d examples in none of them',
      num_pairs,
      num_members - 2 * num_pairs,
    )


def _num_videos(records: list[HRARecord]) -> int:
  return len({record.video for record in records})
