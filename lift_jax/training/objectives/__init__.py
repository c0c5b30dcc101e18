"""Objectives of `lift align`: one per file, and the config that selects one.

`docs/extending.md` shows how to add one.
"""

import dataclasses

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.training.objectives.anchored import Anchored
from lift_jax.training.objectives.dpo import DPO
from lift_jax.training.objectives.kto import KTO
from lift_jax.training.objectives.likelihood import SFT, Rejection
from lift_jax.training.objectives.nft import NFT
from lift_jax.training.objectives.objective import Objective
from lift_jax.training.objectives.reward_weighted import RewardWeighted

_SETTINGS = ('name', 'anchor_weight', 'drift_window')


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
  """The section `objective` of a config: a name, and settings under that name.

  Settings of other objectives may be present too, so that one flag switches
  between them.

  Attributes:
    name: of the selected objective; every other section is an objective.
    anchor_weight: of the mean squared distance between the velocities of the
      network and of the reference, added to any objective; 0 adds nothing.
    drift_window: steps in a row with the error of preferred clips above that of
      the reference, until a warning (see `training.drift`); 0 never warns.
  """

  name: str
  anchor_weight: float = 0.0
  drift_window: int = 100
  sft: SFT | None = None
  rejection: Rejection | None = None
  dpo: DPO | None = None
  kto: KTO | None = None
  nft: NFT | None = None
  reward_weighted: RewardWeighted | None = None

  def __post_init__(self):
    names = [field.name for field in dataclasses.fields(self)]
    names = [name for name in names if name not in _SETTINGS]
    config_lib.check_choice('objective.name', self.name, names)
    if getattr(self, self.name) is None:
      raise UserError(
        f'objective.{self.name} is missing; add this section with the '
        'settings of the objective, or change objective.name'
      )
    if self.anchor_weight < 0:
      raise UserError('objective.anchor_weight must not be below 0')
    if self.drift_window < 0:
      raise UserError('objective.drift_window must not be below 0')

  @property
  def chosen(self) -> Objective:
    objective = getattr(self, self.name)
    if self.anchor_weight:
      return Anchored(objective, self.anchor_weight)
    return objective
