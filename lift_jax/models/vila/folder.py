"""Files of a VILA-1.5 folder.

  config.json                        shared settings
  llm/           config.json + weights + tokenizer.model
  vision_tower/  config.json + weights
  mm_projector/  config.json + weights

Weights are safetensors, as published.
"""

from collections.abc import Callable, Mapping
import hashlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from lift_jax.errors import UserError
from lift_jax.models import critics
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.models.internvit.config import InternViTConfig
from lift_jax.models.internvit.convert import (
  INTERNVIT_TABLE,
  internvit_ignored,
)
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.llama.convert import LLAMA_IGNORED, LLAMA_TABLE
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.models.siglip.convert import (
  SIGLIP_TABLE,
  siglip_ignored,
  with_prefix,
)
from lift_jax.models.vila import tiny_tokenizer
from lift_jax.models.vila.config import NUM_FRAMES, VilaConfig
from lift_jax.models.vila.projector import PROJECTOR_TABLE, ProjectorConfig
from lift_jax.models.vila.tokenizer import TOKENIZER_FILES
from lift_jax.runtime import storage
from lift_jax.runtime.files import read_json, write_json
from lift_jax.weights import conversion, published_tensors, safetensors_files

LLM, VISION, PROJECTOR = 'llm', 'vision_tower', 'mm_projector'

# Published folder name -> name of the part in our parameters.
PARTS = {LLM: 'llm', VISION: 'vision_tower', PROJECTOR: 'projector'}
MODEL_TYPE = 'llava_llama'
_STEM = 'model'  # of weight files, as transformers names them


def read_config(path: pathlib.Path) -> VilaConfig:
  """Reads the sizes from the config files of a folder.

  Raises:
    UserError: not a VILA-1.5 folder.
  """
  root = read_json(path / 'config.json')
  if not (path / LLM).is_dir():
    raise UserError(
      f'{path}: no folder {LLM}; give the folder of a VILA-1.5 model, with '
      f'{", ".join(PARTS)}'
    )
  configs = {name: read_json(path / name / 'config.json') for name in PARTS}
  kinds = {
    'siglip': SiglipConfig,
    'siglip_vision_model': SiglipConfig,
    'intern_vit_6b': InternViTConfig,
  }
  kind = configs[VISION].get('model_type')
  if not isinstance(kind, str) or kind not in kinds:
    raise UserError(
      f'{path / VISION}/config.json: model_type is {kind!r}; only '
      f'{", ".join(kinds)} are supported'
    )
  where = {name: str(path / name / 'config.json') for name in PARTS}
  llm = LlamaConfig.from_json(configs[LLM], where[LLM])
  layer = root.get('mm_vision_select_layer')
  if type(layer) not in (int, type(None)):
    raise UserError(
      f'{path}/config.json: mm_vision_select_layer = {layer!r}; give an integer'
    )
  num_frames = root.get('num_video_frames', NUM_FRAMES)
  if type(num_frames) is not int or num_frames < 1:
    raise UserError(
      f'{path}/config.json: num_video_frames = {num_frames!r}; give a positive '
      'integer'
    )
  options = {} if layer is None else {'feature_layer': layer}
  tower = kinds[kind].from_json(configs[VISION], where[VISION], **options)
  projector = ProjectorConfig.from_json(
    configs[PROJECTOR],
    where[PROJECTOR],
    vision_width=tower.width,
    width=llm.width,
  )
  return VilaConfig(tower, projector, llm, num_frames)


def write_configs(
  folder: pathlib.Path, config: VilaConfig, root: Mapping[str, Any]
) -> None:
  """Writes the config of each part; `root` is merged into the shared one."""
  values = {
    LLM: config.llm.to_json(),
    VISION: config.vision_tower.to_json(),
    PROJECTOR: config.projector.to_json(),
  }
  for name, value in values.items():
    write_json(folder / name / 'config.json', value)
  write_json(
    folder / 'config.json',
    {
      'architectures': ['LlavaLlamaModel'],
      'model_type': MODEL_TYPE,
      'mm_vision_select_layer': config.vision_tower.feature_layer,
      'num_video_frames': config.num_frames,
      **root,
    },
  )


