"""Several critics as one, whose distribution over labels is their mean.

Its soft reward is then the mean of theirs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lift_jax.data.rubric import Scale
from lift_jax.errors import UserError
from lift_jax.evaluation.scores import Answer, ScoredRecord
from lift_jax.rewards.uncertainty import disagreement, uncertainty

NAME = 'ensemble'


def make_ensemble(
  critics: Sequence[Sequence[ScoredRecord]], scale: Scale
) -> list[ScoredRecord]:
  """The records of the ensemble, in the order of the first critic.

  They are about the clips that all critics have a record of. One without an
  answer leaves the answer to the others.

  Raises:
    UserError: there is no such clip.
  """
  return [_mean(group, scale) for group in _by_clip(critics)]


def to_json(
  critics: Sequence[Sequence[ScoredRecord]], scale: Scale
) -> list[dict[str, Any]]:
  """The objects of a file that `scores.read_scores` reads.

  They have "uncertainty" and "disagreement", see `rewards.uncertainty`.
  """
  items = []
  for group in _by_clip(critics):
    record = _mean(group, scale)
    item: dict[str, Any] = {'video': record.video, 'caption': record.caption}
    if record.error:
      items.append(item | {'error': record.error})
      continue
    soft = [answer.soft_reward(scale) for answer in record.answers.values()]
    given = [one.distributions(scale) for one in group if one.answers]
    items.append(
      item
      | {
        'score': float(np.mean(soft)),
        'labels': {
          name: scale.classes[answer.label]
          for name, answer in record.answers.items()
        },
        'probabilities': record.distributions(scale),
        'uncertainty': uncertainty(given, scale),
        'disagreement': disagreement(given, scale),
        'critic': record.critic,
        'flags': list(record.flags),
      }
    )
  return items


def _by_clip(
  critics: Sequence[Sequence[ScoredRecord]],
) -> list[list[ScoredRecord]]:
  """The records of each clip, one of each critic."""
  first, *others = (
    {(record.path, record.caption): record for record in records}
    for records in critics
  )
  groups = [
    [record, *(other[key] for other in others)]
    for key, record in first.items()
    if all(key in other for other in others)
  ]
  if not groups:
    raise UserError(
      f'{critics[0][0].file}, {critics[1][0].file}: no clip is in both with '
      'the same caption; score the same clips with all critics'
    )
  return groups


def _mean(group: Sequence[ScoredRecord], scale: Scale) -> ScoredRecord:
  first = group[0]
  answers = {}
  for name in scale.dimensions:
    given = [
      list(record.answers[name].distribution(scale).values())
      for record in group
      if name in record.answers
    ]
    if given:
      mean = np.mean(given, axis=0)
      answers[name] = Answer(int(mean.argmax()), '', tuple(mean.tolist()))
  return ScoredRecord(
    video=first.video,
    path=first.path,
    caption=first.caption,
    answers=answers,
    error='' if answers else first.error,
    critic=NAME,
    flags=tuple(dict.fromkeys(flag for one in group for flag in one.flags)),
    file=first.file,
    place=first.place,
  )
