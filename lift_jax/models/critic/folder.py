"""A critic on disk: a VILA-1.5 folder, and perhaps LoRA adapters beside it.

  config.json                        what the parts have in common
  llm/           config.json + weights + tokenizer.model
  vision_tower/  config.json + weights
  mm_projector/  config.json + weights

Weights are safetensors, as published. Adapters are a PEFT folder, as LiFT's
critics are published; they are added into the weights of the language model.
"""

from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import adapters, lora
from lift_jax.models.critic import sharding, tiny_tokenizer
from lift_jax.models.critic.critic import Critic, CriticConfig
from lift_jax.models.critic.projector import PROJECTOR_TABLE, ProjectorConfig
from lift_jax.models.critic.tokens import TOKENIZER_FILES
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.models.internvit.config import InternViTConfig
from lift_jax.models.internvit.convert import (
  INTERNVIT_TABLE,
  internvit_ignored,
)
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.llama.convert import LLAMA_IGNORED, LLAMA_TABLE
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.models.siglip.convert import SIGLIP_TABLE, siglip_ignored
from lift_jax.runtime import distributed
from lift_jax.runtime.files import (
  atomic_folder,
  file_sha256,
  read_json,
  write_json,
)
from lift_jax.weights import conversion, safetensors_files

LLM, VISION, PROJECTOR = 'llm', 'vision_tower', 'mm_projector'

# Published folder: our part of the parameters.
PARTS = {LLM: 'llm', VISION: 'vision_tower', PROJECTOR: 'projector'}
_STEM = 'model'  # of weight files, as transformers names them

# In the config of a random critic.
_RANDOM_SEED = '_random_seed'

# Published names of the adapters of the language model, over a whole critic.
ADAPTER_TABLE = lora.adapter_table(
  tuple(
    dataclasses.replace(row, ours=f'llm/{row.ours}') for row in LLAMA_TABLE
  ),
  prefix=f'{adapters.PEFT_PREFIX}llm.',
)


