"""Files of a CLIP folder, as transformers' CLIPModel: config and weights.

`tokenizer` reads the other files.
"""

import pathlib

import jax.numpy as jnp

from lift_jax.models.clip.config import ClipConfig
from lift_jax.models.clip.convert import CLIP_IGNORED, CLIP_TABLE
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.runtime.files import read_json
from lift_jax.weights import conversion, safetensors_files


def read_config(folder: pathlib.Path) -> ClipConfig:
  """Reads the sizes; raises UserError if it is not a folder of CLIP."""
  path = folder / 'config.json'
  return ClipConfig.from_json(read_json(path), str(path))


def load_params(
  folder: pathlib.Path, model: FunctionalModel, shardings: Params
) -> Params:
  """Loads the weights in fp32; raises UserError for those of another size."""
  return conversion.load(
    CLIP_TABLE,
    model.abstract_params,
    safetensors_files.open_tensors(folder, 'model'),
    shardings=shardings,
    dtype=jnp.float32,
    ignored=CLIP_IGNORED,
    where=str(folder),
  )
