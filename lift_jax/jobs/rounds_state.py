"""What a round of `lift rounds` begins with, and the names of its stages."""

import dataclasses
import pathlib
from typing import Any, Self

from lift_jax.jobs.rounds_config import RoundsConfig
from lift_jax.models.adapter_config import AdapterConfig

BASE = 'base'


class Waiting(Exception):
  """A round waits for people; the message says for what."""


@dataclasses.dataclass(frozen=True)
class Network:
  """A text-to-video model or a critic.

  Attributes:
    path: its folder.
    adapters: that are added to its weights.
    fingerprint: what it was made of, as a JSON value.
  """

  path: str
  adapters: tuple[AdapterConfig, ...]
  fingerprint: Any

  @property
  def settings(self) -> dict[str, Any]:
    """Settings of the section `model` of a job, by dotted name."""
    return {
      'model.path': self.path,
      'model.adapter': '',
      'model.adapter_scale': 1.0,
      'model.adapter_alpha': None,
      'model.adapters': tuple(map(dataclasses.asdict, self.adapters)),
    }

  def with_adapters(
    self, *folders: pathlib.Path, fingerprint: Any, keep: bool
  ) -> Self:
    """The same with other adapters, after its own ones or in their place."""
    own = self.adapters if keep else ()
    added = tuple(AdapterConfig(str(folder)) for folder in folders)
    return dataclasses.replace(
      self, adapters=(*own, *added), fingerprint=fingerprint
    )


@dataclasses.dataclass(frozen=True)
class State:
  """What a round begins with, and leaves for the next one.

  Attributes:
    name: of the round that left it; `BASE` for what all rounds begin with.
    model: the text-to-video model.
    critic: that scores clips.
  """

  name: str
  model: Network
  critic: Network


def name_of(number: int) -> str:
  """The name of a round, and of its folder."""
  return f'round_{number}'


def vote_stages(config: RoundsConfig) -> list[str]:
  """The stages of a round that score for a vote."""
  return [f'vote_{n + 1}' for n in range(len(config.correction.critics))]


def stage_names(config: RoundsConfig) -> list[str]:
  """All stages, in their order."""
  held_out = ['guard_held_out'] if config.guards.critic is not None else []
  measured = ['guard_sample', 'guard_score', *held_out, 'measure']
  trained = ['train_critic'] if config.critic_training.enabled else []
  own = ['sample', 'score', *vote_stages(config), 'choose', 'correct']
  names = ['real'] if config.real.root else []
  names += [f'{BASE}/{stage}' for stage in measured]
  for number in range(1, config.budget.rounds + 1):
    names += [
      f'{name_of(number)}/{stage}'
      for stage in (*own, *trained, 'align', *measured)
    ]
  return names