@dataclasses.dataclass(frozen=True)
class CriticFolder:
  """The configs of a critic, and the folder that holds its weights.

  Attributes:
    path: of the folder.
    config: sizes of the networks.
    adapter: added into the language model; None for none.
  """

  path: pathlib.Path
  config: CriticConfig
  adapter: adapters.AdapterFile | None

  def build(self, **options):
    """`build(rngs)` of the network; options go to its constructor."""
    return lambda rngs: Critic(self.config, rngs=rngs, **options)

  def load(self, model: FunctionalModel, shardings: Params, dtype) -> Params:
    """Weights straight into sharded arrays, adapters added.

    Args:
      model: its declaration, without adapters.
      shardings: nested dict like its parameters.
      dtype: of all parameters.

    Raises:
      UserError: tensors that the config does not ask for, or lacks.
    """
    params = {}
    for name, part in PARTS.items():
      table, ignored = self._table(name)
      params[part] = conversion.load(
        table,
        model.abstract_params[part],
        self._tensors(name),
        shardings=shardings[part],
        dtype=dtype,
        ignored=ignored,
        where=str(self.path / name),
      )
    if self.adapter is None:
      return params
    mesh = jax.tree.leaves(shardings)[0].mesh
    where = str(self.adapter.path)
    config = adapters.config_of(
      self.adapter.tensors, ADAPTER_TABLE, self.adapter.alpha, where
    )
    added = adapters.load(
      self.build(), config, ADAPTER_TABLE, self.adapter.tensors, mesh, where
    )
    return adapters.merge(params, added, config.scale)

  def _table(self, name: str) -> tuple[conversion.Table, tuple[str, ...]]:
    """Published names of a part, and those that it does without."""
    if name == LLM:
      return LLAMA_TABLE, LLAMA_IGNORED
    if name == PROJECTOR:
      return PROJECTOR_TABLE, ()
    tower = self.config.vision_tower
    if isinstance(tower, SiglipConfig):
      return SIGLIP_TABLE, siglip_ignored(tower)
    return INTERNVIT_TABLE, internvit_ignored(tower)

  def _tensors(self, name: str):
    return safetensors_files.open_tensors(self.path / name, _STEM)

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hash of all weights, configs and the tokenizer: 16 hex digits."""
    parts = [repr(self.config)]
    parts += [
      safetensors_files.fingerprint(self._tensors(name)) for name in PARTS
    ]
    for file in TOKENIZER_FILES:
      path = self.path / LLM / file
      if path.exists():
        parts.append(file_sha256(path))
    if self.adapter is not None:
      parts.append(str(self.adapter.alpha))
      parts.append(safetensors_files.fingerprint(self.adapter.tensors))
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


def open_critic(
  path: str | pathlib.Path, adapter: str | pathlib.Path = ''
) -> CriticFolder:
  """Reads the configs of a VILA-1.5 folder, and of adapters for it.

  Args:
    path: of the folder.
    adapter: of a PEFT folder; '' for none.

  Raises:
    UserError: not a VILA-1.5 folder, or not adapters.
  """
  path = pathlib.Path(path).expanduser().resolve()
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
  if kind not in kinds:
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
  options = {} if layer is None else {'feature_layer': layer}
  tower = kinds[kind].from_json(configs[VISION], where[VISION], **options)
  projector = ProjectorConfig.from_json(
    configs[PROJECTOR],
    where[PROJECTOR],
    vision_width=tower.width,
    width=llm.width,
  )
  return CriticFolder(
    path,
    CriticConfig(tower, projector, llm),
    adapters.open_peft(adapter) if adapter else None,
  )


def write_configs(
  folder: pathlib.Path, config: CriticConfig, root: Mapping[str, Any]
) -> None:
  """Writes the config of each part; `root` is added to the common one."""
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
      'model_type': 'llava_llama',
      'mm_vision_select_layer': config.vision_tower.feature_layer,
      'num_video_frames': 8,
      **root,
    },
  )


def make_random_critic(
  folder: pathlib.Path, config: CriticConfig, seed: int
) -> None:
  """Writes a randomly initialised critic, with a small tokenizer of our own.

  Nothing is done where the folder already holds one.

  Raises:
    UserError: the one that is there was made with other settings.
  """
  if (folder / 'config.json').is_file():
    there = open_critic(folder).config, _seed_of(folder)
    if there != (config, seed):
      raise UserError(
        f'{folder} was made with other settings of model.random; give another '
        '--workdir, or delete this critic'
      )
    return
  model = functional(lambda rngs: Critic(config, rngs=rngs))
  with atomic_folder(folder) as partial:
    if distributed.is_primary():
      write_configs(partial, config, {_RANDOM_SEED: seed})
      tiny_tokenizer.write(partial / LLM)
    with jax.default_device(jax.local_devices()[0]):
      params = jax.jit(model.init)(jax.random.key(seed))
    _save(partial, CriticFolder(partial, config, None), params, None)


def _seed_of(folder: pathlib.Path) -> Any:
  return read_json(folder / 'config.json').get(_RANDOM_SEED)


def _save(
  target: pathlib.Path, folder: CriticFolder, params: Params, dtype: str | None
) -> None:
  for name, part in PARTS.items():
    conversion.save(
      folder._table(name)[0],
      params[part],
      target / name,
      _STEM,
      dtype=None if dtype is None else jnp.dtype(dtype),
    )


def _copy_configs(
  source: pathlib.Path, target: pathlib.Path, dtype: str
) -> None:
  """JSON files and the tokenizer, as published.

  Only the type of the weights is kept true, as transformers loads them in the
  type that a config names.
  """
  target.mkdir(exist_ok=True)
  stated = {
    'dtype': dtype,
    'torch_dtype': dtype,
    'model_dtype': f'torch.{dtype}',
  }
  for file in source.iterdir():
    if file.name == 'config.json':
      value = read_json(file)
      value |= {key: new for key, new in stated.items() if key in value}
      write_json(target / file.name, value)
    elif file.suffix in ('.json', '.model') and file.is_file():
      if not file.name.endswith('.index.json'):
        shutil.copy2(file, target / file.name)


def write_critic(
  source: CriticFolder, target: pathlib.Path, params: Params, dtype: str
) -> None:
  """Writes a whole critic as published; every host must call it.

  The folder is written beside and renamed; one that is there is replaced.

  Args:
    source: what it was trained from: configs and tokenizer are taken over.
    target: the folder to write.
    params: of the whole network.
    dtype: of what is written.
  """
  with atomic_folder(target) as partial:
    if distributed.is_primary():
      for name in ('.', *PARTS):
        _copy_configs(source.path / name, partial / name, dtype)
    distributed.barrier('configs are copied')
    _save(partial, source, params, dtype)


def write_adapter(
  target: pathlib.Path, params: Params, config: lora.LoRAConfig, dtype: str
) -> None:
  """Writes trained adapters alone, under PEFT's names, as LiFT publishes them.

  Every host must call it; the folder is written beside and renamed.
  """
  with atomic_folder(target) as partial:
    adapters.write_peft(partial, params, config, ADAPTER_TABLE, dtype)


def rules_of(folder: CriticFolder) -> partitioning.Rules:
  """Layout of the critic's parameters."""
  return sharding.rules(folder.config)
