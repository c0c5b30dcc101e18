"""The fields of a `model` config section that name LoRA adapters."""

import dataclasses
import math

from lift_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
  """Adapters to add to a network's weights: W + scale alpha / rank B A.

  Attributes:
    path: see `adapter_files.open_adapter`; or an id on the hub,
      ORG/NAME[@REVISION].
    scale: strength of the adapters; 1 as they were trained.
    alpha: of adapters whose files state none; None for their rank.
  """

  path: str
  scale: float = 1.0
  alpha: float | None = None

  def __post_init__(self):
    if not self.path:
      raise UserError('model.adapters: a path is empty; give that of adapters')
    for name in ('scale', 'alpha'):
      value = getattr(self, name)
      if value is not None and not math.isfinite(value):
        raise UserError(
          f'{name} of the adapters {self.path} is {value}; give a finite number'
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptersConfig:
  """The adapters of a model, which are merged into its weights.

  Attributes:
    adapter: path or id of adapters; '' for none.
    adapter_scale: its `AdapterConfig.scale`.
    adapter_alpha: its `AdapterConfig.alpha`.
    adapters: more of them, in the order in which they are added.
  """

  adapter: str
  adapter_scale: float = 1.0
  adapter_alpha: float | None = None
  adapters: tuple[AdapterConfig, ...] = ()

  def __post_init__(self):
    if not self.adapter and (
      self.adapter_scale != 1 or self.adapter_alpha is not None
    ):
      raise UserError(
        'model.adapter_scale and model.adapter_alpha are those of '
        'model.adapter, which is empty; name the adapters there'
      )

  @property
  def all_adapters(self) -> tuple[AdapterConfig, ...]:
    """`adapter`, if there is one, and `adapters`."""
    if not self.adapter:
      return self.adapters
    first = AdapterConfig(self.adapter, self.adapter_scale, self.adapter_alpha)
    return (first, *self.adapters)
