"""People who rate clips of the toy world, and how their ratings are settled.

Each person sees what the checkers see and then errs a little: mostly by one
step, rarely by two, and strict people more often downwards, lenient ones
upwards. Several rate each clip. Published files of human feedback have one
label for each clip and dimension (`data.hra.read_hra` refuses two that
disagree), so that a majority decides.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from lift_jax.data.hra import DIMENSIONS, LABELS, conversation
from lift_jax.errors import UserError
from lift_jax.toyworld.checkers import Verdict

# What people say when they see something that is not there, or overlook it.
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
  """How one person errs; the rates are of all ratings.

  Attributes:
    name: of the person.
    too_strict: how often a rating is one step too low, where there is one.
    too_lenient: how often it is one step too high, where there is one.
    careless: how often it is any label.
  """

  name: str
  too_strict: float = 0.05
  too_lenient: float = 0.05
  careless: float = 0.01

  def __post_init__(self):
    rates = (self.too_strict, self.too_lenient, self.careless)
    if not (all(rate >= 0 for rate in rates) and sum(rates) <= 1):
      raise UserError(
        f'annotator {self.name}: rates {rates}; give none below 0, at most 1 '
        'together'
      )

  def rate(
    self, verdicts: Mapping[str, Verdict], rng: np.random.Generator
  ) -> dict[str, Verdict]:
    """This person's verdict of each dimension, from the checkers'."""
    return {
      dimension: self._rate(dimension, verdicts[dimension], rng)
      for dimension in DIMENSIONS
    }

  def _rate(
    self, dimension: str, verdict: Verdict, rng: np.random.Generator
  ) -> Verdict:
    place = LABELS.index(verdict.label)
    lot, other = rng.random(), int(rng.integers(len(LABELS)))
    if lot < self.careless:
      place = other
    elif lot < self.careless + self.too_strict:
      place = min(place + 1, len(LABELS) - 1)
    elif lot < self.careless + self.too_strict + self.too_lenient:
      place = max(place - 1, 0)
    return change_label(dimension, verdict, LABELS[place])


ANNOTATORS = (
  Annotator('strict', too_strict=0.12, too_lenient=0.02),
  Annotator('even'),
  Annotator('lenient', too_strict=0.02, too_lenient=0.12),
)
# Nobody errs: what comes of it is the truth, as far as it can be seen.
HONEST = (Annotator('honest', too_strict=0, too_lenient=0, careless=0),)


@dataclasses.dataclass(frozen=True)
class Rated:
  """What several people say of one clip.

  Attributes:
    video: path of the clip, relative to the root of its records.
    caption: what it should show.
    ratings: by person, each a verdict by dimension.
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
  """What people say where they err, whatever the clip."""
  return [text for texts in _VAGUE.values() for text in texts.values()]


def rate_clip(
  video: str,
  caption: str,
  verdicts: Mapping[str, Verdict],
  annotators: Sequence[Annotator],
  seed: Sequence[int],
) -> Rated:
  """Lets people rate a clip.

  Args:
    video: path for the records.
    caption: of the clip.
    verdicts: of the checkers, by dimension.
    annotators: who rates; each draws from a generator of his own, so that
      others may be added.
    seed: of the clip, such as (seed of the set, number of the clip).
  """
  ratings = tuple(
    person.rate(verdicts, np.random.default_rng((*seed, index)))
    for index, person in enumerate(annotators)
  )
  return Rated(video, caption, ratings)


def settle(labels: Sequence[str]) -> str:
  """The label that most people gave; of equals the worse one.

  Raises:
    UserError: nobody rated.
  """
  if not labels:
    raise UserError('no label to settle on; let at least one person rate')
  # LABELS go from good to bad, and the first of equals counts.
  return max(reversed(LABELS), key=labels.count)


def all_entries(
  rated: Sequence[Rated], questions: Mapping[str, str]
) -> list[dict[str, Any]]:
  """Everything that people said, as entries of the published schema."""
  return [
    _entry(item, dimension, questions, rating[dimension])
    for item in rated
    for rating in item.ratings
    for dimension in DIMENSIONS
  ]


def settled_entries(
  rated: Sequence[Rated], questions: Mapping[str, str]
) -> list[dict[str, Any]]:
  """One entry for each clip and dimension: the label of the majority.

  The reason is that of the first person who gave this label and named
  something, or else of the first who gave it.
  """
  entries = []
  for item in rated:
    for dimension in DIMENSIONS:
      verdicts = [rating[dimension] for rating in item.ratings]
      label = settle([verdict.label for verdict in verdicts])
      fitting = [verdict for verdict in verdicts if verdict.label == label]
      chosen = max(fitting, key=lambda verdict: bool(verdict.kinds))
      entries.append(_entry(item, dimension, questions, chosen))
  return entries


def _entry(
  item: Rated,
  dimension: str,
  questions: Mapping[str, str],
  verdict: Verdict,
) -> dict[str, Any]:
  return conversation(
    item.video,
    item.caption,
    questions[dimension],
    verdict.label,
    verdict.rationale,
  )


def agreement(rated: Sequence[Rated]) -> dict[str, dict[str, float]]:
  """How often people agree, by dimension.

  Returns:
    For each dimension 'pairs', the share of pairs of people who gave a clip the
    same label, and 'all', the share of clips of which all people did.

  Raises:
    UserError: there is no clip that two people rated.
  """
  if not any(len(item.ratings) > 1 for item in rated):
    raise UserError('nobody to agree with; let two people or more rate a clip')
  rates = {}
  for dimension in DIMENSIONS:
    pairs, whole = [], []
    for item in rated:
      labels = [rating[dimension].label for rating in item.ratings]
      if len(labels) > 1:
        pairs += [a == b for a, b in itertools.combinations(labels, 2)]
        whole.append(len(set(labels)) == 1)
    rates[dimension] = {
      'pairs': float(np.mean(pairs)),
      'all': float(np.mean(whole)),
    }
  return rates
