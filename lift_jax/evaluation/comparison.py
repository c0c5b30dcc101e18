"""Joins human ratings with a critic's answers about the same clips.

A rating is about one dimension of a clip and its caption. It is joined with the
scored record of the same video and caption; motion and fidelity do not depend
on the caption, so a match of the video is enough there. Records without a match
are listed.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import pathlib

import numpy as np

from lift_jax.data.hra import OF_CLIP, HRARecord
from lift_jax.data.rubric import LIFT, Scale
from lift_jax.data.splits import normalize_caption
from lift_jax.errors import UserError
from lift_jax.evaluation.scores import Answer, ScoredRecord
from lift_jax.runtime.progress import tracked


@dataclasses.dataclass(frozen=True)
class Rating:
  """The human label of a clip in one dimension, and the critic's answer.

  Attributes:
    video: path relative to the root.
    path: the file, which need not exist.
    caption: what the clip should show.
    dimension: of the scale.
    human: class of the human label.
    rationales: of the annotators who gave one.
    answer: the critic's; None if its record holds an error.
    scored: the critic's record.
    where: the first of the human records, for messages.
  """

  video: str
  path: pathlib.Path
  caption: str
  dimension: str
  human: int
  rationales: tuple[str, ...]
  answer: Answer | None
  scored: ScoredRecord
  where: str


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The join of human and scored records.

  Attributes:
    ratings: those with a scored record, in the order of the human records.
    rated_not_scored: (where, reason) of human records without a scored one.
    scored_not_rated: locations of scored records without a human one.
  """

  ratings: list[Rating]
  rated_not_scored: list[tuple[str, str]]
  scored_not_rated: list[str]


def join(
  human: Sequence[HRARecord],
  scored: Sequence[ScoredRecord],
  scale: Scale = LIFT,
) -> Comparison:
  """Joins human and scored records.

  Several human records may agree on one label; they become one `Rating`.

  Raises:
    UserError: no human record matches a scored one.
  """
  by_video = {}
  for record in scored:
    by_video.setdefault(record.video, []).append(record)
  by_subject = {}
  for record in human:
    is_about_text = record.dimension not in OF_CLIP
    about = normalize_caption(record.caption) if is_about_text else ''
    subject = (record.video, record.dimension, about)
    by_subject.setdefault(subject, []).append(record)
  ratings, unmatched, used = [], [], set()
  for records in tracked(by_subject.values(), 'rating'):
    match = _find_scored(records, by_video)
    first = records[0]
    if match is None:
      reason = (
        'no score for this caption'
        if first.video in by_video
        else 'no score for this video'
      )
      unmatched += [(record.where, reason) for record in records]
      continue
    if not match.error and first.dimension not in match.answers:
      reason = f'no answer about {first.dimension} in {match.where}'
      unmatched += [(record.where, reason) for record in records]
      continue
    used.add(id(match))
    ratings.append(
      Rating(
        video=first.video,
        path=match.path,
        caption=match.caption,
        dimension=first.dimension,
        human=scale.classes.index(first.label),
        rationales=tuple(
          record.rationale for record in records if record.rationale
        ),
        answer=match.answers.get(first.dimension),
        scored=match,
        where=first.where,
      )
    )
  if not ratings:
    raise UserError(
      f'no rating is about a scored clip: {human[0].where} is about '
      f'{human[0].caption[:40]!r}, {scored[0].where} about '
      f'{scored[0].caption[:40]!r}; both must have the same video paths, and '
      'the same captions for the semantic dimension'
    )
  unrated = [record.where for record in scored if id(record) not in used]
  return Comparison(ratings, unmatched, unrated)


def _find_scored(
  records: Sequence[HRARecord], by_video: dict[str, list[ScoredRecord]]
) -> ScoredRecord | None:
  """The scored record that matches the records of one rating, or None."""
  candidates = by_video.get(records[0].video, [])
  captions = {normalize_caption(record.caption) for record in records}
  same = [
    record
    for record in candidates
    if normalize_caption(record.caption) in captions
  ]
  if not same and records[0].dimension in OF_CLIP:
    same = candidates
  return same[0] if same else None


@dataclasses.dataclass(frozen=True)
class Table:
  """Ratings as arrays; N ratings, K classes.

  Attributes:
    human_n: classes of the human labels.
    answer_n: classes that the critic answered, -1 for an error.
    probabilities_nk: the critic's; NaN for an error, None if it gave none.
    reward_n: its soft reward in this dimension; NaN for an error.
    video_n: index of the video.
    caption_n: index of the caption.
    dimension_n: names.
    num_videos: upper bound of `video_n`, also after `select`.
    num_classes: K.
  """

  human_n: np.ndarray
  answer_n: np.ndarray
  probabilities_nk: np.ndarray | None
  reward_n: np.ndarray
  video_n: np.ndarray
  caption_n: np.ndarray
  dimension_n: np.ndarray
  num_videos: int
  num_classes: int

  def select(self, is_chosen_n: np.ndarray) -> 'Table':
    """The selected ratings; videos keep their indices."""
    arrays = {
      name: value[is_chosen_n]
      for name, value in vars(self).items()
      if isinstance(value, np.ndarray)
    }
    return dataclasses.replace(self, **arrays)

  def answered(self) -> 'Table':
    """The ratings that the critic answered."""
    return self.select(self.answer_n >= 0)


def make_table(ratings: Sequence[Rating], scale: Scale) -> Table:
  """Arrays of at least one rating; the scale gives the rewards."""
  nothing = (np.nan,) * len(scale.classes)
  answers = [rating.answer for rating in ratings]
  given = [answer for answer in answers if answer is not None]
  probabilities_nk = None
  if all(answer.probabilities is not None for answer in given):
    probabilities_nk = np.array(
      [nothing if a is None else a.probabilities for a in answers]
    )
  rewards = [np.nan if a is None else a.soft_reward(scale) for a in answers]
  videos_n = _indices(rating.video for rating in ratings)
  return Table(
    human_n=np.array([rating.human for rating in ratings]),
    answer_n=np.array([-1 if a is None else a.label for a in answers]),
    probabilities_nk=probabilities_nk,
    reward_n=np.array(rewards),
    video_n=videos_n,
    caption_n=_indices(normalize_caption(rating.caption) for rating in ratings),
    dimension_n=np.array([rating.dimension for rating in ratings]),
    num_videos=int(videos_n.max()) + 1,
    num_classes=len(scale.classes),
  )


def _indices(names: Iterable[str]) -> np.ndarray:
  """Numbers names in the order of first occurrence."""
  numbers = {}
  return np.array([numbers.setdefault(name, len(numbers)) for name in names])
