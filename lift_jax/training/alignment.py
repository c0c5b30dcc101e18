"""Fine-tuning of a text-to-video transformer: network, step, fingerprint."""

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lift_jax.data import batch_sizes
from lift_jax.data.batch_sizes import BucketSteps
from lift_jax.data.cache_lists import Bucket
from lift_jax.data.pipeline import Unit
from lift_jax.errors import UserError
from lift_jax.models import lora
from lift_jax.models.functional import Params, functional
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.generators import VideoModel
from lift_jax.runtime.files import json_sha256
from lift_jax.training import setup as setup_lib
from lift_jax.training.config import AlignTrainConfig, TrainConfig
from lift_jax.training.objectives import ObjectiveConfig
from lift_jax.training.objectives.objective import UNIT_SIZES, Objective
from lift_jax.training.setup import Setup
from lift_jax.training.step import StepConfig, make_evaluate, make_train_step
from lift_jax.weights import param_paths


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
  buckets: Collection[BucketSteps],
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
      mean_batch=float(batch_sizes.mean_batch(buckets)),
    ),
  )


def make_held_out_evaluate(
  setup: Setup, folder: VideoModel, objective: Objective
):
  """The values of an objective without training; see `step.make_evaluate`."""
  return make_evaluate(
    setup.model, folder.schedule, objective, folder.latent_scale
  )


def check_batch(
  objective: Objective, config: TrainConfig, batch_size: int, shards: int
) -> None:
  """Raises UserError if a micro-batch would split a pair between devices."""
  parts = _num_parts(objective, config, shards)
  if batch_size % parts:
    raise UserError(
      f'a batch of {batch_size} videos in pairs does not divide into {parts} '
      f'parts: data x fsdp = {shards} devices, train.grad_accum = '
      f'{config.grad_accum}, 2 videos of a pair; change train.batch_size'
    )


def _num_parts(objective: Objective, config: TrainConfig, shards: int) -> int:
  """What the size of a batch is a multiple of."""
  return shards * config.grad_accum * UNIT_SIZES[objective.unit]


def make_buckets(
  folder: VideoModel,
  config: TrainConfig,
  objective: Objective,
  num_clips: Mapping[Bucket, int],
  batch_size: int,
  shards: int,
) -> dict[Bucket, BucketSteps]:
  """The steps on each bucket.

  Args:
    num_clips: of each bucket in an epoch.
    batch_size: of the most expensive bucket, see `check_batch`.
    shards: of the batch.
  """
  channels = folder.latent_grid.channels
  costs = {
    bucket: step_flops(
      folder, config.trainable, objective, (1, *bucket, channels)
    )
    for bucket in sorted(num_clips)
  }
  sizes = batch_sizes.choose(
    config.batch_by, costs, batch_size, _num_parts(objective, config, shards)
  )
  return {
    bucket: BucketSteps(
      f'latents {"x".join(map(str, bucket))}',
      num_clips[bucket],
      cost,
      sizes[bucket],
    )
    for bucket, cost in costs.items()
  }


def make_reference(
  trainable: Params, objective: Objective, compute_dtype: str
) -> Params:
  """The `initial` of `step.reference_params`; {} if no reference is needed.

  It is copied, as the trainable parameters are donated to the first step, in
  the type that the network computes in. With LoRA it is {} too: the reference
  is the same network with its adapters switched off.
  """
  copied = _without_adapters(trainable, objective)
  copy = functools.partial(jnp.array, dtype=compute_dtype, copy=True)
  return jax.jit(lambda params: jax.tree.map(copy, params))(copied)


def abstract_reference(
  trainable: Params, objective: Objective, compute_dtype: str
) -> Params:
  """Shapes and shardings of the reference, from those of `trainable`."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, jnp.dtype(compute_dtype), sharding=leaf.sharding
    ),
    _without_adapters(trainable, objective),
  )


def _without_adapters(trainable: Params, objective: Objective) -> Params:
  """What `make_reference` copies."""
  if not objective.needs_reference:
    return {}
  _, others = param_paths.partition(trainable, lora.is_adapter)
  return others


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
  units: Sequence[Unit],
  batch_size: int,
  buckets: Collection[BucketSteps] = (),
) -> dict[str, Any]:
  """What a run must share with a checkpoint to resume from it."""
  data = [(s.entry.key, s.reward, s.is_real) for unit in units for s in unit]
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
    **batch_sizes.fingerprint(buckets, batch_size),
  }
