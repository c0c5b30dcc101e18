"""What an objective of `lift align` trains on: clips, or pairs of clips."""

import collections
from collections.abc import Iterator, Sequence
import dataclasses
from typing import Any

from lift_jax.data.pipeline import COLUMNS, EncodedPair, ScoredEntry, Unit
from lift_jax.data.splits import hash_fraction, normalize_caption
from lift_jax.errors import UserError, listing
from lift_jax.rewards.optimality import optimality
from lift_jax.rewards.pairs import PairConfig, make_pairs
from lift_jax.training.objectives import ObjectiveConfig


@dataclasses.dataclass(frozen=True)
class TrainingData:
  """What an objective trains on.

  Attributes:
    units: of one or two examples.
    held_out: pairs of other prompts, to validate on.
    description: of the choice, for the log: one line each.
    pairs: if the units are pairs, for a file that people read.
  """

  units: list[Unit]
  held_out: list[Unit]
  description: list[str]
  pairs: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class _Pairs:
  """Pairs from one source.

  Attributes:
    units: (winner, loser).
    notes: for `TrainingData.pairs`, by unit.
    description: how they were chosen.
  """

  units: list[Unit]
  notes: list[dict[str, Any]]
  description: str


def make_data(
  scored: Sequence[ScoredEntry],
  config: ObjectiveConfig,
  pair_config: PairConfig | None,
  compared: Sequence[EncodedPair] = (),
) -> TrainingData:
  """Chooses the clips, or pairs of clips, that an objective trains on.

  Real clips are paired with one another, as they come.

  Args:
    scored: clips with rewards.
    config: of the objective.
    pair_config: rules for pairs.
    compared: pairs of clips that people compared.

  Raises:
    UserError: none is left, `pair_config` is missing, or the objective reads
      an unknown column.
  """
  objective = config.chosen
  if unknown := set(objective.columns) - set(COLUMNS):
    raise UserError(
      f'objective.name is {config.name!r}, which reads {listing(unknown)}; '
      f'lift align reads {listing(COLUMNS)}'
    )
  chosen = [
    item for item in scored if objective.selects(item.reward, item.is_real)
  ]
  if objective.unit == 'pair':
    if pair_config is None:
      raise UserError(
        f'objective.name is {config.name!r}, which compares clips; add the '
        'section pairs with the rules of choosing them'
      )
    return _paired(chosen, pair_config, compared)
  if not chosen:
    raise UserError(
      f'objective.{config.name} leaves none of {len(scored)} clips to train '
      'on; change its settings, or score more clips'
    )
  description = []
  if len(chosen) < len(scored):
    description.append(f'{len(chosen)} of {len(scored)} clips are used')
  if compared:
    description.append(
      f'the {len(compared)} pairs of data.pairs are not used, as '
      f'{config.name} does not compare clips'
    )
  if 'optimality' in objective.columns:
    chosen = _with_optimality(chosen)
  return TrainingData([(item,) for item in chosen], [], description, [])


def _paired(
  chosen: Sequence[ScoredEntry],
  config: PairConfig,
  compared: Sequence[EncodedPair],
) -> TrainingData:
  """Pairs from scores and from people, and those of real clips."""
  generated = [item for item in chosen if not item.is_real]
  sources = []
  if compared:
    sources.append(_from_people(compared))
  if generated or not compared:
    sources.append(_from_scores(generated, config, compared))
  units: list[Unit] = []
  held_out: list[Unit] = []
  notes = []
  for source in sources:
    for unit, note in zip(source.units, source.notes, strict=True):
      winner, loser = unit
      is_held_out = _hash(winner.caption) < config.held_out
      (held_out if is_held_out else units).append(unit)
      notes.append(
        {
          'caption': winner.caption,
          'winner': winner.video,
          'loser': loser.video,
          **note,
          **({'held_out': True} if is_held_out else {}),
        }
      )
  description = [source.description for source in sources]
  if not units:
    raise UserError(
      f'no pair of clips to train on: {"; ".join(description)}; '
      f'{len(held_out)} held out; compare more clips, or lower pairs.held_out'
    )
  if config.held_out:
    description.append(
      f'{len(held_out)} of these pairs are held out, '
      f'{len({unit[0].caption for unit in held_out})} prompts'
    )
  if real := list(_in_twos(chosen)):
    description.append(f'{len(real)} pairs of real clips')
  return TrainingData([*units, *real], held_out, description, notes)


