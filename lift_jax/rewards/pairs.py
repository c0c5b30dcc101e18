"""Pairs of a better and a worse clip of one prompt, from scores.

The rules are those of published training sets: the best clip of a prompt
against its worst (VideoDPO, arXiv 2412.14167), winners that are at least as
good in every dimension (MPO of VisionReward, arXiv 2412.21059), the pairs with
the smallest gaps dropped, and no winners that stand still.
"""

import collections
from collections.abc import Callable, Hashable, Mapping, Sequence
import dataclasses
import itertools
from typing import Generic, Protocol, TypeVar

from lift_jax.errors import UserError


class Candidate(Protocol):
  """A scored clip."""

  @property
  def video(self) -> str: ...

  @property
  def caption(self) -> str: ...

  @property
  def reward(self) -> float:
    """In [0, 1]."""
    ...

  @property
  def dimensions(self) -> Mapping[str, float]:
    """Score by dimension, of which only the order counts; may be empty."""
    ...

  @property
  def motion(self) -> float:
    """Mean absolute difference of consecutive frames, in [0, 1]."""
    ...


_C = TypeVar('_C', bound=Candidate)


@dataclasses.dataclass(frozen=True)
class PairConfig:
  """Rules of choosing pairs.

  Attributes:
    every_dimension: the winner must be at least as good in each dimension.
    min_gap: least difference of rewards, above 0.
    drop_share: of the pairs, those with the smallest gaps.
    min_motion: of winners; see `Candidate.motion`.
    per_prompt: most pairs of a prompt; those with the largest gaps are kept.
    held_out: share of the prompts whose pairs are not trained on; a hash of
      the prompt decides.
    held_out_every_steps: optimizer steps between two evaluations on them.
      There is also one before the first step and one after the last.
  """

  every_dimension: bool
  min_gap: float
  drop_share: float
  min_motion: float
  per_prompt: int
  held_out: float = 0.0
  held_out_every_steps: int = 100

  def __post_init__(self):
    if not 0 < self.min_gap <= 1:
      raise UserError('pairs.min_gap must be above 0 and at most 1')
    if not 0 <= self.drop_share < 1:
      raise UserError('pairs.drop_share must be in [0, 1)')
    if self.min_motion < 0:
      raise UserError('pairs.min_motion must not be below 0')
    if self.per_prompt < 1:
      raise UserError('pairs.per_prompt must be at least 1')
    if not 0 <= self.held_out < 1:
      raise UserError('pairs.held_out must be in [0, 1)')
    if self.held_out_every_steps < 1:
      raise UserError('pairs.held_out_every_steps must be at least 1')


@dataclasses.dataclass(frozen=True)
class ChosenPairs(Generic[_C]):
  """Result of `make_pairs`.

  Attributes:
    pairs: (winner, loser), in the order of the prompts.
    num_prompts: prompts of all candidates.
    without_pair: number of prompts that gave none, by the first reason.
    num_dropped: pairs dropped for their small gaps.
  """

  pairs: list[tuple[_C, _C]]
  num_prompts: int
  without_pair: dict[str, int]
  num_dropped: int


def make_pairs(
  candidates: Sequence[_C],
  config: PairConfig,
  key: Callable[[_C], Hashable] = lambda candidate: candidate.caption,
) -> ChosenPairs[_C]:
  """Chooses pairs among the clips of each prompt.

  Of a prompt, the pair with the largest gap is taken first; each clip is in at
  most one pair. The result does not depend on the order of the candidates of a
  prompt.

  Args:
    candidates: scored clips.
    config: the rules.
    key: equal for clips that may be compared; by default the prompt.

  Raises:
    UserError: no prompt gives a pair.
  """
  by_prompt = {}
  for candidate in candidates:
    by_prompt.setdefault(key(candidate), []).append(candidate)
  pairs, without_pair = [], collections.Counter()
  for clips in by_prompt.values():
    reason, allowed = _allowed_pairs(clips, config)
    pairs += _disjoint(allowed)[: config.per_prompt]
    if not allowed:
      without_pair[reason] += 1
  if not pairs:
    reasons = ', '.join(f'{reason}: {n}' for reason, n in without_pair.items())
    raise UserError(
      f'no pair among {len(candidates)} clips of {len(by_prompt)} prompts '
      f'({reasons}); score several clips of each prompt, or relax pairs.*'
    )
  num_dropped = int(config.drop_share * len(pairs))
  smallest = sorted(range(len(pairs)), key=lambda index: _gap(pairs[index]))
  dropped = set(smallest[:num_dropped])
  return ChosenPairs(
    [pair for index, pair in enumerate(pairs) if index not in dropped],
    len(by_prompt),
    dict(without_pair),
    num_dropped,
  )


def _allowed_pairs(
  clips: Sequence[_C], config: PairConfig
) -> tuple[str, list[tuple[_C, _C]]]:
  """Allowed pairs of a prompt; if there is none, with the reason."""
  if len(clips) == 1:
    return 'only one clip', []
  pairs = [
    pair
    for pair in itertools.permutations(clips, 2)
    if _gap(pair) >= config.min_gap
  ]
  if not pairs:
    return 'no gap', []
  if config.every_dimension:
    pairs = [pair for pair in pairs if _wins_every_dimension(*pair)]
    if not pairs:
      return 'no winner in every dimension', []
  pairs = [pair for pair in pairs if pair[0].motion >= config.min_motion]
  return 'no winner that moves', pairs


def _disjoint(pairs: Sequence[tuple[_C, _C]]) -> list[tuple[_C, _C]]:
  """Pairs with the largest gaps first, each clip in one of them."""
  ordered = sorted(
    pairs, key=lambda pair: (-_gap(pair), pair[0].video, pair[1].video)
  )
  chosen, used = [], set()
  for winner, loser in ordered:
    if not used & {winner.video, loser.video}:
      chosen.append((winner, loser))
      used |= {winner.video, loser.video}
  return chosen


def _gap(pair: tuple[Candidate, Candidate]) -> float:
  winner, loser = pair
  return winner.reward - loser.reward


def _wins_every_dimension(winner: Candidate, loser: Candidate) -> bool:
  return all(
    winner.dimensions[name] >= score for name, score in loser.dimensions.items()
  )
