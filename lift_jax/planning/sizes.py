"""Models whose sizes are known, with none of their weights at hand."""

from collections.abc import Mapping
import pathlib
from typing import TypeVar

from lift_jax.errors import UserError
from lift_jax.models import generators
from lift_jax.models.critic.choice import CriticModelConfig
from lift_jax.models.critic.critic import CriticConfig
from lift_jax.models.critic.folder import CriticFolder, open_critic
from lift_jax.models.critic.projector import ProjectorConfig
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.internvit.config import InternViTConfig
from lift_jax.models.llama.config import VILA_13B, VILA_40B
from lift_jax.models.siglip.config import SiglipConfig

# As in the config files of Efficient-Large-Model/VILA1.5-13b and -40b.
CRITICS = {
  'VILA1.5-13b': CriticConfig(SiglipConfig(), ProjectorConfig(), VILA_13B),
  'VILA1.5-40b': CriticConfig(
    InternViTConfig(),
    ProjectorConfig(vision_width=3200, width=7168),
    VILA_40B,
  ),
}

T = TypeVar('T')

_NOWHERE = pathlib.Path()


def model_of(config: ModelConfig) -> generators.VideoModel:
  """The configs of a job's model; its weights need not be there.

  Raises:
    UserError: the config does not say which it is.
  """
  if config.path:
    return generators.open_model(config.path, config.adapter)
  return generators.of_sizes(
    config.random or _published(config.published, generators.published_sizes())
  )


def critic_of(config: CriticModelConfig) -> CriticFolder:
  """The configs of a job's critic; its weights need not be there.

  Raises:
    UserError: the config does not say which it is.
  """
  if config.path:
    return open_critic(config.path, config.adapter)
  if config.random is not None:
    return CriticFolder(_NOWHERE, config.random.sizes, None)
  return CriticFolder(_NOWHERE, _published(config.published, CRITICS), None)


def _published(name: str, known: Mapping[str, T]) -> T:
  if name not in known:
    raise UserError(
      f'model.published is {name!r}: name the model whose sizes to plan for, '
      f'one of {list(known)}, or give its folder as --config.model.path=FOLDER'
    )
  return known[name]
