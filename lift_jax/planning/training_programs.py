"""The steps of `lift align` and `lift train_critic`, one for each bucket.

They are the very functions that the jobs call, on the mesh and with the layout
of the job's config; nothing is loaded and nothing allocated.
"""

from collections.abc import Collection, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp

from lift_jax import partitioning
from lift_jax.data import cache
from lift_jax.data.batch_sizes import BucketSteps, mean_batch
from lift_jax.data.cache_lists import Bucket
from lift_jax.data.frame_choice import choose_frames
from lift_jax.data.rubric import LIFT, Scale, read_rubric
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.train_critic import TrainCriticConfig, check_units
from lift_jax.models import critic_config, generator_config
from lift_jax.models.critic_protocols import Frames
from lift_jax.models.generators import VideoModel
from lift_jax.planning.arguments import CLIP, array, arrays, frames_of, lowering
from lift_jax.planning.report import Program
from lift_jax.runtime import storage
from lift_jax.sampling.config import VideoConfig
from lift_jax.sampling.sizes import latent_shape
from lift_jax.training import alignment, critic_parts, loop
from lift_jax.training import critic as critic_lib
from lift_jax.training import setup as setup_lib
from lift_jax.training.critic_losses import LabelScale
from lift_jax.training.critic_step import CriticBatch, Ratings
from lift_jax.training.objectives.objective import UNIT_SIZES
from lift_jax.training.optimizer import make_optimizer
from lift_jax.training.setup import Setup
from lift_jax.training.state import TrainState
from lift_jax.training.step import LatentBatch

# Only shapes of a step depend on what a run is, not on how long it is.
_NUM_STEPS = 1000

# Answer tokens that an example has at most: what LiFT's reasons take, rounded
# up.
_MAX_TARGETS = 128


def align(config: AlignConfig, devices: Sequence[Any]) -> list[Program]:
  """The training step of `lift align`, on each bucket of its videos.

  They are those of the cache that the config names, if it has been prepared;
  else each size, as long as videos may be.
  """
  mesh = partitioning.make_mesh(config.mesh, devices)
  model = generator_config.declare_chosen(config.model)
  setup = alignment.make_setup(
    model,
    config.model,
    config.train.trainable,
    config.lora,
    mesh,
    config.train.remat,
  )
  objective = config.objective.chosen
  shards = partitioning.batch_shards(mesh)
  batch_size = config.train.global_batch(mesh.size, shards)
  alignment.check_batch(objective, config.train, batch_size, shards)
  buckets = alignment.make_buckets(
    model,
    config.train,
    objective,
    _num_clips(config, model),
    batch_size,
    shards,
  )
  kept = jnp.dtype(config.prepare.keep_dtype)
  tx = make_optimizer(config.optimizer, _NUM_STEPS)
  state, frozen = _state(setup, tx, config.train, config.model.compute_dtype)
  key = jax.eval_shape(lambda: jax.random.key(0))
  constants = (
    array(model.text_shape, kept, setup.replicated),
    array(key.shape, key.dtype, setup.replicated),
    alignment.abstract_reference(
      state.trainable, objective, config.model.compute_dtype
    ),
  )
  jitted = loop.jit_step(
    alignment.make_step(
      setup, model, config.train, objective, tx, buckets.values()
    ),
    state,
  )

  def program(bucket: Bucket, steps: BucketSteps) -> Program:
    size = steps.batch_size
    arrays = _latents(model, bucket, size, kept, setup.batch_sharding)
    batch = LatentBatch.of(arrays, objective)
    return Program(
      _step_name(steps, buckets),
      mesh,
      lowering(mesh, jitted, state, frozen, batch, *constants),
      size,
      steps.step_cost,
      _kernel_flops(
        size * model.flops(model.num_tokens(*bucket)).attention,
        config.train.remat,
        reference=objective.needs_reference,
      ),
    )

  return [program(*bucket) for bucket in buckets.items()]


def _num_clips(config: AlignConfig, model: VideoModel) -> dict[Bucket, int]:
  """Clips of each bucket; one of each size, if there is no cache yet."""
  data = config.data
  if data.cache and (found := cache.num_clips(storage.to_path(data.cache))):
    return found
  num_frames = len(choose_frames(data.max_frames, data.max_frames))
  buckets = {}
  for height, width in data.sizes:
    video = VideoConfig(height, width, num_frames, tiling=False)
    buckets[latent_shape(model, video)[:3]] = 1
  return buckets


def _latents(
  model: VideoModel,
  bucket: Bucket,
  batch_size: int,
  dtype: jnp.dtype,
  sharding: jax.sharding.Sharding,
) -> dict[str, Any]:
  """A batch of encoded videos, as `data.pipeline` reads it."""
  rows = functools.partial(array, sharding=sharding)
  latents = (batch_size, *bucket, model.latent_grid.channels)
  return {
    'mean': rows(latents, dtype),
    'logvar': rows(latents, dtype),
    'text': rows((batch_size, *model.text_shape), dtype),
    'reward': rows((batch_size,), jnp.float32),
    'is_real': rows((batch_size,), jnp.bool_),
    'optimality': rows((batch_size,), jnp.float32),
  }


