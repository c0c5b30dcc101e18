"""A small DINO in the layout of the published folder."""

import json
import pathlib

from lift_jax.models.dino.config import DinoConfig
from lift_jax.models.dino.convert import DINO_TABLE
from lift_jax.models.dino.tower import Tower
from lift_jax.models.functional import functional
from lift_jax.weights import published_tensors
from tests.random_weights import random_params

# Sizes that other sizes do not suggest, a rest of 2 pixels at the edges, and a
# large epsilon, so that a wrong one shows.
TINY = DinoConfig(
  image_size=30,
  patch_size=7,
  width=24,
  num_layers=3,
  num_heads=3,
  mlp_width=40,
  norm_eps=1e-2,
)


def write_dino(
  folder: pathlib.Path, config: DinoConfig = TINY, seed: int = 0
) -> pathlib.Path:
  """Writes random weights and their config; returns the folder."""
  model = functional(lambda rngs: Tower(config, rngs=rngs))
  params = random_params(model.abstract_params, seed)
  published_tensors.save(DINO_TABLE, params, folder, 'model')
  (folder / 'config.json').write_text(json.dumps(config.to_json()))
  return folder
