"""Which parts of a critic are trained, and how fast.

decoder        the language model
projector      what maps features of the vision tower to its tokens: VILA's
               projector, or the mergers of Qwen3-VL
vision_tower   the rest of the network
"""

from collections.abc import Callable
import dataclasses

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.models import lora
from lift_jax.models.critics import Critic
from lift_jax.training.config import TrainConfig
from lift_jax.training.setup import PARTS

FROZEN, LORA, FULL = 'frozen', 'lora', 'full'

_VISION_TOWER = 'vision_tower/'


@dataclasses.dataclass(frozen=True)
class PartConfig:
  """How a part is trained.

  Attributes:
    training: 'frozen', 'lora' (adapters) or 'full'.
    learning_rate: the peak; None for `optimizer.learning_rate`.
  """

  training: str
  learning_rate: float | None = None

  def peak(self, default: float) -> float:
    return default if self.learning_rate is None else self.learning_rate


@dataclasses.dataclass(frozen=True)
class PartsConfig:
  """The parts of a critic, for `train.trainable` = 'parts'.

  Adapters of the decoder are on the layers of `lora.targets`, those of the
  vision tower on every linear layer of its blocks. The defaults are LiFT's
  recipe, the same as `train.trainable` = 'lora'.
  """

  decoder: PartConfig = PartConfig(LORA)
  projector: PartConfig = PartConfig(FROZEN)
  vision_tower: PartConfig = PartConfig(FROZEN)

  def __post_init__(self):
    for name, part in self.named.items():
      choices = (FROZEN, FULL) if name == 'projector' else (FROZEN, LORA, FULL)
      config_lib.check_choice(f'parts.{name}.training', part.training, choices)
      rate = part.learning_rate
      # In this form it rejects NaN too.
      if rate is not None and not rate > 0:
        raise UserError(
          f'parts.{name}.learning_rate is {rate:g}; give a number above 0, or '
          f"set parts.{name}.training to 'frozen'"
        )
    if all(part.training == FROZEN for part in self.named.values()):
      raise UserError(
        "parts: all of them are 'frozen'; set the training of one to 'lora' or "
        "'full'"
      )

  @property
  def named(self) -> dict[str, PartConfig]:
    return {
      'decoder': self.decoder,
      'projector': self.projector,
      'vision_tower': self.vision_tower,
    }


LIFT_PARTS = PartsConfig()


def chosen(train: TrainConfig, parts: PartsConfig) -> PartsConfig:
  """The parts that a run trains: `parts`, or what `train.trainable` names."""
  if train.trainable == PARTS:
    return parts
  if train.trainable == 'lora':
    return LIFT_PARTS
  full = PartConfig(FULL)
  return PartsConfig(full, full, full)


def has_adapters(parts: PartsConfig) -> bool:
  return any(part.training == LORA for part in parts.named.values())


def only_adapters(parts: PartsConfig) -> bool:
  """Whether an export holds adapters alone, not a complete critic."""
  return all(part.training != FULL for part in parts.named.values())


def part_of(critic: Critic, name: str) -> str:
  """The part that a parameter belongs to."""
  if name.startswith(critic.projector):
    return 'projector'
  return 'vision_tower' if name.startswith(_VISION_TOWER) else 'decoder'


def adapter_targets(
  critic: Critic, parts: PartsConfig, config: lora.LoRAConfig
) -> tuple[str, ...]:
  """The layers with adapters, as `LoRAConfig.targets`.

  Raises:
    UserError: adapters of this vision tower could not be written.
  """
  targets = ()
  if parts.decoder.training == LORA:
    targets += config.targets
  if parts.vision_tower.training == LORA:
    if not critic.tower_targets:
      raise UserError(
        "parts.vision_tower.training is 'lora', which this critic has no names "
        "for; set it to 'full' or 'frozen'"
      )
    targets += critic.tower_targets
  return targets


def trained_by_name(
  critic: Critic, parts: PartsConfig
) -> Callable[[str], bool]:
  """Whether a parameter is trained, by its name."""

  def is_trained(name: str) -> bool:
    if lora.is_adapter(name):
      return True
    return parts.named[part_of(critic, name)].training == FULL

  return is_trained


def peak_rates(
  critic: Critic, parts: PartsConfig, default: float
) -> Callable[[str], float] | None:
  """The peak learning rate of a parameter; None if all have the default."""
  rates = {
    name: part.peak(default)
    for name, part in parts.named.items()
    if part.training != FROZEN
  }
  if set(rates.values()) == {default}:
    return None
  return lambda name: rates[part_of(critic, name)]