def _step_name(steps: BucketSteps, buckets: Collection[Any]) -> str:
  """Names the bucket if there are several."""
  return 'training step' + (f' on {steps.name}' if len(buckets) > 1 else '')


def train_critic(
  config: TrainCriticConfig, devices: Sequence[Any]
) -> list[Program]:
  """The step of `lift train_critic`, on sequences of each length.

  With all losses of the config, and units of clips that they compare.
  """
  mesh = partitioning.make_mesh(config.mesh, devices)
  critic = critic_config.declare_chosen(config.model)
  setup = critic_lib.make_setup(
    critic, config.model, config.train, config.lora, mesh, config.parts
  )
  shards = partitioning.batch_shards(mesh)
  batch_size = config.train.global_batch(mesh.size, shards)
  scale = _scale(config)
  check_units(config, batch_size, mesh, len(scale.dimensions))
  selection = critic.frames.select(CLIP)
  lengths = [selection.num_positions + n for n in config.data.text_buckets]
  buckets = critic_lib.make_buckets(
    critic,
    config.train,
    config.trained,
    {length: critic_lib.Sequences(selection, length) for length in lengths},
    _MAX_TARGETS,
    batch_size,
    shards,
    config.losses.unit_size(len(scale.dimensions)),
  )
  tx = make_optimizer(
    config.optimizer,
    _NUM_STEPS,
    critic_parts.peak_rates(
      critic, config.trained, config.optimizer.learning_rate
    ),
  )
  state, frozen = _state(setup, tx, config.train, config.model.compute_dtype)
  # Which tokens are labels does not matter to the program.
  label_scale = LabelScale(
    tuple(range(len(scale.labels))),
    scale.rewards,
    (1.0,) * len(scale.dimensions),
  )
  remat = config.train.remat
  jitted = loop.jit_step(
    critic_lib.make_step(
      setup,
      config.train,
      tx,
      _MAX_TARGETS,
      config.losses,
      label_scale if config.losses.needs_ratings else None,
      config.lora.dropout,
      float(mean_batch(buckets.values())),
    ),
    state,
  )

  def program(length: int, steps: BucketSteps) -> Program:
    size = steps.batch_size
    frames = frames_of(critic, selection, size, setup.batch_sharding)
    batch = _sequences(
      frames,
      (size, length),
      len(scale.labels) if config.losses.needs_ratings else None,
      setup.batch_sharding,
    )
    vision_kernels = critic.vision_attention_flops(frames)
    if config.trained.vision_tower.training != critic_parts.FROZEN:
      vision_kernels = _kernel_flops(vision_kernels, remat)
    return Program(
      _step_name(steps, buckets),
      mesh,
      lowering(mesh, jitted, state, frozen, batch),
      size,
      steps.step_cost,
      _kernel_flops(size * critic.attention_flops(length), remat)
      + vision_kernels,
    )

  return [program(*bucket) for bucket in buckets.items()]


def _sequences(
  frames: Frames,
  shape: tuple[int, int],
  num_labels: int | None,
  sharding: jax.sharding.Sharding,
) -> CriticBatch:
  """A batch of sequences; `num_labels` of their ratings, None without."""
  rows = functools.partial(array, sharding=sharding)
  size, _ = shape
  batch = CriticBatch(
    frames=frames,
    tokens=rows(shape, jnp.int32),
    is_target=rows(shape, jnp.bool_),
    segment_ids=rows(shape, jnp.int32),
    weight=rows((size,), jnp.float32),
  )
  if num_labels is None:
    return batch
  ratings = Ratings(
    position=rows((size,), jnp.int32),
    shares=rows((size, num_labels), jnp.float32),
    preference=rows((size, 3), jnp.float32),
    overall=rows((size, 3), jnp.float32),
  )
  return batch._replace(ratings=ratings)


def _scale(config: TrainCriticConfig) -> Scale:
  questions = config.data.questions
  return read_rubric(questions).scale if questions else LIFT


def unit_size(job: str, config: Any) -> int:
  """Examples that a device must have at a time."""
  if job == 'align':
    return UNIT_SIZES[config.objective.chosen.unit]
  return config.losses.unit_size(len(_scale(config).dimensions))


def _kernel_flops(forward: float, remat: str, reference: bool = False) -> float:
  """FLOPs of attention in a training step, as a kernel does it.

  Its backward pass has five products in place of two, as the weights are
  computed again. A reference has a forward pass of its own.
  """
  return forward * ((2 if remat == 'full' else 1) + 2.5 + reference)


def _state(
  setup: Setup, tx, train, compute_dtype: str
) -> tuple[TrainState, Any]:
  """State and frozen parameters of a run; see `training.setup`."""
  state, places = setup_lib.abstract_state(setup, tx, train.ema_decay > 0)
  _, frozen = setup.split(setup.model.abstract_params)
  _, frozen_places = setup.split(setup.shardings)
  return (
    arrays(state, places),
    arrays(frozen, frozen_places, setup.base_dtype(compute_dtype)),
  )
