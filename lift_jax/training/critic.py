"""Training of a critic: network, step, FLOPs, fingerprint."""

from collections.abc import Collection, Hashable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import json
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from lift_jax.data import batch_sizes
from lift_jax.data.batch_sizes import BucketSteps
from lift_jax.data.critic_examples import (
  CriticDataConfig,
  Example,
  SelectedFrames,
)
from lift_jax.data.critic_units import Unit
from lift_jax.errors import UserError, listing
from lift_jax.models import lora
from lift_jax.models.critic_config import CriticModelConfig
from lift_jax.models.critic_protocols import Frames
from lift_jax.models.critics import Critic
from lift_jax.models.functional import Params, functional
from lift_jax.training import critic_parts
from lift_jax.training import setup as setup_lib
from lift_jax.training.config import TrainConfig
from lift_jax.training.critic_losses import ANSWERS, LabelScale, LossConfig
from lift_jax.training.critic_parts import LIFT_PARTS, PartsConfig, part_of
from lift_jax.training.critic_step import (
  CriticBatch,
  CriticStepConfig,
  make_critic_step,
)
from lift_jax.training.setup import PARTS, Setup
from lift_jax.weights import param_paths

K = TypeVar('K', bound=Hashable)

TRAINABLE = ('lora', 'all', PARTS)


