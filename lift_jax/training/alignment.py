"""Fine-tuning of a text-to-video transformer: network, step, fingerprint."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lift_jax.data.pipeline import COLUMNS, ScoredEntry
from lift_jax.errors import UserError, listing
from lift_jax.models import lora
from lift_jax.models.functional import Params, functional
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.generators import VideoModel
from lift_jax.runtime.files import json_sha256
from lift_jax.training import setup as setup_lib
from lift_jax.training.config import AlignTrainConfig, TrainConfig
from lift_jax.training.objectives import ObjectiveConfig
from lift_jax.training.objectives.objective import Objective
from lift_jax.training.setup import Setup
from lift_jax.training.step import StepConfig, make_train_step


def make_setup(
  folder: VideoModel,
  config: ModelConfig,
  trainable: str,
  lora_config: lora.LoRAConfig,
  mesh: jax.sharding.Mesh,
  remat: str = 'none',
) -> Setup:
  """Declares the network of a run; allocates nothing.

  Raises:
    UserError: the mesh does not divide the heads or a parameter.
  """
  folder.check_mesh(mesh)
  network = folder.networks['transformer']

  def build(rngs):
    return network.build(
      dtype=jnp.dtype(config.compute_dtype),
      remat=remat,
      attention_backend=config.attention,
      rngs=rngs,
    )

  if trainable == 'lora':
    build = lora.adapted(build, lora_config)
  return setup_lib.make_setup(functional(build), network.rules, trainable, mesh)


def load_base(
  setup: Setup, folder: VideoModel, compute_dtype: str, key: jax.Array
) -> tuple[Params, Params]:
  """(trainable, frozen) parameters before the first step; see `setup.load`."""
  return setup_lib.load(
    setup,
    functools.partial(folder.load, 'transformer'),
    compute_dtype,
    key,
  )


def make_step(
  setup: Setup,
  folder: VideoModel,
  config: AlignTrainConfig,
  objective: Objective,
  tx: optax.GradientTransformation,
):
  """The training step; see `step.make_train_step`."""
  return make_train_step(
    setup.model,
    folder.schedule,
    tx,
    objective,
    StepConfig(
      latent_scale=folder.latent_scale,
      caption_dropout=config.caption_dropout,
      grad_accum=config.grad_accum,
      ema_decay=config.ema_decay,
    ),
  )


def check_data_needs(config: ObjectiveConfig) -> None:
  """Raises UserError for an objective whose data `lift align` cannot read."""
  objective = config.chosen
  if objective.unit != 'clip':
    raise UserError(
      f'objective.name is {config.name!r}, which trains on units of a '
      f'{objective.unit}; lift align reads single clips'
    )
  if unknown := set(objective.columns) - set(COLUMNS):
    raise UserError(
      f'objective.name is {config.name!r}, which reads {listing(unknown)}; '
      f'lift align reads {listing(COLUMNS)}'
    )


def make_reference(
  trainable: Params, objective: Objective, compute_dtype: str
) -> Params:
  """The initial `trainable` for objectives that need a reference, else {}.

  It is copied, as the trainable parameters are donated to the first step, in
  the type that the network computes in. New adapters have no effect yet, so
  with LoRA this is the base model, at the cost of a copy of the adapters alone.
  """
  if not objective.needs_reference:
    return {}
  copy = functools.partial(jnp.array, dtype=compute_dtype, copy=True)
  return jax.jit(lambda params: jax.tree.map(copy, params))(trainable)


def abstract_reference(
  trainable: Params, objective: Objective, compute_dtype: str
) -> Params:
  """Shapes and shardings of the reference, from those of `trainable`."""
  if not objective.needs_reference:
    return {}
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, jnp.dtype(compute_dtype), sharding=leaf.sharding
    ),
    trainable,
  )


def step_flops(
  folder: VideoModel,
  trainable: str,
  objective: Objective,
  latents_shape: tuple[int, ...],
) -> float:
  """FLOPs of a step on latents [B, F, h, w, C], summed over all devices."""
  num_videos, *size, _ = latents_shape
  flops = folder.flops(folder.num_tokens(*size))
  per_video = flops.training(trains_kernels=trainable != 'lora')
  if objective.needs_reference:
    per_video += flops.forward
  return num_videos * per_video


def fingerprint(
  folder: VideoModel,
  config: TrainConfig,
  objective: ObjectiveConfig,
  lora_config: lora.LoRAConfig,
  scored: list[ScoredEntry],
  batch_size: int,
) -> dict[str, Any]:
  """What a run must share with a checkpoint to resume from it."""
  data = [(s.entry.key, s.reward, s.is_real) for s in scored]
  adapters = dataclasses.asdict(lora_config)
  adapters |= {'targets': list(lora_config.targets)}
  return {
    'model': folder.fingerprint('transformer'),
    'trainable': config.trainable,
    'lora': adapters if config.trainable == 'lora' else None,
    # Its settings may change between runs, as the learning rate may.
    'objective': objective.name,
    'has_ema': config.ema_decay > 0,
    'seed': config.seed,
    'batch_size': batch_size,
    'data': json_sha256(data)[:16],
  }
