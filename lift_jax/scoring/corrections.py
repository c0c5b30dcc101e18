"""Labels of scored clips, corrected by people or by a vote of critics.

A `Scored` is a record of `lift score`. Some clips of a round are corrected:
those on which the critics disagree most, or, with a single critic, those of
which it is least certain. A label of a person takes precedence over a vote.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lift_jax.data.hra import DIMENSIONS, LABELS, HRARecord
from lift_jax.data.rubric import majority
from lift_jax.rewards.weights import video_reward
from lift_jax.runtime.files import json_sha256
from lift_jax.scoring.config import RewardConfig
from lift_jax.scoring.videos import key_of

Scored = Mapping[str, Any]
Labels = dict[str, str]  # by dimension

PEOPLE, VOTE = 'people', 'vote'


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


def disagreement(records: Sequence[Scored]) -> float:
  """Share of the critics' labels that are not the majority's, in [0, 1]."""
  winners = vote(records)
  labels = [
    record['labels'][name] != winners[name]
    for record in records
    if 'labels' in record
    for name in DIMENSIONS
  ]
  return float(np.mean(labels)) if labels else 1.0


def uncertainty(record: Scored) -> float:
  """1 - the probability of the likeliest label, mean over dimensions."""
  if 'probabilities' not in record:
    return 1.0
  return 1 - float(
    np.mean([max(p.values()) for p in record['probabilities'].values()])
  )


def choose(votes: Sequence[Sequence[Scored]], share: float) -> list[int]:
  """Indices of the clips to correct, ascending.

  Args:
    votes: of each clip, the records of all critics, the training critic first.
    share: of the clips.
  """
  count = round(share * len(votes))
  order = sorted(
    range(len(votes)),
    key=lambda index: (
      -disagreement(votes[index]),
      -uncertainty(votes[index][0]),
      key_of_record(votes[index][0]),
    ),
  )
  return sorted(order[:count])


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