def make_setup(
  critic: Critic,
  config: CriticModelConfig,
  train: TrainConfig,
  lora_config: lora.LoRAConfig,
  mesh: jax.sharding.Mesh,
  parts: PartsConfig = LIFT_PARTS,
) -> Setup:
  """Declares the network of a run; allocates nothing.

  Args:
    critic: to train.
    config: its section of the config.
    train: likewise; `train.trainable` may be 'parts'.
    lora_config: of new adapters.
    mesh: all devices.
    parts: what is trained then.

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
  parts = critic_parts.chosen(train, parts)
  if critic_parts.has_adapters(parts):
    if critic.adapters and critic_parts.only_adapters(parts):
      # The export would lack the adapters that the new ones build upon.
      raise UserError(
        f'model.adapter is {critic.adapters[0].path}: new adapters cannot be '
        "trained on top of others; set train.trainable to 'all', or "
        "model.adapter to ''"
      )
    targets = critic_parts.adapter_targets(critic, parts, lora_config)
    build = lora.adapted(
      build, dataclasses.replace(lora_config, targets=targets)
    )
  model = functional(build)
  _check_adapters(critic, parts, model.abstract_params)
  return setup_lib.make_setup(
    model,
    critic.rules,
    train.trainable,
    mesh,
    critic_parts.trained_by_name(critic, parts),
  )


def _check_adapters(
  critic: Critic, parts: PartsConfig, abstract_params: Params
) -> None:
  """Raises UserError for adapters outside of the parts that have some."""
  adapters, _ = param_paths.partition(abstract_params, lora.is_adapter)
  known = {row.ours for row in critic.adapter_table}
  if strangers := {
    name.rpartition('/')[0]
    for name in param_paths.flatten(adapters)
    if name not in known
    or parts.named[part_of(critic, name)].training != critic_parts.LORA
  }:
    raise UserError(
      f'lora.targets: {listing(strangers)} are not part of the language model; '
      f'try {critic.lora_targets[0]!r}, and for the vision tower '
      "parts.vision_tower.training = 'lora'"
    )


def load_base(
  setup: Setup, critic: Critic, compute_dtype: str, key: jax.Array
) -> tuple[Params, Params]:
  """(trainable, frozen) parameters before the first step; see `setup.load`."""
  load = critic.load
  if setup.trainable == PARTS:
    load = functools.partial(load, is_fp32=setup.is_trainable)
  return setup_lib.load(setup, load, compute_dtype, key)


def make_step(
  setup: Setup,
  config: TrainConfig,
  tx: optax.GradientTransformation,
  max_targets: int,
  losses: LossConfig = ANSWERS,
  scale: LabelScale | None = None,
  dropout: float = 0.0,
  mean_batch: float | None = None,
):
  """The training step; see `critic_step.make_critic_step`.

  Args:
    setup: of the run.
    config: its length, batches and seed.
    tx: the optimizer.
    max_targets: most answer tokens of an example.
    losses: their weights.
    scale: labels of the ratings, for losses that need them.
    dropout: of the adapters.
    mean_batch: see `batches.weigh_examples`.
  """
  model = setup.model
  if dropout:
    model = functional(lora.with_dropout(model.build, dropout))
  return make_critic_step(
    model,
    tx,
    CriticStepConfig(
      max_targets,
      config.grad_accum,
      config.ema_decay,
      losses,
      scale,
      config.seed,
      mean_batch,
    ),
  )


def step_flops(
  critic: Critic, parts: PartsConfig, batch: CriticBatch, max_targets: int
) -> float:
  """FLOPs of a step on a batch, summed over all devices.

  Recomputation is not counted, and neither are adapters. Kernels that are not
  trained in full have no gradient, and nothing goes back through a vision tower
  that is frozen.

  Args:
    critic: the one in training.
    parts: what is trained of it, from `critic_parts.chosen`.
    batch: only its shapes are read.
    max_targets: most answer tokens of a sequence.
  """
  batch_size, num_tokens = batch.tokens.shape
  return _step_flops(
    critic, parts, batch.frames, batch_size, num_tokens, max_targets
  )


def _step_flops(
  critic: Critic,
  parts: PartsConfig,
  frames: Frames,
  batch_size: int,
  num_tokens: int,
  max_targets: int,
) -> float:
  passes = {critic_parts.FROZEN: 1, critic_parts.LORA: 2, critic_parts.FULL: 3}
  vision = passes[parts.vision_tower.training] * critic.vision_flops(frames)
  attention = batch_size * critic.attention_flops(num_tokens)
  decoder = batch_size * critic.decoder_flops(num_tokens, max_targets)
  if parts.decoder.training == critic_parts.FULL:
    return vision + 3 * decoder
  # Back through all layers: of attention, both factors have a gradient.
  return vision + 2 * (decoder - attention) + 3 * attention


@dataclasses.dataclass(frozen=True)
class Sequences:
  """Sequences of one shape.

  Attributes:
    selection: the frames of one of them.
    length: number of tokens, with padding.
    num_examples: drawn in an epoch, on average.
    padding: its share among the tokens.
  """

  selection: SelectedFrames
  length: int
  num_examples: float = 1.0
  padding: float = 0.0


def make_buckets(
  critic: Critic,
  config: TrainConfig,
  parts: PartsConfig,
  buckets: Mapping[K, Sequences],
  max_targets: int,
  batch_size: int,
  shards: int,
  unit_size: int = 1,
) -> dict[K, BucketSteps]:
  """The steps on each bucket.

  Args:
    critic: the one in training.
    config: section of the config.
    parts: what is trained, from `critic_parts.chosen`.
    buckets: to train on.
    max_targets: most answer tokens of a sequence.
    batch_size: of the most expensive bucket, a multiple of what divides it.
    shards: of the batch.
    unit_size: examples of a unit; see `data.critic_units`.
  """

  def cost(one: Sequences) -> float:
    frames = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype),
      critic.frames.shapes(one.selection),
    )
    return _step_flops(critic, parts, frames, 1, one.length, max_targets)

  costs = {bucket: cost(one) for bucket, one in buckets.items()}
  multiple = shards * config.grad_accum * unit_size
  sizes = batch_sizes.choose(config.batch_by, costs, batch_size, multiple)
  return {
    bucket: BucketSteps(
      f'{one.length} tokens, frames {"x".join(map(str, one.selection.shape))}',
      one.num_examples,
      costs[bucket],
      sizes[bucket],
      one.padding,
    )
    for bucket, one in buckets.items()
  }


def fingerprint(
  critic: Critic,
  config: CriticModelConfig,
  train: TrainConfig,
  lora_config: lora.LoRAConfig,
  examples: list[Example],
  data_config: CriticDataConfig,
  batch_size: int,
  parts: PartsConfig = LIFT_PARTS,
  losses: LossConfig = ANSWERS,
  units: Sequence[Unit] = (),
  buckets: Collection[BucketSteps] = (),
) -> dict[str, Any]:
  """What a run must share with a checkpoint to resume from it.

  Args:
    critic: to train.
    config: its section of the config.
    train: likewise.
    lora_config: likewise.
    examples: to train on.
    data_config: how they are sampled.
    batch_size: examples of a step.
    parts: what is trained if `train.trainable` is 'parts'.
    losses: their weights.
    units: how examples are paired, for losses that compare clips.
    buckets: the steps on each.
  """
  # Hashed one by one: as JSON, the tokens of a large data set are gigabytes.
  digest = hashlib.sha256()
  for example in examples:
    values: list[Any] = [
      example.record.video,
      example.is_real,
      len(example.selection.indices),
      example.length,
      hashlib.sha256(example.tokens.tobytes()).hexdigest(),
    ]
    if (losses.label or losses.overall) and example.votes:
      values.append(dict(example.votes))
    digest.update(json.dumps(values).encode() + b'\n')
  for unit in units:
    digest.update(json.dumps(dataclasses.astuple(unit)).encode() + b'\n')
  # What is new has no entry at its default, so that older runs resume.
  adapters = dataclasses.asdict(lora_config)
  adapters |= {'targets': list(lora_config.targets)}
  if not adapters.get('dropout'):
    adapters.pop('dropout', None)
  new: dict[str, Any] = {}
  if train.trainable == PARTS:
    new['parts'] = dataclasses.asdict(parts)
  if losses.needs_ratings:
    of_losses: dict[str, Any] = dataclasses.asdict(losses)
    if not losses.overall:
      del of_losses['overall'], of_losses['normalize_overall']
    new['losses'] = of_losses
  new |= batch_sizes.fingerprint(buckets, batch_size)
  has_adapters = critic_parts.has_adapters(critic_parts.chosen(train, parts))
  return new | {
    'model': critic.fingerprint,
    'template': config.template,
    'trainable': train.trainable,
    'lora': adapters if has_adapters else None,
    'has_ema': train.ema_decay > 0,
    'seed': train.seed,
    'batch_size': batch_size,
    'data': digest.hexdigest()[:16],
    'real_share': data_config.real_share,
    'label_weight': data_config.label_weight,
  }
