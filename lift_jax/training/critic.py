"""A critic, made ready to be trained on a mesh."""

import dataclasses
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp

from lift_jax.data.critic_pipeline import Example
from lift_jax.errors import UserError
from lift_jax.models import lora
from lift_jax.models.critic import sharding
from lift_jax.models.critic.choice import CriticModelConfig
from lift_jax.models.critic.folder import CriticFolder
from lift_jax.models.functional import Params, functional
from lift_jax.training import setup as setup_lib
from lift_jax.training.config import TrainConfig
from lift_jax.training.setup import Setup

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
    build = lora.adapted(build, lora_config)
  return setup_lib.make(
    functional(build),
    sharding.rules(folder.config),
    lora.LORA_RULES,
    train.trainable,
    mesh,
  )


def load_base(
  setup: Setup, folder: CriticFolder, compute_dtype: str, key: jax.Array
) -> tuple[Params, Params]:
  """(trainable, frozen) parameters before the first step; see `setup.load`."""
  return setup_lib.load(setup, folder.load, compute_dtype, key)


def belongs_to(
  folder: CriticFolder,
  config: CriticModelConfig,
  train: TrainConfig,
  lora_config: lora.LoRAConfig,
  examples: list[Example],
  batch_size: int,
) -> dict[str, Any]:
  """What a checkpoint of this run may be continued with."""
  data = [
    (e.record.video, e.tokens.tolist(), e.num_frames, e.length)
    for e in examples
  ]
  digest = hashlib.sha256(json.dumps(data).encode()).hexdigest()
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
    'data': digest[:16],
  }
