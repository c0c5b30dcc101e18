"""The prompts of `lift rounds`: some are measured on, the others trained on."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from lift_jax.data.prompts import Prompt, read_prompts
from lift_jax.errors import UserError
from lift_jax.jobs.rounds_config import RoundsConfig
from lift_jax.runtime import hub, storage


@dataclasses.dataclass(frozen=True)
class RoundPrompts:
  """Prompts in a random order.

  Attributes:
    guarded: those that the guards measure on, and nothing is trained on.
    trained: the others.
    per_round: how many of those a round takes.
  """

  guarded: Sequence[Prompt]
  trained: Sequence[Prompt]
  per_round: int

  def of(self, number: int) -> list[Prompt]:
    """The prompts of a round: the next ones, from the first after the last."""
    first = (number - 1) * self.per_round
    return [
      self.trained[index % len(self.trained)]
      for index in range(first, first + self.per_round)
    ]


def read_round_prompts(config: RoundsConfig) -> RoundPrompts:
  """Reads and shuffles the prompts of `sample.prompts`.

  Raises:
    UserError: they are bad, or too few.
  """
  prompts_config = config.sample.prompts
  root = hub.data_folder(prompts_config.root, (prompts_config.file,))
  prompts, _ = read_prompts(
    storage.join(storage.to_path(root), prompts_config.file),
    prompts_config.text_key,
    prompts_config.name_key,
  )
  count = config.guards.prompts
  per_round = config.clips_per_round // prompts_config.videos_per_prompt
  if len(prompts) < count + per_round:
    raise UserError(
      f'{prompts_config.file} has {len(prompts)} prompts, but the guards take '
      f'{count} and each round {per_round}; give more prompts, more clips of '
      'each, or more rounds for the same budget'
    )
  order = np.random.default_rng(config.seed).permutation(len(prompts))
  shuffled = [prompts[index] for index in order]
  return RoundPrompts(shuffled[:count], shuffled[count:], per_round)
