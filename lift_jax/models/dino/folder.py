"""Files of a DINO folder, as transformers' ViTModel: config and weights."""

import pathlib

import jax.numpy as jnp

from lift_jax.models.dino.config import DinoConfig
from lift_jax.models.dino.convert import DINO_TABLE
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.runtime.files import read_json
from lift_jax.weights import conversion, safetensors_files


def read_config(folder: pathlib.Path) -> DinoConfig:
  """Reads the sizes; raises UserError if it is not a folder of DINO."""
  path = folder / 'config.json'
  return DinoConfig.from_json(read_json(path), str(path))


def load_params(
  folder: pathlib.Path, model: FunctionalModel, shardings: Params
) -> Params:
  """Loads the weights in fp32; raises UserError for those of another size."""
  return conversion.load(
    DINO_TABLE,
    model.abstract_params,
    safetensors_files.open_tensors(folder, 'model'),
    shardings=shardings,
    dtype=jnp.float32,
    where=str(folder),
  )