def _from_scores(
  generated: Sequence[ScoredEntry],
  config: PairConfig,
  compared: Sequence[EncodedPair],
) -> _Pairs:
  """Pairs of scored clips, without those that people compared."""
  found = make_pairs(
    generated, config, key=lambda item: (item.caption, item.entry.bucket)
  )
  by_people = {frozenset(pair.record.videos) for pair in compared}
  pairs = [
    (winner, loser)
    for winner, loser in found.pairs
    if frozenset((winner.video, loser.video)) not in by_people
  ]
  return _Pairs(
    list(pairs),
    [
      {'gap': round(winner.reward - loser.reward, 6)} for winner, loser in pairs
    ],
    f'{len(pairs)} pairs of clips from {found.num_prompts} prompts '
    f'({found.num_dropped} dropped for their small gaps; '
    f'{len(found.pairs) - len(pairs)} that people compared; prompts without a '
    f'pair: {_counts(found.without_pair)})',
  )


def _from_people(compared: Sequence[EncodedPair]) -> _Pairs:
  """The pairs of which people prefer one clip."""
  units: list[Unit] = []
  notes = []
  reasons = collections.Counter()
  for pair in compared:
    record, (first, second) = pair.record, pair.entries
    if record.overall == 'same':
      reasons['no preference'] += 1
    elif first is None or second is None:
      reasons['a clip was skipped'] += 1
    elif first.bucket != second.bucket:
      reasons['clips of different sizes'] += 1
    else:
      winner, loser = (
        (first, second) if record.overall == 'first' else (second, first)
      )
      units.append(
        (
          ScoredEntry(winner, record.caption, 1.0, False, {}),
          ScoredEntry(loser, record.caption, 0.0, False, {}),
        )
      )
      notes.append({'record': record.where})
  prompts = {normalize_caption(pair.record.caption) for pair in compared}
  used = {normalize_caption(winner.caption) for winner, _ in units}
  return _Pairs(
    units,
    notes,
    f'{len(units)} of {len(compared)} pairs that people compared (not used: '
    f'{_counts(reasons)}; {len(prompts - used)} of {len(prompts)} prompts are '
    'without a pair)',
  )


def _counts(reasons: dict[str, int]) -> str:
  return ', '.join(f'{name}: {n}' for name, n in reasons.items()) or 'none'


def _hash(caption: str) -> float:
  """In [0, 1), by which prompts are held out, the same in every run."""
  return hash_fraction(f'held out\n{normalize_caption(caption)}')


def _with_optimality(scored: list[ScoredEntry]) -> list[ScoredEntry]:
  """The clips, with their optimality among those of their prompt.

  Real ones count as any other, if the objective selects them.
  """
  values = optimality(
    [item.reward for item in scored], [item.caption for item in scored]
  )
  return [
    dataclasses.replace(item, optimality=float(value))
    for item, value in zip(scored, values, strict=True)
  ]


def _in_twos(scored: Sequence[ScoredEntry]) -> Iterator[Unit]:
  """Real clips of a bucket two by two; the last may come twice."""
  buckets = collections.defaultdict(list)
  for item in scored:
    if item.is_real:
      buckets[item.entry.bucket].append(item)
  for items in buckets.values():
    for first in range(0, len(items), 2):
      two = items[first : first + 2]
      yield two[0], two[-1]