def write_draft(path: pathlib.Path, config: VilaConfig, seed: int) -> None:
  """Writes configs and a small tokenizer for a randomly initialised critic."""
  write_configs(path, config, {critics.RANDOM_SEED: seed})
  tiny_tokenizer.write(path / LLM)


def load_weights(
  path: pathlib.Path,
  config: VilaConfig,
  model: FunctionalModel,
  shardings: Params,
  dtype: Any,
  update: Callable[[str, jax.Array], jax.Array] | None,
) -> Params:
  """Loads the weights of each part; see `Critic.load_weights`."""

  def update_in(part: str) -> Callable[[str, jax.Array], jax.Array] | None:
    if update is None:
      return None
    return lambda name, array: update(f'{part}/{name}', array)

  params = {}
  for name, part in PARTS.items():
    table, ignored = _table(name, config)
    tensors = _tensors(path, name)
    if table is SIGLIP_TABLE:
      tensors = with_prefix(tensors)
    params[part] = published_tensors.load(
      table,
      model.abstract_params[part],
      tensors,
      shardings=shardings[part],
      dtype=dtype,
      update=update_in(part),
      ignored=ignored,
      where=str(path / name),
    )
  return params


def save_weights(
  target: pathlib.Path, config: VilaConfig, params: Params, dtype: str | None
) -> None:
  """Writes the weights of each part; see `Critic.save_weights`."""
  for name, part in PARTS.items():
    published_tensors.save(
      _table(name, config)[0],
      params[part],
      target / name,
      _STEM,
      dtype=None if dtype is None else jnp.dtype(dtype),
    )


def file_hashes(path: pathlib.Path) -> list[str]:
  """Hashes of the weights of each part and of the tokenizer's files."""
  hashes = [
    safetensors_files.fingerprint(_tensors(path, name)) for name in PARTS
  ]
  for name in TOKENIZER_FILES:
    file = path / LLM / name
    if file.exists():
      hashes.append(hashlib.sha256(file.read_bytes()).hexdigest())
  return hashes


def copy_configs(
  source: pathlib.Path, target: pathlib.Path, dtype: str
) -> None:
  """Copies configs and tokenizer; `dtype` is that of the copied weights."""
  for name in ('.', *PARTS):
    _copy_configs(source / name, target / name, dtype)


def _table(
  name: str, config: VilaConfig
) -> tuple[conversion.Table, tuple[str, ...]]:
  """Conversion table of a part, and its published tensors to ignore."""
  if name == LLM:
    return LLAMA_TABLE, LLAMA_IGNORED
  if name == PROJECTOR:
    return PROJECTOR_TABLE, ()
  tower = config.vision_tower
  is_siglip = isinstance(tower, SiglipConfig)
  ignored = siglip_ignored(tower) if is_siglip else internvit_ignored(tower)
  return tower_table(tower), ignored


def tower_table(tower: SiglipConfig | InternViTConfig) -> conversion.Table:
  """Conversion table of a vision tower."""
  return SIGLIP_TABLE if isinstance(tower, SiglipConfig) else INTERNVIT_TABLE


def _tensors(path: pathlib.Path, name: str):
  return safetensors_files.open_tensors(path / name, _STEM)


def _copy_configs(
  source: pathlib.Path, target: pathlib.Path, dtype: str
) -> None:
  """Copies JSON files and the tokenizer of one part.

  Only the type of the weights is updated, as transformers loads them in the
  type that the config names.
  """
  target.mkdir(exist_ok=True)
  types = {
    'dtype': dtype,
    'torch_dtype': dtype,
    'model_dtype': f'torch.{dtype}',
  }
  for file in source.iterdir():
    if file.name == 'config.json':
      value = read_json(file)
      value |= {key: new for key, new in types.items() if key in value}
      write_json(target / file.name, value)
    elif file.suffix in ('.json', '.model') and file.is_file():
      if not file.name.endswith('.index.json'):
        storage.copy_file(file, target / file.name)
