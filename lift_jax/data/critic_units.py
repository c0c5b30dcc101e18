"""Units of a batch: examples that lie side by side on one device.

Without the loss of pairs every example is a unit. With it, a unit is two
examples: a pair of clips of one prompt, rated in one dimension, or two examples
that are no pair.
"""

import collections
from collections.abc import Hashable, Sequence
import dataclasses

import numpy as np

from lift_jax.data.critic_examples import Example
from lift_jax.data.pair_records import PREFERENCES, PairRecord
from lift_jax.data.splits import normalize_caption

# Clips of a prompt that each clip is paired with, from its ratings, at most
# twice as many: all of up to nine.
_PARTNERS = 4

_NO_PAIR = (0.0, 0.0, 0.0)
_ONE_HOT = {
  'first': (1.0, 0.0, 0.0),
  'same': (0.0, 1.0, 0.0),
  'second': (0.0, 0.0, 1.0),
}


# Of frames, and the padded length of the sequences.
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Unit:
  """One or two examples.

  Attributes:
    members: indices of the examples.
    preference: of a pair: 1 for the preferred one of the first example, neither
      and the second; all 0 if it is no pair.
  """

  members: tuple[int, ...]
  preference: tuple[float, float, float] = _NO_PAIR

  @property
  def is_pair(self) -> bool:
    return any(self.preference)


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
  units = list(found.values())
  paired = {index for unit in units for index in unit.members}
  return units + _couples(
    examples,
    [
      index
      for index, example in enumerate(examples)
      if example.label is not None and index not in paired
    ],
  )


def padding_share(units: Sequence[Unit], examples: Sequence[Example]) -> float:
  """The share of padding among the tokens of all sequences."""
  padded = sum(
    len(unit.members) * shape_of(unit, examples)[-1] for unit in units
  )
  used = sum(len(examples[i].tokens) for unit in units for i in unit.members)
  return 1 - used / padded


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


def _add(found, examples, members: tuple[int, int], preference: str) -> None:
  """Adds a pair, unless it is there or the clips have different shapes."""
  first, second = (examples[index].selection.shape for index in members)
  if first == second:
    found.setdefault(frozenset(members), Unit(members, _ONE_HOT[preference]))


def _couples(examples, singles: Sequence[int]) -> list[Unit]:
  """Examples of one shape two by two; an odd one stands next to itself."""
  groups = collections.defaultdict(list)
  for index in singles:
    groups[examples[index].shape, examples[index].is_real].append(index)
  units = []
  for group in groups.values():
    group += group[-1:] * (len(group) % 2)
    units += [Unit(tuple(group[i : i + 2])) for i in range(0, len(group), 2)]
  return units
