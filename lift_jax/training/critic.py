"""Training of a critic: network, step, FLOPs, fingerprint."""

import dataclasses
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lift_jax.data.critic_examples import CriticDataConfig, Example
from lift_jax.errors import UserError, listing
from lift_jax.models import lora
from lift_jax.models.critic_config import CriticModelConfig
from lift_jax.models.critics import Critic
from lift_jax.models.functional import Params, functional
from lift_jax.training import setup as setup_lib
from lift_jax.training.config import TrainConfig
from lift_jax.training.critic_step import (
  CriticBatch,
  CriticStepConfig,
  make_critic_step,
)
from lift_jax.training.setup import Setup
from lift_jax.weights import param_paths

TRAINABLE = ('lora', 'all')


def make_setup(
  critic: Critic,
  config: CriticModelConfig,
  train: TrainConfig,
  lora_config: lora.LoRAConfig,
  mesh: jax.sharding.Mesh,
) -> Setup:
  """Declares the network of a run; allocates nothing.

  Raises:
    UserError: the mesh does not divide it, or `train.trainable` does not suit a
      critic.
  """
  if train.trainable not in TRAINABLE:
    raise UserError(
      f'train.trainable is {train.trainable!r}; for a critic, choose one of '
      f'{list(TRAINABLE)}'
    )
  critic.check_mesh(mesh)
  build = critic.build(
    dtype=jnp.dtype(config.compute_dtype),
    remat=train.remat,
    attention_backend=config.attention,
  )
  if train.trainable == 'lora':
    if critic.adapters:
      # The export would lack the adapters that the new ones build upon.
      raise UserError(
        f'model.adapter is {critic.adapters[0].path}: new adapters cannot be '
        "trained on top of others; set train.trainable to 'all', or "
        "model.adapter to ''"
      )
    build = lora.adapted(build, lora_config)
  model = functional(build)
  _check_published(critic, model.abstract_params)
  return setup_lib.make_setup(model, critic.rules, train.trainable, mesh)


def _check_published(critic: Critic, abstract_params: Params) -> None:
  """Raises UserError for adapters that the published format cannot hold."""
  adapters, _ = param_paths.partition(abstract_params, lora.is_adapter)
  known = {row.ours for row in critic.adapter_table}
  if unknown := param_paths.flatten(adapters).keys() - known:
    layers = {name.rpartition('/')[0] for name in unknown}
    raise UserError(
      f'lora.targets: {listing(layers)} are not part of the language model, '
      'the only one that published adapters cover; try '
      f'{critic.lora_targets[0]!r}'
    )


def load_base(
  setup: Setup, critic: Critic, compute_dtype: str, key: jax.Array
) -> tuple[Params, Params]:
  """(trainable, frozen) parameters before the first step; see `setup.load`."""
  return setup_lib.load(setup, critic.load, compute_dtype, key)


def make_step(
  setup: Setup,
  config: TrainConfig,
  tx: optax.GradientTransformation,
  max_targets: int,
):
  """The training step; see `critic_step.make_critic_step`."""
  return make_critic_step(
    setup.model,
    tx,
    CriticStepConfig(max_targets, config.grad_accum, config.ema_decay),
  )


def step_flops(
  critic: Critic, trainable: str, batch: CriticBatch, max_targets: int
) -> float:
  """FLOPs of a step on a batch, summed over all devices.

  Recomputation is not counted. With adapters there is no backward pass through
  the vision tower, and the kernels of the language model have no gradient; the
  adapters themselves are not counted.

  Args:
    critic: the one in training.
    trainable: 'lora' or 'all'.
    batch: only its shapes are read.
    max_targets: most answer tokens of a sequence.
  """
  batch_size, num_tokens = batch.tokens.shape
  vision = critic.vision_flops(batch.frames)
  attention = batch_size * critic.attention_flops(num_tokens)
  decoder = batch_size * critic.decoder_flops(num_tokens, max_targets)
  if trainable == 'all':
    return 3 * (vision + decoder)
  return vision + 2 * (decoder - attention) + 3 * attention


def fingerprint(
  critic: Critic,
  config: CriticModelConfig,
  train: TrainConfig,
  lora_config: lora.LoRAConfig,
  examples: list[Example],
  data_config: CriticDataConfig,
  batch_size: int,
) -> dict[str, Any]:
  """What a run must share with a checkpoint to resume from it."""
  # Hashed one by one: as JSON, the tokens of a large data set are gigabytes.
  digest = hashlib.sha256()
  for example in examples:
    values = [
      example.record.video,
      example.is_real,
      len(example.selection.indices),
      example.length,
      hashlib.sha256(example.tokens.tobytes()).hexdigest(),
    ]
    digest.update(json.dumps(values).encode() + b'\n')
  adapters = dataclasses.asdict(lora_config)
  adapters |= {'targets': list(lora_config.targets)}
  return {
    'model': critic.fingerprint,
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
