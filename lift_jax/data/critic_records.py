"""Training, validation and test records of the critic."""

from collections.abc import Collection, Iterator, Mapping, Sequence
import dataclasses
import pathlib

from lift_jax import config_lib
from lift_jax.data.clip_paths import FOLLOW_LINKS
from lift_jax.data.hra import HRARecord, read_hra
from lift_jax.data.json_records import ON_BAD_RECORD, ReadResult
from lift_jax.data.pair_records import (
  PairClip,
  PairRecord,
  read_pairs,
  settle,
)
from lift_jax.data.rubric import LABELS, Rubric, read_rubric
from lift_jax.data.splits import (
  check_disjoint,
  normalize_caption,
  split_records,
)
from lift_jax.errors import UserError
from lift_jax.runtime import hub, storage


@dataclasses.dataclass(frozen=True)
class SplitConfig:
  """How records are split; the rest is for training.

  Attributes:
    validation: fraction for validation during training.
    test: fraction for the test after training.
    seed: of the split.
    by_content: whether files with equal bytes under two names are one video;
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
        'must be fractions that leave records for training'
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
  """Files of human feedback, and how they are split.

  Attributes:
    root: folder that paths in the JSON files are relative to, or the id of a
      data set on the hub.
    hra: files of rated, generated clips.
    real: files of rated real clips, such as VIDGEN.
    held_out: files of the test set, in addition to the fraction in `split`.
      They may share no clip and no caption with the others.
    questions: prompt JSON or rubric (`data.rubric`) with the questions, labels
      and rewards; '' finds the questions in the files, which then are about
      LiFT's dimensions with LiFT's labels.
    on_bad_record: 'error' stops at the first; 'skip' lists and skips them.
    follow_links: links out of the root that may be followed; see
      `clip_paths.ClipFolder`.
    split: how `hra` and `real` are split.
    pairs: files of pairs (`data.pair_records`), split with the ratings of their
      clips and captions.
  """

  root: str
  hra: tuple[str, ...]
  real: tuple[str, ...]
  held_out: tuple[str, ...]
  questions: str
  on_bad_record: str
  follow_links: str
  split: SplitConfig
  pairs: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

  def __post_init__(self):
    config_lib.check_choice(
      'data.on_bad_record', self.on_bad_record, ON_BAD_RECORD
    )
    config_lib.check_choice(
      'data.follow_links', self.follow_links, FOLLOW_LINKS
    )
    if not self.hra:
      raise UserError('data.hra is empty; list at least one file of ratings')


@dataclasses.dataclass(frozen=True)
class PairQuestion:
  """A question about a clip of a pair that is not rated; see `HRARecord`."""

  video: str
  path: pathlib.Path
  caption: str
  question: str
  dimension: str
  where: str


@dataclasses.dataclass(frozen=True)
class CriticRecords:
  """Records by split.

  Attributes:
    splits: 'train', 'validation' and 'test', of which the last two may be
      empty. No video and no caption is in two of them.
    root: folder of the clips.
    real_files: names of the files of real clips.
    skipped: (where, reason and remedy) of each skipped record.
    rubric: of the ratings; None if the questions were found in the files.
    questions: by dimension.
    pairs: what people prefer, one record for each pair, by split.
    pair_questions: one for each compared dimension of a clip of `pairs` that
      has no rating there, by split.
  """

  splits: Mapping[str, list[HRARecord]]
  root: pathlib.Path
  real_files: frozenset[str]
  skipped: list[tuple[str, str]]
  rubric: Rubric | None
  questions: Mapping[str, str]
  pairs: Mapping[str, list[PairRecord]]
  pair_questions: Mapping[str, list[PairQuestion]]

  def asked(self, split: str) -> list[HRARecord | PairQuestion]:
    """All questions about clips of a split, with answers or without."""
    return [*self.splits[split], *self.pair_questions[split]]

  def is_real(self, record: HRARecord | PairQuestion) -> bool:
    return isinstance(record, HRARecord) and record.file in self.real_files


def read_critic_records(
  config: FeedbackConfig,
  optional: Collection[str] = (),
  compare_overall: bool = False,
) -> CriticRecords:
  """Reads, checks and splits all files.

  They are read together, so that the questions found are the same.

  Args:
    config: the files, and how they are split.
    optional: names of clips that need not exist.
    compare_overall: whether overall preferences of pairs are used, which need
      every question about their clips.

  Raises:
    UserError: a bad file or record, a missing video, an empty part of the
      split, or a test set that shares videos or captions with training.
  """
  rubric = read_rubric(config.questions) if config.questions else None
  files = (*config.hra, *config.real, *config.held_out)
  root = storage.to_path(hub.data_folder(config.root, files))
  found = read_hra(
    root,
    files,
    rubric.questions if rubric else None,
    config.on_bad_record,
    follow_links=config.follow_links,
    optional=optional,
    labels=rubric.labels if rubric else LABELS,
  )
  used = {record.file for record in found.records}
  for name in files:
    if name not in used:
      raise UserError(
        f'{name}: no usable record; add one, or remove the file from the list'
      )
  to_split: list[HRARecord | PairClip] = [
    r for r in found.records if r.file not in config.held_out
  ]
  pairs = ReadResult[PairRecord]([], [])
  if config.pairs:
    pairs = read_pairs(
      root, config.pairs, config.on_bad_record, follow_links=config.follow_links
    )
  settled = settle(pairs.records)
  for record in settled:
    to_split += record.clips
  same_clip = {'by_file': True, 'by_content': config.split.by_content}
  parts = split_records(
    to_split, config.split.fractions, config.split.seed, **same_clip
  )
  parts['test'] += [r for r in found.records if r.file in config.held_out]
  check_disjoint(parts, **same_clip)
  splits = {
    name: [record for record in part if isinstance(record, HRARecord)]
    for name, part in parts.items()
  }
  questions = (
    rubric.questions
    if rubric
    else {record.dimension: record.question for record in found.records}
  )
  by_split = {name: _pairs_of(part, settled) for name, part in parts.items()}
  if not compare_overall:
    _check_dimensions(by_split['train'], questions)
  return CriticRecords(
    splits,
    root,
    frozenset(config.real),
    found.skipped + pairs.skipped,
    rubric,
    questions,
    by_split,
    {
      name: list(_pair_questions(own, splits[name], questions, compare_overall))
      for name, own in by_split.items()
    },
  )


def _pairs_of(
  part: Sequence[HRARecord | PairClip], pairs: Sequence[PairRecord]
) -> list[PairRecord]:
  """The pairs both of whose clips are in a part of the split."""
  clips = {clip for clip in part if isinstance(clip, PairClip)}
  return [record for record in pairs if clips.issuperset(record.clips)]


def _check_dimensions(
  pairs: Sequence[PairRecord], questions: Mapping[str, str]
) -> None:
  """Raises UserError if no pair is compared in a dimension with a question."""
  if pairs and not any(set(r.dimensions) & set(questions) for r in pairs):
    raise UserError(
      f'{pairs[0].where}: neither this pair nor another has a preference in '
      f'{", ".join(questions)}; add "dimensions" with these names, or give '
      'losses.overall a weight'
    )


def _pair_questions(
  pairs: Sequence[PairRecord],
  rated: Sequence[HRARecord],
  questions: Mapping[str, str],
  compare_overall: bool,
) -> Iterator[PairQuestion]:
  """The questions about clips of pairs that no record in `rated` answers."""
  known = {
    (record.path, normalize_caption(record.caption), record.dimension)
    for record in rated
  }
  for pair in pairs:
    dimensions = questions if compare_overall else pair.dimensions
    for dimension in filter(questions.__contains__, dimensions):
      for clip in pair.clips:
        key = clip.path, normalize_caption(clip.caption), dimension
        if key not in known:
          known.add(key)
          yield PairQuestion(
            clip.video,
            clip.path,
            clip.caption,
            questions[dimension],
            dimension,
            clip.where,
          )
