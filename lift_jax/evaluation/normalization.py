"""Normalised rewards: what makes the dimensions of a critic comparable.

VideoGen-RewardBench (arXiv 2501.13918) adds up rewards of dimensions that are
normalised by their mean and standard deviation on the clips of the training:

  overall = sum_d (reward_d - mean_d) / std_d

Both are kept in normalization.json of the critic's folder, next to its
prompts.json.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib

import numpy as np

from lift_jax.data.json_records import (
  RecordError,
  as_object,
  parse_json,
  read_text,
  text_field,
)
from lift_jax.data.rubric import Scale
from lift_jax.errors import UserError, listing
from lift_jax.evaluation.scores import ScoredRecord
from lift_jax.runtime.files import write_json

NAME = 'normalization.json'

_WANTED = '{"critic", "rewards", "dimensions"}, as lift evaluate writes it'


@dataclasses.dataclass(frozen=True)
class Normalization:
  """Means and standard deviations of the soft rewards of a critic.

  Attributes:
    critic: its fingerprint.
    rewards: of each label, which the numbers depend on.
    mean: by dimension.
    std: by dimension, each above 0.
  """

  critic: str
  rewards: Mapping[str, float]
  mean: Mapping[str, float]
  std: Mapping[str, float]

  def overall(self, record: ScoredRecord, scale: Scale) -> float:
    """The sum over dimensions; NaN if an answer is missing."""
    total = 0.0
    for name, mean in self.mean.items():
      answer = record.answers.get(name)
      if answer is None:
        return math.nan
      total += (answer.soft_reward(scale) - mean) / self.std[name]
    return total


def fit(records: Sequence[ScoredRecord], scale: Scale) -> Normalization:
  """The normalization by the scores of the clips of the training.

  Raises:
    UserError: no critic is named, or the reward does not vary.
  """
  critic = next((record.critic for record in records if record.critic), '')
  if not critic:
    raise UserError(
      f'{records[0].file}: no "critic" in the records, so that it is unknown '
      'what they normalise; score the clips with lift score'
    )
  mean, std = {}, {}
  for name in scale.dimensions:
    rewards = [
      record.answers[name].soft_reward(scale)
      for record in records
      if name in record.answers
    ]
    if np.ptp(rewards or [0.0]) < 1e-9:
      raise UserError(
        f'{records[0].file}: the reward in {name} is the same for all '
        f'{len(rewards)} answers, so that it cannot be normalised; give the '
        'scores of more clips'
      )
    mean[name], std[name] = float(np.mean(rewards)), float(np.std(rewards))
  return Normalization(critic, _rewards(scale), mean, std)


def write(folder: pathlib.Path, normalization: Normalization) -> None:
  """Writes the file into the folder of the critic."""
  write_json(
    folder / NAME,
    {
      'critic': normalization.critic,
      'rewards': dict(normalization.rewards),
      'dimensions': {
        name: {'mean': mean, 'std': normalization.std[name]}
        for name, mean in normalization.mean.items()
      },
    },
  )


def read(folder: pathlib.Path, scale: Scale) -> Normalization:
  """Reads the file from the folder of a critic.

  Raises:
    UserError: there is none, or it is of another scale.
  """
  path = folder / NAME
  if not path.is_file():
    raise UserError(
      f'{folder}: no {NAME}; score the clips of its training, and give the '
      'scores as --config.normalization.files=FILE'
    )
  value = parse_json(str(path), read_text(str(path), path), _WANTED)
  try:
    item = as_object(value, _WANTED)
    sections = as_object(item.get('dimensions'), f'"dimensions" of {_WANTED}')
    numbers = {
      key: {
        name: _number(as_object(section, '{"mean", "std"}'), name, key)
        for name, section in sections.items()
      }
      for key in ('mean', 'std')
    }
    found = Normalization(
      text_field(item, 'critic'),
      as_object(item.get('rewards'), f'"rewards" of {_WANTED}'),
      **numbers,
    )
  except RecordError as error:
    raise UserError(f'{path}: {error}') from None
  if (tuple(found.mean), found.rewards) != (scale.dimensions, _rewards(scale)):
    raise UserError(
      f'{path}: made for the dimensions {listing(found.mean)} and the rewards '
      f'{dict(found.rewards)}; make it again with those of this evaluation'
    )
  return found


def _rewards(scale: Scale) -> dict[str, float]:
  return {label: scale.score(label) for label in scale.labels}


def _number(section: dict, name: str, key: str) -> float:
  value = section.get(key)
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if not is_number or not math.isfinite(value) or (key == 'std' and value <= 0):
    raise RecordError(f'"{key}" of {name} is {value!r}; write it again')
  return float(value)
