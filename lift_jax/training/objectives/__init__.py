"""Objectives of `lift align`: one per file, and the config that selects one.

`docs/extending.md` shows how to add one.
"""

import dataclasses

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.training.objectives.objective import Objective
from lift_jax.training.objectives.reward_weighted import RewardWeighted


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
  """The section `objective` of a config: a name, and settings under that name.

  Settings of other objectives may be present too, so that one flag switches
  between them.

  Attributes:
    name: of the selected objective; every other field is an objective.
  """

  name: str
  reward_weighted: RewardWeighted | None = None

  def __post_init__(self):
    names = [field.name for field in dataclasses.fields(self)]
    names.remove('name')
    config_lib.check_choice('objective.name', self.name, names)
    if getattr(self, self.name) is None:
      raise UserError(
        f'objective.{self.name} is missing; add this section with the '
        'settings of the objective, or change objective.name'
      )

  @property
  def chosen(self) -> Objective:
    return getattr(self, self.name)
