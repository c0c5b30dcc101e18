"""A critic, made ready to be trained on a mesh."""

import dataclasses
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lift_jax.data.critic_pipeline import CriticDataConfig, Example
from lift_jax.errors import UserError, listing
from lift_jax.models import lora
from lift_jax.models.critic import flops, sharding
from lift_jax.models.critic.choice import CriticModelConfig
from lift_jax.models.critic.critic import CriticConfig
from lift_jax.models.critic.folder import ADAPTER_TABLE, CriticFolder
from lift_jax.models.functional import Params, functional
from lift_jax.training import setup as setup_lib
from lift_jax.training.config import TrainConfig
from lift_jax.training.critic_step import CriticStepConfig, make_critic_step
from lift_jax.training.setup import Setup
from lift_jax.weights import param_paths

TRAINABLE = ('lora', 'all')


def make_setup(
  folder: CriticFolder,
  config: CriticModelConfig,
  train: TrainConfig,
  lora_config: lora.LoRAConfig,
  mesh: jax.sharding.Mesh,
) -> Setup:
  """Declares the network of a run; allocates nothing.

  Raises:
    UserError: the mesh does not divide it, or this cannot train.
  """
  if train.trainable not in TRAINABLE:
    raise UserError(
      f'train.trainable is {train.trainable!r}; of a critic, choose one of '
      f'{list(TRAINABLE)}'
    )
  sharding.check_mesh(folder.config, mesh)
  build = folder.build(
    dtype=jnp.dtype(config.compute_dtype),
    remat=train.remat,
    attention_backend=config.attention,
  )
  if train.trainable == 'lora':
    if folder.adapter is not None:
      # They would be exported without those that they build upon.
      raise UserError(
        f'model.adapter is {folder.adapter.path}: new adapters cannot be '
        "trained on top of others; set train.trainable to 'all', or "
        "model.adapter to ''"
      )
    build = lora.adapted(build, lora_config)
  model = functional(build)
  _check_published(model.abstract_params)
  return setup_lib.make_setup(
    model,
    sharding.rules(folder.config),
    lora.LORA_RULES,
    train.trainable,
    mesh,
  )


def _check_published(abstract_params: Params) -> None:
  """Raises UserError for adapters that could not be written in the end."""
  adapters, _ = param_paths.partition(abstract_params, lora.is_adapter)
  known = {row.ours for row in ADAPTER_TABLE}
  if strangers := param_paths.flatten(adapters).keys() - known:
    layers = {name.rpartition('/')[0] for name in strangers}
    raise UserError(
      f'lora.targets: {listing(layers)} are not of the language model, and '
      "published adapters are; an example that is: 'llm/blocks/attn/to_q'"
    )


def load_base(
  setup: Setup, folder: CriticFolder, compute_dtype: str, key: jax.Array
) -> tuple[Params, Params]:
  """(trainable, frozen) parameters before the first step; see `setup.load`."""
  return setup_lib.load(setup, folder.load, compute_dtype, key)


def make_step(
  setup: Setup,
  config: TrainConfig,
  tx: optax.GradientTransformation,
  max_targets: int,
):
  """The step of a run, see `critic_step.make_critic_step`."""
  return make_critic_step(
    setup.model,
    tx,
    CriticStepConfig(max_targets, config.grad_accum, config.ema_decay),
  )


def step_flops(
  config: CriticConfig,
  trainable: str,
  num_frames: int,
  tokens_shape: tuple[int, int],
  max_targets: int,
) -> float:
  """FLOPs of a step on tokens [B, N], all devices together."""
  num_rows, num_tokens = tokens_shape
  return num_rows * flops.training_flops(
    config, num_frames, num_tokens, max_targets, trains_all=trainable == 'all'
  )


def belongs_to(
  folder: CriticFolder,
  config: CriticModelConfig,
  train: TrainConfig,
  lora_config: lora.LoRAConfig,
  examples: list[Example],
  data_config: CriticDataConfig,
  batch_size: int,
) -> dict[str, Any]:
  """What a checkpoint of this run may be continued with."""
  # One after the other: all the tokens of a large set, as JSON, are gigabytes.
  digest = hashlib.sha256()
  for example in examples:
    row = [
      example.record.video,
      example.is_real,
      example.num_frames,
      example.length,
      hashlib.sha256(example.tokens.tobytes()).hexdigest(),
    ]
    digest.update(json.dumps(row).encode() + b'\n')
  adapters = dataclasses.asdict(lora_config)
  adapters['targets'] = list(adapters['targets'])
  return {
    'model': folder.fingerprint,
    'template': config.template,
    'trainable': train.trainable,
    'lora': adapters if train.trainable == 'lora' else None,
    'has_ema': train.ema_decay > 0,
    'seed': train.seed,
    'batch_size': batch_size,
    'data': digest.hexdigest()[:16],
    'real_share': data_config.real_share,
    'label_weight': data_config.label_weight,
  }
