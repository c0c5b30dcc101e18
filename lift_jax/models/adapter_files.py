"""LoRA adapters on disk: opened, and checked against a network.

Adapters are one safetensors file, in any form of `adapter_names`, or a folder
with

  pytorch_lora_weights.safetensors    diffusers
or
  adapter_config.json                 PEFT
  adapter_model.safetensors

Their alpha is in PEFT's config, in the header of a diffusers file, or in
scalars 'LAYER.alpha'; without one it is the rank, so that the scale is 1.
"""

import collections
from collections.abc import Mapping, Sequence
import math
import pathlib
from typing import Any, NamedTuple

from lift_jax.errors import UserError, listing
from lift_jax.models import adapter_names
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.adapter_settings import AdapterSettings, read_settings
from lift_jax.models.adapters import Adapter, Update
from lift_jax.runtime import hub, storage
from lift_jax.runtime.files import check_complete, parse_json, read_json
from lift_jax.weights import conversion, param_paths, safetensors_files
from lift_jax.weights.safetensors_files import LazyTensor

STEM = 'pytorch_lora_weights'  # the name that diffusers looks for
PEFT_STEM = 'adapter_model'
PEFT_CONFIG = 'adapter_config.json'

# What is downloaded of adapters on the hub, of any network.
HUB_FILES = (
  PEFT_CONFIG,
  f'{PEFT_STEM}*.safetensors',
  f'{PEFT_STEM}.safetensors.index.json',
  f'{STEM}.safetensors',
  'prompts.json',
)

# In the header of a diffusers file: the PEFT config, as JSON, of each network
# (`LORA_ADAPTER_METADATA_KEY` in diffusers/loaders/lora_base.py).
_METADATA_KEY = 'lora_adapter_metadata'


class Site(NamedTuple):
  """A linear layer of a network.

  Attributes:
    layer: its path in our parameters, without '/kernel'.
    index: its position among stacked layers; 0 for one that is not stacked.
    shape: (outputs, inputs).
  """

  layer: str
  index: int
  shape: tuple[int, int]


# The linear layers of a network by the names that adapters have for them:
# several for a name that stands for layers side by side.
Sites = Mapping[str, tuple[Site, ...]]


def sites_of(
  table: conversion.Table,
  abstract_params: Any,
  other_names: Mapping[str, tuple[str, ...]],
) -> Sites:
  """The linear layers that adapters may adapt.

  Args:
    table: `lora.adapter_table` of the network.
    abstract_params: of the network.
    other_names: name in other publications to the published names of the layers
      that it holds side by side; '{i}' is the index of a stacked layer.
  """
  ending = '.lora_A.weight'
  rules = tuple(
    conversion.TensorRule(
      rule.published.removesuffix(ending) + '.weight',
      rule.ours.removesuffix('lora_a') + 'kernel',
      conversion.LINEAR,
    )
    for rule in table
    if rule.published.endswith(ending)
  )
  ours = {rule.ours for rule in rules}
  kernels, _ = param_paths.partition(abstract_params, ours.__contains__)
  sites: dict[str, tuple[Site, ...]] = {}
  for name, source in conversion.resolve(rules, kernels).items():
    outputs, inputs = source.shape
    for index, published in enumerate(source.names):
      module = published.removesuffix('.weight')
      sites[adapter_names.strip(module)] = (
        Site(name.removesuffix('/kernel'), index, (outputs, inputs)),
      )
  for other, parts in other_names.items():
    for index in range(len(sites)):
      names = [part.format(i=index) for part in parts]
      if names[0] in sites:
        together = tuple(site for name in names for site in sites[name])
        sites[adapter_names.strip(other.format(i=index))] = together
  flat = {adapter_names.flat(name): sites[name] for name in sites}
  assert len(flat) == len(sites), 'a name of kohya would be ambiguous'
  return sites | flat


def holds_adapters(path: pathlib.Path) -> bool:
  """Whether `open_adapter` would accept this folder, by its file names."""
  return any(
    (path / name).is_file() for name in (f'{STEM}.safetensors', PEFT_CONFIG)
  )


def open_adapter(config: AdapterConfig, sites: Sites) -> Adapter:
  """Opens adapters and checks them against a network; reads headers only.

  Args:
    config: names a folder, or a file of any name.
    sites: from `sites_of`.

  Raises:
    UserError: no adapters, adapters of another network, or such that cannot be
      merged.
  """
  # Links are kept: a download cache gives files their names by links.
  folder = hub.model_folder(config.path, HUB_FILES)
  path = storage.to_path(folder)
  if not storage.is_remote(path):
    path = path.absolute()
  check_complete(path)
  tensors, settings = _open_files(path)
  updates = _match(tensors, sites, settings, config, str(path))
  return Adapter(path, config.scale, updates)


