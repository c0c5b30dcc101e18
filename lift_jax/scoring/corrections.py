"""Labels of scored clips, corrected by people or by a vote of critics.

A `Scored` is a record of `lift score`; all critics have the dimensions and
labels of one `Scale`. Some clips of a round are corrected: those on which the
critics disagree most, or, where they agree or there is a single one, those of
which they are least certain (`rewards.uncertainty`). A label of a person takes
precedence over a vote.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lift_jax.data.hra import HRARecord
from lift_jax.data.rubric import Scale, majority
from lift_jax.errors import UserError
from lift_jax.rewards import uncertainty
from lift_jax.rewards.weights import video_reward
from lift_jax.runtime.files import json_sha256
from lift_jax.scoring.output import label_fields
from lift_jax.scoring.videos import key_of

Scored = Mapping[str, Any]
Labels = dict[str, str]  # by dimension

PEOPLE, VOTE = 'people', 'vote'

# Smaller differences of rewards are rounding errors.
_DIGITS = 9


def key_of_record(record: Scored) -> str:
  """See `scoring.videos.key_of`."""
  return key_of(record['video'], record['caption'])


def vote(records: Sequence[Scored], scale: Scale) -> Labels:
  """The majority of several critics about one clip, by dimension.

  A critic without an answer has no vote.
  """
  ballots = [record['labels'] for record in records if 'labels' in record]
  if not ballots:
    return {}
  return {
    name: majority([ballot[name] for ballot in ballots], scale.labels)
    for name in scale.dimensions
  }


def choose(
  votes: Sequence[Sequence[Scored]], share: float, scale: Scale
) -> list[int]:
  """Indices of the clips to correct, ascending.

  Those that no critic answered come first.

  Args:
    votes: of each clip, the records of all critics, the training critic first.
    share: of the clips.
    scale: of all critics.
  """

  def order(index: int) -> tuple[Any, ...]:
    key = key_of_record(votes[index][0])
    answered = (_distributions(record, scale) for record in votes[index])
    found = [one for one in answered if one]
    if not found:
      return False, 0.0, 0.0, key
    # Equal up to rounding is agreement.
    disagreement = round(uncertainty.disagreement(found, scale), _DIGITS)
    return True, -disagreement, -uncertainty.uncertainty(found, scale), key

  count = round(share * len(votes))
  return sorted(sorted(range(len(votes)), key=order)[:count])


def _distributions(record: Scored, scale: Scale) -> uncertainty.Distributions:
  """What a critic answered; empty for nothing."""
  if 'probabilities' in record:
    return record['probabilities']
  labels = record.get('labels', {})
  return {
    name: {one: float(one == label) for one in scale.labels}
    for name, label in labels.items()
  }


def labels_of_people(
  records: Iterable[HRARecord], scale: Scale
) -> dict[str, Labels]:
  """The labels of people by `key_of_record`.

  Raises:
    UserError: a dimension that critics do not rate.
  """
  labels: dict[str, Labels] = {}
  for record in records:
    if record.dimension not in scale.dimensions:
      raise UserError(
        f'{record.where} is about {record.dimension}, but the critic rates '
        f'{", ".join(scale.dimensions)}; remove such ratings from the file'
      )
    key = key_of(record.video, record.caption)
    labels.setdefault(key, {})[record.dimension] = record.label
  return labels


def correct(
  votes: Sequence[Sequence[Scored]],
  chosen: Iterable[int],
  people: Mapping[str, Labels],
  scale: Scale,
  decimals: int | None,
) -> list[dict[str, Any]]:
  """The records of the training critic, with corrected labels and scores.

  A clip without a label in every dimension is left out.

  Args:
    votes: see `choose`.
    chosen: clips that the critics vote on.
    people: see `labels_of_people`; of any clips.
    scale: of all critics.
    decimals: of a score; see `video_reward`.
  """
  voted, records = set(chosen), []
  for index, ballot in enumerate(votes):
    record = dict(ballot[0])
    own = record.get('labels', {})
    labels, corrected_by = dict(own), ''
    if index in voted and len(ballot) > 1:
      labels, corrected_by = vote(ballot, scale), VOTE
    if theirs := people.get(key_of_record(record)):
      labels, corrected_by = labels | theirs, PEOPLE
    if labels.keys() != set(scale.dimensions):
      continue
    if labels != own or 'score' not in record:
      record |= label_fields(labels, scale)
      record['score'] = video_reward(labels, scale, decimals)
    record.pop('error', None)
    records.append(record | {'corrected_by': corrected_by})
  return records


def agreed_between_temperatures(
  record: Scored, temperatures: Sequence[float], seed: int, scale: Scale
) -> Labels:
  """Labels that are the same when sampled at each temperature.

  The answer at temperature T is sampled from p^(1 / T), renormalised.
  """
  if 'probabilities' not in record:
    return {}
  labels = {}
  for name in scale.dimensions:
    sampled = {
      _sample(record, name, temperature, seed, scale.labels)
      for temperature in temperatures
    }
    if len(sampled) == 1:
      labels[name] = sampled.pop()
  return labels


def _sample(
  record: Scored,
  name: str,
  temperature: float,
  seed: int,
  labels: Sequence[str],
) -> str:
  digest = json_sha256([seed, key_of_record(record), name, temperature])
  rng = np.random.default_rng(int(digest[:16], 16))
  p_k = np.array([record['probabilities'][name][label] for label in labels])
  logit_k = np.log(np.maximum(p_k, np.finfo(np.float32).tiny)) / temperature
  weight_k = np.exp(logit_k - logit_k.max())
  return labels[rng.choice(len(labels), p=weight_k / weight_k.sum())]


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
