"""Folders of text-to-video models, in the published and our checkpoint format.

  model_index.json
  transformer/   config.json + weights
  vae/           config.json + weights
  text_encoder/  config.json + weights
  tokenizer/     files of the tokenizer
  scheduler/     scheduler_config.json

Weights are safetensors in the published (diffusers) format. In ours they are an
Orbax folder `params`, which all hosts of a pod read and write in parallel; the
other files are the same. Folders are opened by `generators.open_model`.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import generators
from lift_jax.models.functional import Params
from lift_jax.models.generators import (
  CONFIG_FILES,
  FINGERPRINT,
  INDEX,
  NETWORKS,
  PARAMS,
  TOKENIZER,
  RandomModelConfig,
  VideoModel,
)
from lift_jax.runtime import distributed, storage
from lift_jax.runtime.files import (
  atomic_folder,
  is_complete,
  read_json,
  write_json,
  write_text,
)
from lift_jax.weights import checkpoints, published_tensors

# In the index of a random model; diffusers ignores such keys.
RANDOM_SEED = '_random_seed'


def write_configs(model: VideoModel, folder: pathlib.Path) -> None:
  """Writes every JSON file of `model` to `folder`."""
  write_json(folder / INDEX, dict(model.index))
  for part, file in CONFIG_FILES.items():
    write_json(folder / file, getattr(model, part).to_json())


def copy_configs(
  model: VideoModel, target: pathlib.Path, dtype: str | None = None
) -> None:
  """Copies the published JSON files and the tokenizer.

  Keys that this project does not read are kept. Only the type of the text
  encoder's weights is updated, as transformers loads them in the type that the
  config names.

  Args:
    model: the folder to copy from.
    target: the folder to copy to.
    dtype: of the text encoder's weights in `target`; None for unchanged.

  Raises:
    UserError: a file is missing.
  """
  if not (model.path / TOKENIZER).is_dir():
    raise UserError(
      f'{model.path / TOKENIZER}: no such folder; download the tokenizer of '
      'the model too'
    )
  for name in (INDEX, *CONFIG_FILES.values()):
    value = read_json(model.path / name)
    if name == CONFIG_FILES['text_encoder'] and dtype is not None:
      value |= {key: dtype for key in ('dtype', 'torch_dtype') if key in value}
    write_json(target / name, value)
  storage.copy_folder(model.path / TOKENIZER, target / TOKENIZER)


def _load_spread(model: VideoModel, network: str, dtype=None) -> Params:
  """Parameters of a network, sharded over all devices."""
  declared = model.declare(network)
  shardings = partitioning.spread(
    functools.partial(
      partitioning.param_shardings,
      model.networks[network].rules,
      declared.abstract_params,
    )
  )
  return model.load(network, declared, shardings, dtype)


def write_orbax(
  model: VideoModel,
  network: str,
  target: pathlib.Path,
  dtype: str | None = None,
) -> None:
  """Writes the weights of a published network in our checkpoint format.

  Every host must call it; the weights are sharded over all devices.

  Args:
    model: a published folder, without adapters.
    network: one of `NETWORKS`.
    target: the model folder to write to.
    dtype: of all parameters; None keeps the stored type.

  Raises:
    UserError: see `VideoModel.load`.
  """
  assert not model.adapters, 'the fingerprint would not be of these weights'
  cast = None if dtype is None else jnp.dtype(dtype)
  params = _load_spread(model, network, cast)
  checkpoints.save_params(target / network / PARAMS, params)
  if distributed.is_primary():
    fingerprint = model.weights_fingerprint(network, cast)
    write_text(target / network / FINGERPRINT, fingerprint + '\n')


def write_published(
  model: VideoModel,
  network: str,
  target: pathlib.Path,
  dtype: str | None = None,
) -> None:
  """Writes the weights of a network in the published format.

  Every host must call it. Files that would not change are copied.

  Args:
    model: a folder in either format; the transformer must have no adapters.
    network: one of `NETWORKS`.
    target: the model folder to write to.
    dtype: of all tensors; None keeps the stored type.

  Raises:
    UserError: see `VideoModel.load`.
  """
  assert network != 'transformer' or not model.adapters
  if model.is_orbax(network) or dtype is not None:
    params = _load_spread(model, network)
    save_network(model, network, params, target, dtype)
  elif distributed.is_primary():
    source = model.path / network
    files = {tensor.file for tensor in model.tensors(network).values()}
    index = f'{model.networks[network].stem}.safetensors.index.json'
    if (source / index).is_file():
      files.add(source / index)
    for file in files:
      copy = target / network / file.relative_to(source)
      copy.parent.mkdir(parents=True, exist_ok=True)
      storage.copy_file(file, copy)


def make_random_model(folder: pathlib.Path, sizes: RandomModelConfig) -> None:
  """Writes a randomly initialised model in the published format.

  Does nothing if the folder already contains a model.
  """
  if (folder / INDEX).is_file() and is_complete(folder):
    return
  model = generators.from_sizes(sizes, path=folder)
  index = {**model.random_index, RANDOM_SEED: sizes.seed}
  with atomic_folder(folder) as partial:
    if distributed.is_primary():
      write_configs(dataclasses.replace(model, index=index), partial)
      with storage.uploaded_folder(partial / TOKENIZER) as tokenizer:
        model.write_random_tokenizer(tokenizer)
    for number, network in enumerate(NETWORKS):
      key = jax.random.fold_in(jax.random.key(sizes.seed), number)
      # Each host initialises the same weights; the primary host writes them.
      with jax.default_device(jax.local_devices()[0]):
        # Not under jax.jit: it runs once, and XLA would take minutes for a
        # program of hundreds of small draws, most of which are alike.
        params = model.declare(network).init(key)
      save_network(model, network, params, partial)


def save_network(
  model: VideoModel,
  network: str,
  params: Params,
  folder: pathlib.Path,
  dtype=None,
) -> None:
  """Writes weights in the published format; every host must call it."""
  published = model.networks[network]
  dtype = None if dtype is None else jnp.dtype(dtype)
  published_tensors.save(
    published.table, params, folder / network, published.stem, dtype=dtype
  )