def _open_files(
  path: pathlib.Path,
) -> tuple[dict[str, LazyTensor], AdapterSettings | None]:
  """The tensors of adapters, and their settings if there are any."""
  if path.is_dir() and not holds_adapters(path):
    raise UserError(
      f'{path}: contains neither {STEM}.safetensors nor {PEFT_CONFIG}; give a '
      'folder of LoRA adapters, or their file if it has another name'
    )
  # The weights of a PEFT folder, without which their scale is unknown.
  folder = path.parent if path.name == f'{PEFT_STEM}.safetensors' else path
  config = folder / PEFT_CONFIG
  if not config.is_file():
    tensors = safetensors_files.open_tensors(path, STEM)
    return tensors, _header_settings(tensors)
  if (path / f'{STEM}.safetensors').is_file():
    raise UserError(
      f'{path}: contains both {STEM}.safetensors and {PEFT_CONFIG}; remove '
      'one, or give the file'
    )
  settings = read_settings(read_json(config), str(config))
  return safetensors_files.open_tensors(path, PEFT_STEM), settings


def _header_settings(
  tensors: Mapping[str, LazyTensor],
) -> AdapterSettings | None:
  """The settings in the header of a diffusers file."""
  for file in sorted({tensor.file for tensor in tensors.values()}):
    text = safetensors_files.read_metadata(file).get(_METADATA_KEY)
    if not text:
      continue
    where = f'{file}: {_METADATA_KEY} in its header'
    try:
      metadata = dict(parse_json(text))
    except (TypeError, ValueError):
      raise UserError(
        f'{where} cannot be parsed; download the file again'
      ) from None
    prefix = adapter_names.DIFFUSERS_PREFIX
    config = {
      key.removeprefix(prefix): value
      for key, value in metadata.items()
      if key.startswith(prefix)
    }
    if config:
      return read_settings(config, where)
  return None


class _Group(NamedTuple):
  """The tensors of one adapted layer of a file.

  Attributes:
    module: its name in the file.
    sites: the layers of the network that lie side by side in it.
    is_part: whether a name says which of several layers it is.
    tensors: by their roles.
  """

  module: str
  sites: tuple[Site, ...]
  is_part: bool
  tensors: dict[str, LazyTensor]


def _grouped(
  tensors: Mapping[str, LazyTensor], sites: Sites, where: str
) -> list[_Group]:
  """Assigns every tensor to a layer, or raises."""
  groups: dict[tuple[str, int | None], _Group] = {}
  others = []
  for name, tensor in tensors.items():
    parsed = adapter_names.parse(name)
    known = () if parsed is None else sites.get(parsed.layer, ())
    if parsed is None or (parsed.part or 0) >= len(known):
      others.append(name)
      continue
    here = known if parsed.part is None else (known[parsed.part],)
    group = groups.setdefault(
      (parsed.layer, parsed.part),
      _Group(parsed.module, here, parsed.part is not None, {}),
    )
    _check_first(group.tensors.get(parsed.role), tensor, where)
    group.tensors[parsed.role] = tensor
  if others or not groups:
    raise UserError(f'{where}: {_why_not(others, not groups)}')
  return list(groups.values())


def _check_first(
  other: LazyTensor | None, tensor: LazyTensor, where: str
) -> None:
  """Raises UserError if there are two tensors with a role in a layer."""
  if other is not None:
    raise UserError(
      f'{where}: {other.name} and {tensor.name} are of the same layer; give '
      'adapters in a file each'
    )


