"""Folders of published models: configs, tensors, adapters."""

from collections.abc import Callable, Collection, Mapping
import contextlib
import functools
import json
import math
import pathlib
import struct
from typing import Any

from malformed_parts.mutations import damaged, dump, json_file
from malformed_parts.target import Target, json_target
import numpy as np
import safetensors.numpy

from lift_jax.cli import job_flags
from lift_jax.errors import UserError
from lift_jax.jobs import train_critic
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.models import (
  adapter_files,
  critic_config,
  critics,
  generator_folder,
  generators,
)
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.vila import folder as vila_folder
from lift_jax.weights import safetensors_files

_CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


def config_targets(folder: pathlib.Path) -> dict[str, Target]:
  """Config files of published models, without weights."""
  model_folder, critic_folder = folder / 'model', folder / 'critic'
  aligning, _ = job_flags.read_config(
    str(_CONFIGS / 'align_sample.py'), (), AlignConfig
  )
  sizes = aligning.model.random
  assert sizes is not None
  generator_folder.write_configs(generators.from_sizes(sizes), model_folder)
  scoring, _ = job_flags.read_config(
    str(_CONFIGS / 'critic_tiny.py'), (), train_critic.TrainCriticConfig
  )
  critic = critic_config.declare_chosen(scoring.model)
  vila_folder.write_draft(critic_folder, critic.config, 0)

  def target(
    root: pathlib.Path, file: str, read: Callable[[pathlib.Path], Any]
  ) -> Target:
    good = (root / file).read_bytes()

    def read_with(content: bytes) -> Any:
      (root / file).write_bytes(content)
      try:
        return read(root)
      finally:
        (root / file).write_bytes(good)

    # Keys at whose values the reader does not look.
    value = json.loads(good)
    ignored = set()
    for key in value:
      with contextlib.suppress(UserError):
        read_with(dump(value | {key: {'no such': ['value']}}))
        ignored.add(key)
    check = functools.partial(_check_config, ignored)
    return json_target(value, read_with, check)

  def part_of(part: str) -> Callable[[pathlib.Path], Any]:
    return lambda root: getattr(generators.open_model(root), part).to_json()

  targets = {
    f'{file}': target(model_folder, file, part_of(part))
    for part, file in generators.CONFIG_FILES.items()
  }
  targets['model_index.json'] = target(
    model_folder,
    generators.INDEX,
    lambda root: generators.open_model(root) and {},
  )
  for name, part in vila_folder.PARTS.items():
    targets[f'{name}/config.json'] = target(
      critic_folder,
      f'{name}/config.json',
      lambda root, part=part: getattr(
        critics.open_critic(root).config, part
      ).to_json(),
    )
  targets['critic config.json'] = target(
    critic_folder,
    'config.json',
    lambda root: critics.open_critic(root) and {},
  )
  return targets


def _check_config(
  ignored: Collection[str], content: bytes, config: Mapping[str, Any]
) -> None:
  """A key that was read has the value that the file gives."""
  given = json.loads(content.decode('utf-8-sig'))
  for key, value in config.items():
    if key in given and key not in ignored:
      assert given[key] == value, f'{key} is {given[key]!r}, read as {value!r}'
      assert isinstance(given[key], bool) == isinstance(value, bool), key


def weight_targets(folder: pathlib.Path) -> dict[str, Target]:
  """A file of tensors: its header, its data, and its index."""
  path = folder / 'model.safetensors'
  arrays = {
    'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b.bias': np.arange(4, dtype=np.float16),
  }
  safetensors_files.write(
    path, [(name, a.shape, a.dtype, a.copy) for name, a in arrays.items()]
  )
  good = path.read_bytes()
  size = struct.unpack('<Q', good[:8])[0]
  header = json.loads(good[8 : 8 + size])

  def with_header(text: bytes) -> bytes:
    return struct.pack('<Q', len(text)) + text + good[8 + size :]

  def read(content: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(content)
    tensors = safetensors_files.open_tensors(path, 'model')
    return {name: tensor[...] for name, tensor in tensors.items()}

  def check(content: bytes, tensors: Mapping[str, np.ndarray]) -> None:
    """As the safetensors library reads it."""
    expected = safetensors.numpy.load(content)
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
      assert tensor.dtype == expected[name].dtype
      np.testing.assert_array_equal(tensor, expected[name])

  return {
    'safetensors header': Target(
      good, json_file(header).map(with_header), read, check
    ),
    'safetensors bytes': Target(good, damaged(good), read, check),
  }


def adapter_targets(folder: pathlib.Path) -> dict[str, Target]:
  path = folder / 'adapter_config.json'
  safetensors.numpy.save_file(
    {
      'x.lora_A.weight': np.zeros((2, 4), np.float32),
      'x.lora_B.weight': np.zeros((6, 2), np.float32),
    },
    folder / 'adapter_model.safetensors',
  )
  sites = {'x': (adapter_files.Site('x', 0, (6, 4)),)}
  good = {
    'peft_type': 'LORA',
    'r': 2,
    'lora_alpha': 4,
    'use_dora': False,
    'rank_pattern': {},
    'target_modules': ['x'],
  }

  def read(content: bytes) -> Any:
    path.write_bytes(content)
    return adapter_files.open_adapter(AdapterConfig(str(folder)), sites)

  def check(content: bytes, adapter: Any) -> None:
    scale = adapter.updates['x'][0].scale
    assert math.isfinite(scale)
    given = json.loads(content.decode('utf-8-sig'))
    if not given.get('alpha_pattern') and not given.get('use_rslora'):
      assert scale == given['lora_alpha'] / 2

  return {'adapter_config.json': json_target(good, read, check)}
