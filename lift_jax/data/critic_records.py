"""What the critic learns from, and what it is tested on."""

from collections.abc import Mapping
import dataclasses
import pathlib

from lift_jax import config_lib
from lift_jax.data.hra import HRARecord, read_hra, read_questions
from lift_jax.data.json_records import ON_BAD_RECORD
from lift_jax.data.splits import check_disjoint, split_records
from lift_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SplitConfig:
  """How records are divided; what is left over trains.

  Attributes:
    validation: fraction that is looked at during training.
    test: fraction that is kept for the end.
    seed: of the division.
    by_content: whether files of equal bytes under two names are one video;
      reads every file once at the start.
  """

  validation: float
  test: float
  seed: int
  by_content: bool

  def __post_init__(self):
    held_out = self.validation + self.test
    if not (min(self.validation, self.test) >= 0 and held_out < 1):
      raise UserError(
        f'data.split: validation {self.validation:g} and test {self.test:g} '
        'must be fractions that leave something to train on'
      )

  @property
  def fractions(self) -> dict[str, float]:
    return {
      'train': 1 - self.validation - self.test,
      'validation': self.validation,
      'test': self.test,
    }


@dataclasses.dataclass(frozen=True)
class FeedbackConfig:
  """Which human feedback, and how it is divided.

  Attributes:
    root: folder that paths in the JSON files are relative to.
    hra: files of rated clips that a model made.
    real: files of rated real clips, such as VIDGEN.
    held_out: files of the test set, beside the part that `split` sets aside.
      No clip and no caption of theirs may be in the others.
    questions: prompt JSON; '' finds the questions in the files.
    on_bad_record: 'error' stops at the first; 'skip' lists them and goes on.
    split: how `hra` and `real` are divided.
  """

  root: str
  hra: tuple[str, ...]
  real: tuple[str, ...]
  held_out: tuple[str, ...]
  questions: str
  on_bad_record: str
  split: SplitConfig

  def __post_init__(self):
    config_lib.check_choice(
      'data.on_bad_record', self.on_bad_record, ON_BAD_RECORD
    )
    if not self.hra:
      raise UserError('data.hra is empty; list at least one file of ratings')


@dataclasses.dataclass(frozen=True)
class CriticRecords:
  """Records by what they are for.

  Attributes:
    splits: 'train', 'validation' and 'test', of which the last two may be
      empty. No video and no caption is in two of them.
    root: folder of the clips.
    real_files: names of the files of real clips.
    skipped: (where, reason and remedy) of each record that was left out.
  """

  splits: Mapping[str, list[HRARecord]]
  root: pathlib.Path
  real_files: frozenset[str]
  skipped: list[tuple[str, str]]

  def is_real(self, record: HRARecord) -> bool:
    return record.file in self.real_files

  def path(self, record: HRARecord) -> pathlib.Path:
    return self.root / record.video


def read_critic_records(config: FeedbackConfig) -> CriticRecords:
  """Reads, checks and divides all files.

  They are read together, so that the questions found are the same ones.

  Raises:
    UserError: a bad file or record, a video that is missing, a part of the
      split without records, or a test set that shares videos or captions with
      what is trained on.
  """
  questions = read_questions(config.questions) if config.questions else None
  files = (*config.hra, *config.real, *config.held_out)
  found = read_hra(config.root, files, questions, config.on_bad_record)
  used = {record.file for record in found.records}
  for name in files:
    if name not in used:
      raise UserError(
        f'{name}: no usable record; add one, or do not list the file'
      )
  root = pathlib.Path(config.root)
  ours = [r for r in found.records if r.file not in config.held_out]
  identity = {'root': root, 'by_content': config.split.by_content}
  splits = split_records(
    ours, config.split.fractions, config.split.seed, **identity
  )
  splits['test'] += [r for r in found.records if r.file in config.held_out]
  check_disjoint(splits, **identity)
  return CriticRecords(splits, root, frozenset(config.real), found.skipped)
