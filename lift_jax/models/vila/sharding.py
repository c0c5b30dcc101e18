"""Sharding rules of VILA: those of its three networks."""

import jax

from lift_jax import partitioning
from lift_jax.models.internvit import sharding as internvit
from lift_jax.models.internvit.config import InternViTConfig
from lift_jax.models.llama import sharding as llama
from lift_jax.models.siglip import sharding as siglip
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.models.vila import projector
from lift_jax.models.vila.config import VilaConfig

_TOWERS = {SiglipConfig: siglip.RULES, InternViTConfig: internvit.RULES}


def rules(config: VilaConfig) -> partitioning.Rules:
  """Rules for the parameters of a `Vila`."""
  parts = {
    'vision_tower': _TOWERS[type(config.vision_tower)],
    'projector': projector.RULES,
    'llm': llama.RULES,
  }
  return tuple(
    (f'{part}/({regex})', spec)
    for part, part_rules in parts.items()
    for regex, spec in part_rules
  )


def check_mesh(config: VilaConfig, mesh: jax.sharding.Mesh) -> None:
  """Raises UserError if the mesh would split an attention head."""
  llama.check_heads(config.llm, mesh)