def _match(
  tensors: Mapping[str, LazyTensor],
  sites: Sites,
  settings: AdapterSettings | None,
  config: AdapterConfig,
  where: str,
) -> dict[str, dict[int, Update]]:
  """The update of each layer."""
  updates: dict[str, dict[int, Update]] = collections.defaultdict(dict)
  alphas = set()
  for group in _grouped(tensors, sites, where):
    names = tuple(adapter_names.suffixes(group.module))
    a, b = _matrices(group.tensors, group.sites, where)
    rank = a.shape[0]
    _check_rank(rank, settings, names)
    alpha = _alpha(group.tensors.get('alpha'), settings, config, names, where)
    alphas.add(alpha)
    if alpha is None and group.is_part:
      raise UserError(
        f'{where}: adapters of SAT, which do not state their alpha; give the '
        'lora_alpha of their training (1 by default) as model.adapter_alpha'
      )
    is_rank_stabilized = settings is not None and settings.is_rank_stabilized
    size = math.sqrt(rank) if is_rank_stabilized else rank
    scale = config.scale * (1 if alpha is None else alpha / size)
    for number, site in enumerate(group.sites):
      stack, first_row = updates[site.layer], number * site.shape[0]
      if site.index in stack:
        _check_first(stack[site.index].a, a, where)
      stack[site.index] = Update(a, b, first_row, alpha, scale)
  if None in alphas and len(alphas) > 1:
    raise UserError(
      f'{where}: some of its layers state an alpha and others do not; download '
      'the file again'
    )
  return dict(updates)


def _why_not(names: list[str], is_all: bool) -> str:
  """Why tensors cannot be merged, and the remedy."""
  kinds, strangers = collections.defaultdict(list), []
  for name in names:
    kind = adapter_names.refused_kind(name)
    (strangers if kind is None else kinds[kind]).append(name)
  if kinds:
    found = ', '.join(
      f'{kind} ({listing(kinds[kind], 1)})' for kind in sorted(kinds)
    )
    return f'{found} cannot be merged; give adapters trained without it'
  if is_all:
    return (
      f'none of its tensors ({listing(strangers, 2)}) is an adapter of this '
      'network; give the adapters of this model'
    )
  return (
    f'{len(strangers)} tensors are of no linear layer of this network: '
    f'{listing(strangers)}; give the adapters of this model'
  )


def _matrices(
  group: Mapping[str, LazyTensor], sites: Sequence[Site], where: str
) -> tuple[LazyTensor, LazyTensor]:
  """A and B of layers that lie side by side; checks their shapes."""
  if missing := {'a', 'b'} - group.keys():
    name = next(iter(group.values())).name
    raise UserError(
      f'{where}: {name} lacks its matrix {" and ".join(sorted(missing))}'
      '; download the file again'
    )
  a, b = group['a'], group['b']
  for tensor in (a, b):
    if len(tensor.shape) != 2 or 0 in tensor.shape:
      raise UserError(
        f'{where}: {tensor.name} has shape {list(tensor.shape)} and is not a '
        'matrix; download the file again'
      )
  rank, inputs = a.shape[0], sites[0].shape[1]
  outputs = sum(site.shape[0] for site in sites)
  for tensor, shape in ((a, (rank, inputs)), (b, (outputs, rank))):
    if tensor.shape != shape:
      raise UserError(
        f'{where}: {tensor.name} is of another shape: {list(tensor.shape)} '
        f'instead of {list(shape)}; give the adapters of this model'
      )
  return a, b


def _check_rank(
  rank: int, settings: AdapterSettings | None, names: Sequence[str]
) -> None:
  """Raises UserError if the settings state another rank of a layer."""
  stated = None if settings is None else settings.rank_of(names)
  if settings is not None and stated not in (None, rank):
    raise UserError(
      f'{settings.where}: r is {stated} for {names[0]}, whose matrices have '
      f'rank {rank}; use the config and the weights of the same adapters'
    )


def _alpha(
  tensor: LazyTensor | None,
  settings: AdapterSettings | None,
  config: AdapterConfig,
  names: Sequence[str],
  where: str,
) -> float | None:
  """The alpha of a layer; None if nobody states it."""
  stated = {}
  if tensor is not None:
    if math.prod(tensor.shape) != 1:
      raise UserError(
        f'{where}: {tensor.name} has shape {list(tensor.shape)} and is not a '
        'number; download the file again'
      )
    value = float(tensor[...].reshape(()))
    if not math.isfinite(value):
      raise UserError(
        f'{where}: {tensor.name} is {value}; download the file again'
      )
    stated['its tensor'] = value
  if settings is not None:
    value = settings.alpha_of(names)
    if value is not None:
      stated[settings.where] = value
  if config.alpha is not None:
    stated['model.adapter_alpha'] = config.alpha
  if settings is not None and not stated:
    raise UserError(
      f'{settings.where}: lora_alpha is missing; give it as model.adapter_alpha'
    )
  if len(set(stated.values())) > 1:
    found = ', '.join(f'{value:g} in {key}' for key, value in stated.items())
    raise UserError(
      f'{where}: {names[0]} has more than one alpha: {found}; keep one of them '
      '(their strength is model.adapter_scale)'
    )
  return next(iter(stated.values()), None)
