"""Simulated annotators of toy clips, and majority votes over their ratings.

An annotator starts from the verdicts of the checkers and makes a few errors:
mostly by one step of the labels, rarely by two; strict annotators tend to err
downwards, lenient ones upwards. Several rate each clip. Published files of
human feedback have one label per clip and dimension (`data.hra.read_hra`
rejects two that disagree), so a majority decides.
"""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from lift_jax.data.hra import DIMENSIONS, LABELS, conversation
from lift_jax.data.rubric import majority
from lift_jax.errors import UserError
from lift_jax.toyworld.checkers import Verdict

# Rationales of annotators who err.
_VAGUE = {
  'semantic': {
    'Good': 'It is what the text says.',
    'Normal': 'Something is not quite as the text says.',
    'Bad': 'That is not what the text says.',
  },
  'motion': {
    'Good': 'It moves well.',
    'Normal': 'The motion is a little odd.',
    'Bad': 'The motion is all wrong.',
  },
  'fidelity': {
    'Good': 'It looks fine.',
    'Normal': 'The image could be better.',
    'Bad': 'The image looks bad.',
  },
}


@dataclasses.dataclass(frozen=True)
class Annotator:
  """A simulated annotator; rates are shares of all ratings.

  Attributes:
    name: of the annotator.
    too_strict: how often a label is one step too low, unless it is the lowest.
    too_lenient: how often it is one step too high, unless it is the highest.
    careless: how often it is random.
  """

  name: str
  too_strict: float = 0.05
  too_lenient: float = 0.05
  careless: float = 0.01

  def __post_init__(self):
    rates = (self.too_strict, self.too_lenient, self.careless)
    if not (all(rate >= 0 for rate in rates) and sum(rates) <= 1):
      raise UserError(
        f'annotator {self.name}: rates {rates}; give none below 0, with a sum '
        'of at most 1'
      )

  def rate(
    self, verdicts: Mapping[str, Verdict], rng: np.random.Generator
  ) -> dict[str, Verdict]:
    """This annotator's rating of each dimension, from the true verdicts."""
    return {
      dimension: self._rate(dimension, verdicts[dimension], rng)
      for dimension in DIMENSIONS
    }

  def _rate(
    self, dimension: str, verdict: Verdict, rng: np.random.Generator
  ) -> Verdict:
    index = LABELS.index(verdict.label)
    draw, other = rng.random(), int(rng.integers(len(LABELS)))
    if draw < self.careless:
      index = other
    elif draw < self.careless + self.too_strict:
      index = min(index + 1, len(LABELS) - 1)
    elif draw < self.careless + self.too_strict + self.too_lenient:
      index = max(index - 1, 0)
    return change_label(dimension, verdict, LABELS[index])


ANNOTATORS = (
  Annotator('strict', too_strict=0.12, too_lenient=0.02),
  Annotator('even'),
  Annotator('lenient', too_strict=0.02, too_lenient=0.12),
)
# An annotator without errors, whose ratings are the checkers' verdicts.
HONEST = (Annotator('honest', too_strict=0, too_lenient=0, careless=0),)


@dataclasses.dataclass(frozen=True)
class Rated:
  """Ratings of one clip by several annotators.

  Attributes:
    video: path of the clip, relative to the root of its records.
    caption: of the clip.
    ratings: by annotator, a verdict by dimension.
  """

  video: str
  caption: str
  ratings: tuple[Mapping[str, Verdict], ...]


def change_label(dimension: str, verdict: Verdict, label: str) -> Verdict:
  """The verdict of one who gives another label, or the same verdict."""
  if label == verdict.label:
    return verdict
  # One who sees less of a flaw still sees a flaw, but cannot say which.
  return Verdict(label, _VAGUE[dimension][label], ())


def vague_texts() -> list[str]:
  """The rationales of annotators who err, which do not depend on the clip."""
  return [text for texts in _VAGUE.values() for text in texts.values()]


def rate_clip(
  video: str,
  caption: str,
  verdicts: Mapping[str, Verdict],
  annotators: Sequence[Annotator],
  seed: Sequence[int],
) -> Rated:
  """Simulates the ratings of a clip.

  Args:
    video: path for the records.
    caption: of the clip.
    verdicts: of the checkers, by dimension.
    annotators: who rate; each has a random generator of its own, so that others
      may be added without changing the ratings.
    seed: of the clip, such as (seed of the set, number of the clip).
  """
  ratings = tuple(
    annotator.rate(verdicts, np.random.default_rng((*seed, index)))
    for index, annotator in enumerate(annotators)
  )
  return Rated(video, caption, ratings)


def settle(labels: Sequence[str]) -> str:
  """The majority label; in a tie, the worst one.

  Raises:
    UserError: there are no labels.
  """
  if not labels:
    raise UserError('no labels to vote on; use at least one annotator')
  return majority(labels, LABELS)


def all_entries(
  rated: Sequence[Rated], questions: Mapping[str, str]
) -> list[dict[str, Any]]:
  """All individual ratings, as entries of the published schema."""
  return [
    _entry(item, dimension, questions, rating[dimension])
    for item in rated
    for rating in item.ratings
    for dimension in DIMENSIONS
  ]


def settled_entries(
  rated: Sequence[Rated], questions: Mapping[str, str]
) -> list[dict[str, Any]]:
  """One entry for each clip and dimension, with the majority label and votes.

  The rationale is that of the first annotator who gave this label and named
  something wrong, or else of the first who gave it.
  """
  entries = []
  for item in rated:
    for dimension in DIMENSIONS:
      verdicts = [rating[dimension] for rating in item.ratings]
      labels = [verdict.label for verdict in verdicts]
      label = settle(labels)
      agreeing = [verdict for verdict in verdicts if verdict.label == label]
      chosen = max(agreeing, key=lambda verdict: bool(verdict.kinds))
      votes = collections.Counter(labels)
      entries.append(_entry(item, dimension, questions, chosen, votes))
  return entries


def _entry(
  item: Rated,
  dimension: str,
  questions: Mapping[str, str],
  verdict: Verdict,
  votes: Mapping[str, int] | None = None,
) -> dict[str, Any]:
  return conversation(
    item.video,
    item.caption,
    questions[dimension],
    verdict.label,
    verdict.rationale,
    votes,
  )


def agreement(rated: Sequence[Rated]) -> dict[str, dict[str, float]]:
  """Inter-annotator agreement, by dimension.

  Returns:
    For each dimension 'pairs', the share of pairs of annotators who gave a clip
    the same label, and 'all', the share of clips with unanimous labels.

  Raises:
    UserError: no clip was rated by two annotators.
  """
  if not any(len(item.ratings) > 1 for item in rated):
    raise UserError(
      'no agreement between fewer than two annotators; let at least two rate a '
      'clip'
    )
  rates = {}
  for dimension in DIMENSIONS:
    pairs, is_unanimous = [], []
    for item in rated:
      labels = [rating[dimension].label for rating in item.ratings]
      if len(labels) > 1:
        pairs += [a == b for a, b in itertools.combinations(labels, 2)]
        is_unanimous.append(len(set(labels)) == 1)
    rates[dimension] = {
      'pairs': float(np.mean(pairs)),
      'all': float(np.mean(is_unanimous)),
    }
  return rates
