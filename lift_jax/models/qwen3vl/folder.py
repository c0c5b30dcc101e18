"""Files of a Qwen3-VL folder.

config.json                     sizes
video_preprocessor_config.json  how clips are sampled and resized
model*.safetensors              weights, one file or several with an index
tokenizer.json and others
"""

from collections.abc import Callable
import hashlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from lift_jax.errors import UserError
from lift_jax.models import critics
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.models.qwen3vl import convert, tiny_tokenizer
from lift_jax.models.qwen3vl.config import Qwen3VLConfig, QwenVideoConfig
from lift_jax.models.qwen3vl.tokenizer import TOKENIZER_FILES
from lift_jax.runtime import storage
from lift_jax.runtime.files import read_json, write_json
from lift_jax.weights import conversion, published_tensors, safetensors_files

_CONFIG = 'config.json'
_VIDEO = 'video_preprocessor_config.json'
# As transformers 5 writes it: a section of the joint file.
_PROCESSOR, _SECTION = 'processor_config.json', 'video_processor'
_STEM = 'model'  # of weight files, as transformers names them


def read_config(path: pathlib.Path) -> Qwen3VLConfig:
  """Reads the sizes from the config files of a folder.

  Raises:
    UserError: not a Qwen3-VL folder.
  """
  file = path / _CONFIG
  return Qwen3VLConfig.from_json(read_json(file), _read_video(path), str(file))


def _read_video(path: pathlib.Path) -> QwenVideoConfig:
  file = path / _VIDEO
  if file.is_file() or not (path / _PROCESSOR).is_file():
    return QwenVideoConfig.from_json(read_json(file), str(file))
  file = path / _PROCESSOR
  section = read_json(file).get(_SECTION)
  if not isinstance(section, dict):
    raise UserError(
      f'{file}: no {_SECTION}; copy {_VIDEO} of the published model there'
    )
  return QwenVideoConfig.from_json(section, f'{_SECTION} of {file}')


def write_draft(path: pathlib.Path, config: Qwen3VLConfig, seed: int) -> None:
  """Writes configs and a small tokenizer for a randomly initialised critic."""
  values = config.to_json() | {critics.RANDOM_SEED: seed}
  write_json(path / _CONFIG, values)
  write_json(path / _VIDEO, config.video.to_json())
  tiny_tokenizer.write(path)


def load_weights(
  path: pathlib.Path,
  config: Qwen3VLConfig,
  model: FunctionalModel,
  shardings: Params,
  dtype: Any,
  update: Callable[[str, jax.Array], jax.Array] | None,
) -> Params:
  """Loads the weights; see `Critic.load_weights`."""
  return published_tensors.load(
    _table(config),
    model.abstract_params,
    safetensors_files.open_tensors(path, _STEM),
    shardings=shardings,
    dtype=dtype,
    update=update,
    aliases=convert.TIED_ALIASES if config.tied_head else (),
    where=str(path),
  )


def save_weights(
  target: pathlib.Path, config: Qwen3VLConfig, params: Params, dtype: str | None
) -> None:
  """Writes the weights; see `Critic.save_weights`."""
  published_tensors.save(
    _table(config),
    params,
    target,
    _STEM,
    dtype=None if dtype is None else jnp.dtype(dtype),
  )


def file_hashes(path: pathlib.Path) -> list[str]:
  """Hashes of the weights and of the tokenizer's files."""
  tensors = safetensors_files.open_tensors(path, _STEM)
  hashes = [safetensors_files.fingerprint(tensors)]
  for name in TOKENIZER_FILES:
    if (path / name).is_file():
      hashes.append(hashlib.sha256((path / name).read_bytes()).hexdigest())
  return hashes


def copy_configs(
  source: pathlib.Path, target: pathlib.Path, dtype: str
) -> None:
  """Copies configs and tokenizer; `dtype` is that of the copied weights."""
  for file in source.iterdir():
    if file.name == _CONFIG:
      write_json(target / file.name, _with_dtype(read_json(file), dtype))
    elif file.suffix in ('.json', '.txt', '.jinja') and file.is_file():
      if not file.name.endswith('.index.json'):
        storage.copy_file(file, target / file.name)


def _with_dtype(values: dict[str, Any], dtype: str) -> dict[str, Any]:
  """A config with the type of the weights, which its sections name too."""
  changed = {}
  for key, value in values.items():
    if key in ('dtype', 'torch_dtype'):
      value = dtype
    elif isinstance(value, dict):
      value = _with_dtype(value, dtype)
    changed[key] = value
  return changed


def _table(config: Qwen3VLConfig) -> conversion.Table:
  return convert.TIED_TABLE if config.tied_head else convert.UNTIED_TABLE
