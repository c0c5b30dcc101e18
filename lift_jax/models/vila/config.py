"""Sizes of VILA-1.5 critics."""

import dataclasses

from lift_jax.errors import UserError
from lift_jax.models.critic_config import RandomCriticConfig
from lift_jax.models.internvit.config import InternViTConfig
from lift_jax.models.llama.config import VILA_13B, VILA_40B, LlamaConfig
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.models.vila import projector
from lift_jax.models.vila.projector import ProjectorConfig

NUM_FRAMES = 8  # num_video_frames of the published configs


@dataclasses.dataclass(frozen=True)
class VilaConfig:
  """Sizes of the three networks.

  Attributes:
    vision_tower: encodes frames as patches.
    projector: maps patches to tokens of the language model.
    llm: the language model.
    num_frames: of a clip that it reads, at most.
  """

  vision_tower: SiglipConfig | InternViTConfig
  projector: ProjectorConfig
  llm: LlamaConfig
  num_frames: int = NUM_FRAMES

  def __post_init__(self):
    width_in, width = self.projector.vision_width, self.projector.width
    if (width_in, width) != (self.vision_tower.width, self.llm.width):
      raise UserError(
        f'the projector maps width {width_in} to {width}; the vision tower has '
        f'{self.vision_tower.width} and the language model {self.llm.width}'
      )

  @property
  def tokens_per_frame(self) -> int:
    """Tokens of a frame: 196 for 13b, 256 for 40b."""
    return projector.num_tokens(self.vision_tower.num_patches)


# As in the config files of Efficient-Large-Model/VILA1.5-13b and -40b.
PUBLISHED = {
  'VILA1.5-13b': VilaConfig(SiglipConfig(), ProjectorConfig(), VILA_13B),
  'VILA1.5-40b': VilaConfig(
    InternViTConfig(),
    ProjectorConfig(vision_width=3200, width=7168),
    VILA_40B,
  ),
}


@dataclasses.dataclass(frozen=True)
class RandomVilaConfig(RandomCriticConfig):
  """Sizes of a randomly initialised VILA.

  Attributes:
    vision_tower: encodes frames as patches.
    llm: the language model.
  """

  vision_tower: SiglipConfig
  llm: LlamaConfig

  @property
  def sizes(self) -> VilaConfig:
    """Sizes of all three networks."""
    widths = {'vision_width': self.vision_tower.width, 'width': self.llm.width}
    projector = ProjectorConfig(**widths)
    return VilaConfig(self.vision_tower, projector, self.llm)
