"""Units of a batch: examples that lie side by side on one device.

Without a loss that compares clips every example is a unit. With that of pairs,
a unit is a couple: a pair of clips of one prompt, rated in one dimension, or
two examples that are no pair. With that of overall preferences, a unit is as
many couples as there are dimensions: all of two clips of which people prefer
one overall, or any others.
"""

import collections
from collections.abc import Hashable, Iterable, Sequence
import dataclasses

import numpy as np

from lift_jax.data.critic_examples import Example
from lift_jax.data.pair_records import PREFERENCES, PairRecord
from lift_jax.data.rubric import Scale
from lift_jax.data.splits import normalize_caption
from lift_jax.errors import UserError

# Clips of a prompt that each clip is paired with, from its ratings, at most
# twice as many: all of up to nine.
_PARTNERS = 4

# For the first clip, neither and the second.
Preference = tuple[float, float, float]

_NONE: Preference = (0.0, 0.0, 0.0)
_ONE_HOT: dict[str, Preference] = {
  'first': (1.0, 0.0, 0.0),
  'same': (0.0, 1.0, 0.0),
  'second': (0.0, 0.0, 1.0),
}


# Of frames, and the padded length of the sequences.
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Unit:
  """One example, or couples of examples.

  Attributes:
    members: indices of the examples, couple by couple.
    preferences: of each couple: 1 for the preferred one of the first example,
      neither and the second; all 0 if it is no pair.
    overall: the same of the two clips that all couples are about; all 0 if they
      are not the same two, or people have not compared them.
  """

  members: tuple[int, ...]
  preferences: tuple[Preference, ...] = ()
  overall: Preference = _NONE

  @property
  def pairs(self) -> list[tuple[tuple[int, ...], Preference]]:
    """Couples that are pairs, with their preferences."""
    return [
      (self.members[2 * index : 2 * index + 2], preference)
      for index, preference in enumerate(self.preferences)
      if any(preference)
    ]

  def preference_of(self, member: int) -> Preference:
    """Of the couple of a member, by its index among them."""
    return self.preferences[member // 2] if self.preferences else _NONE


def shape_of(unit: Unit, examples: Sequence[Example]) -> Shape:
  """Units of the same shape share batches."""
  *frames, _ = examples[unit.members[0]].shape
  return *frames, max(examples[index].length for index in unit.members)


def single_units(examples: Sequence[Example]) -> list[Unit]:
  """Each example alone."""
  return [Unit((index,)) for index in range(len(examples))]


def pair_units(
  examples: Sequence[Example],
  pairs: Sequence[PairRecord],
  labels: Sequence[str],
  *,
  use_ratings: bool,
  seed: int,
) -> list[Unit]:
  """All pairs, and all rated examples that are in none, two by two.

  Clips whose frames take different shapes cannot be paired.

  Args:
    examples: to train on.
    pairs: what people prefer, one record for each pair.
    labels: of the ratings, from the best to the worst.
    use_ratings: whether two rated clips of a prompt are a pair; what `pairs`
      say of it takes precedence.
    seed: of the choice where a prompt has many clips.
  """
  units = list(
    _pairs(examples, pairs, labels, use_ratings=use_ratings, seed=seed).values()
  )
  return units + _couples(examples, _rated_outside_of(units, examples))


def overall_units(
  examples: Sequence[Example],
  pairs: Sequence[PairRecord],
  labels: Sequence[str],
  dimensions: Sequence[str],
  *,
  by_dimension: bool,
  use_ratings: bool,
  seed: int,
) -> list[Unit]:
  """Units of a couple for each dimension; see `pair_units`.

  Pairs of clips that are also compared overall are in the unit of these.

  Args:
    examples: to train on.
    pairs: what people prefer, one record for each pair.
    labels: of the ratings, from the best to the worst.
    dimensions: those of the overall reward, in the order of a unit.
    by_dimension: whether to compare clips in single dimensions too.
    use_ratings: as of `pair_units`.
    seed: likewise.
  """
  found = {}
  if by_dimension:
    found = _pairs(examples, pairs, labels, use_ratings=use_ratings, seed=seed)
  by_clip = _by_clip(examples)
  units = []
  for record in pairs:
    caption = normalize_caption(record.caption)
    clips = [by_clip.get((caption, name), {}) for name in dimensions]
    couples = [
      tuple(of_clip[path] for path in record.paths if path in of_clip)
      for of_clip in clips
    ]
    if all(len(c) == 2 and _can_compare(c, examples) for c in couples):
      preferences = tuple(_taken(found, couple) for couple in couples)
      units.append(
        Unit(sum(couples, ()), preferences, _ONE_HOT[record.overall])
      )
  others = list(found.values())
  others += _couples(examples, _rated_outside_of(units + others, examples))
  return units + _grouped(others, examples, len(dimensions))


def dimension_weights(
  examples: Sequence[Example], dimensions: Sequence[str], scale: Scale
) -> tuple[float, ...]:
  """Weights of the dimensions in the overall reward, 1 on average.

  They are inverse to the standard deviation of the rewards of the ratings.

  Raises:
    UserError: the ratings of a dimension have all the same reward.
  """
  inverse = []
  for dimension in dimensions:
    rewards = [
      sum(scale.score(label) * count for label, count in example.votes.items())
      / sum(example.votes.values())
      for example in examples
      if example.record.dimension == dimension and example.votes
    ]
    if np.ptp(rewards or [0.0]) < 1e-9:
      raise UserError(
        f'all {len(rewards)} ratings to train on have the same reward in the '
        f'dimension {dimension}, so that it cannot be normalised; set '
        'losses.normalize_overall to False'
      )
    inverse.append(1 / np.std(rewards))
  return tuple((np.array(inverse) / np.mean(inverse)).tolist())


def padding_share(units: Sequence[Unit], examples: Sequence[Example]) -> float:
  """The share of padding among the tokens of all sequences."""
  padded = sum(
    len(unit.members) * shape_of(unit, examples)[-1] for unit in units
  )
  used = sum(len(examples[i].tokens) for unit in units for i in unit.members)
  return 1 - used / padded


def _pairs(
  examples: Sequence[Example],
  pairs: Sequence[PairRecord],
  labels: Sequence[str],
  *,
  use_ratings: bool,
  seed: int,
) -> dict[frozenset[int], Unit]:
  """Units of one pair each, by their members."""
  found: dict[frozenset[int], Unit] = {}
  by_clip = _by_clip(examples)
  for record in pairs:
    caption = normalize_caption(record.caption)
    for dimension, preference in record.dimensions.items():
      clips = by_clip.get((caption, dimension), {})
      members = tuple(clips[path] for path in record.paths if path in clips)
      if len(members) == 2:
        _add(found, examples, members, preference)
  if use_ratings:
    rng = np.random.default_rng(seed)
    for _, clips in sorted(by_clip.items()):
      rated = [i for i in clips.values() if examples[i].label is not None]
      for members in _partners(rng.permutation(rated).tolist()):
        ranks = [labels.index(examples[index].label) for index in members]
        better = int(np.sign(ranks[1] - ranks[0]))  # the best label is first
        _add(found, examples, members, PREFERENCES[1 - better])
  return found


def _by_clip(examples: Sequence[Example]):
  """The first example of each clip, by (caption, dimension)."""
  by_clip: dict[tuple[str, str], dict[Hashable, int]] = collections.defaultdict(
    dict
  )
  for index, example in enumerate(examples):
    record = example.record
    key = normalize_caption(record.caption), record.dimension
    by_clip[key].setdefault(record.path, index)
  return by_clip


def _partners(clips: Sequence[int]) -> list[tuple[int, int]]:
  """Pairs of clips: of each with the next ones, around a circle."""
  count = len(clips)
  chosen = {}
  for step in range(1, min(_PARTNERS, count - 1) + 1):
    for start in range(count):
      members = clips[start], clips[(start + step) % count]
      chosen.setdefault(frozenset(members), members)
  return list(chosen.values())


def _add(found, examples, members: tuple[int, ...], preference: str) -> None:
  """Adds a pair, unless it is there or the clips have different shapes."""
  if _can_compare(members, examples):
    unit = Unit(members, (_ONE_HOT[preference],))
    found.setdefault(frozenset(members), unit)


def _can_compare(couple: Iterable[int], examples: Sequence[Example]) -> bool:
  """Whether the clips of two examples have frames of one shape."""
  first, second = (examples[index].selection.shape for index in couple)
  return first == second


def _taken(found, couple: tuple[int, ...]) -> Preference:
  """Removes a pair from those found; its preference in the order of `couple`.

  All 0 if there is none.
  """
  unit = found.pop(frozenset(couple), None)
  if unit is None:
    return _NONE
  (preference,) = unit.preferences
  return preference if unit.members == couple else preference[::-1]


def _rated_outside_of(
  units: Sequence[Unit], examples: Sequence[Example]
) -> list[int]:
  """The rated examples that are in none of the units."""
  inside = {index for unit in units for index in unit.members}
  return [
    index
    for index, example in enumerate(examples)
    if example.label is not None and index not in inside
  ]


def _couples(examples: Sequence[Example], singles: Sequence[int]) -> list[Unit]:
  """Examples two by two that are no pairs."""
  alone = [Unit((index,)) for index in singles]
  return [
    dataclasses.replace(unit, preferences=(_NONE,))
    for unit in _grouped(alone, examples, 2)
  ]


def _grouped(
  units: Sequence[Unit], examples: Sequence[Example], size: int
) -> list[Unit]:
  """Units of one shape joined; the last one fills a group that is too small."""
  groups = collections.defaultdict(list)
  for unit in units:
    is_real = examples[unit.members[0]].is_real
    groups[shape_of(unit, examples), is_real].append(unit)
  joined = []
  for group in groups.values():
    group += group[-1:] * (-len(group) % size)
    for start in range(0, len(group), size):
      parts = group[start : start + size]
      joined.append(
        Unit(
          sum((unit.members for unit in parts), ()),
          sum((unit.preferences for unit in parts), ()),
        )
      )
  return joined
