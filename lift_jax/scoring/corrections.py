"""Labels of scored clips, corrected by people or by a vote of critics.

A `Scored` is a record of `lift score`. Some clips of a round are corrected:
those on which the critics disagree most, or, where they agree or there is a
single one, those of which they are least certain (`rewards.uncertainty`). A
label of a person takes precedence over a vote.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lift_jax.data.hra import DIMENSIONS, LABELS, HRARecord
from lift_jax.data.rubric import Scale, majority
from lift_jax.rewards import uncertainty
from lift_jax.rewards.weights import video_reward
from lift_jax.runtime.files import json_sha256
from lift_jax.scoring.config import RewardConfig
from lift_jax.scoring.videos import key_of

Scored = Mapping[str, Any]
Labels = dict[str, str]  # by dimension

PEOPLE, VOTE = 'people', 'vote'

# Smaller differences of rewards are rounding errors.
_DIGITS = 9


def key_of_record(record: Scored) -> str:
  """See `scoring.videos.key_of`."""
  return key_of(record['video'], record['caption'])


def vote(records: Sequence[Scored]) -> Labels:
  """The majority of several critics about one clip, by dimension.

  A critic without an answer has no vote.
  """
  ballots = [record['labels'] for record in records if 'labels' in record]
  if not ballots:
    return {}
  return {
    name: majority([ballot[name] for ballot in ballots], LABELS)
    for name in DIMENSIONS
  }


def choose(
  votes: Sequence[Sequence[Scored]], share: float, scale: Scale
) -> list[int]:
  """Indices of the clips to correct, ascending.

  Those that no critic answered come first.

  Args:
    votes: of each clip, the records of all critics, the training critic first.
    share: of the clips.
    scale: the reward of each label.
  """

  def order(index: int) -> tuple[Any, ...]:
    key = key_of_record(votes[index][0])
    found = [one for one in map(_distributions, votes[index]) if one]
    if not found:
      return False, 0.0, 0.0, key
    # Equal up to rounding is agreement.
    disagreement = round(uncertainty.disagreement(found, scale), _DIGITS)
    return True, -disagreement, -uncertainty.uncertainty(found, scale), key

  count = round(share * len(votes))
  return sorted(sorted(range(len(votes)), key=order)[:count])


def _distributions(record: Scored) -> uncertainty.Distributions:
  """What a critic answered; empty for nothing."""
  if 'probabilities' in record:
    return record['probabilities']
  labels = record.get('labels', {})
  return {
    name: {one: float(one == label) for one in LABELS}
    for name, label in labels.items()
  }


def labels_of_people(records: Iterable[HRARecord]) -> dict[str, Labels]:
  """The labels of people by `key_of_record`."""
  labels: dict[str, Labels] = {}
  for record in records:
    key = key_of(record.video, record.caption)
    labels.setdefault(key, {})[record.dimension] = record.label
  return labels


def correct(
  votes: Sequence[Sequence[Scored]],
  chosen: Iterable[int],
  people: Mapping[str, Labels],
  reward: RewardConfig,
) -> list[dict[str, Any]]:
  """The records of the training critic, with corrected labels and scores.

  A clip without a label in every dimension is left out.

  Args:
    votes: see `choose`.
    chosen: clips that the critics vote on.
    people: see `labels_of_people`; of any clips.
    reward: the score of each label.
  """
  voted, records = set(chosen), []
  for index, ballot in enumerate(votes):
    record = dict(ballot[0])
    own = record.get('labels', {})
    labels, corrected_by = dict(own), ''
    if index in voted and len(ballot) > 1:
      labels, corrected_by = vote(ballot), VOTE
    if theirs := people.get(key_of_record(record)):
      labels, corrected_by = labels | theirs, PEOPLE
    if labels.keys() != set(DIMENSIONS):
      continue
    if labels != own or 'score' not in record:
      score = video_reward(labels, reward.reward_map().scale(), reward.decimals)
      record |= {'labels': labels, 'score': score}
    record.pop('error', None)
    records.append(record | {'corrected_by': corrected_by})
  return records


def agreed_between_temperatures(
  record: Scored, temperatures: Sequence[float], seed: int
) -> Labels:
  """Labels that are the same when sampled at each temperature.

  The answer at temperature T is sampled from p^(1 / T), renormalised.
  """
  if 'probabilities' not in record:
    return {}
  labels = {}
  for name in DIMENSIONS:
    sampled = {
      _sample(record, name, temperature, seed) for temperature in temperatures
    }
    if len(sampled) == 1:
      labels[name] = sampled.pop()
  return labels


def _sample(record: Scored, name: str, temperature: float, seed: int) -> str:
  digest = json_sha256([seed, key_of_record(record), name, temperature])
  rng = np.random.default_rng(int(digest[:16], 16))
  p_k = np.array([record['probabilities'][name][label] for label in LABELS])
  logit_k = np.log(np.maximum(p_k, np.finfo(np.float32).tiny)) / temperature
  weight_k = np.exp(logit_k - logit_k.max())
  return LABELS[rng.choice(len(LABELS), p=weight_k / weight_k.sum())]


def agreed_between_critics(records: Sequence[Scored]) -> Labels:
  """Labels that all critics give."""
  if not all('labels' in record for record in records):
    return {}
  first, *others = (record['labels'] for record in records)
  return {
    name: label
    for name, label in first.items()
    if all(other[name] == label for other in others)
  }
