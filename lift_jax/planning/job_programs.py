"""The programs that a job runs, with shapes in the place of arrays.

They are the very functions that the jobs call, on the mesh and with the layout
of the job's config; nothing is loaded and nothing allocated.

B videos  F latent frames  h w height and width in latents  C channels  S text
tokens  D width of their embeddings  N tokens of a prefix  Q questions  M tokens
of a question
"""

from collections.abc import Callable, Collection, Mapping, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from lift_jax import partitioning
from lift_jax.data import cache
from lift_jax.data.batch_sizes import CLIPS, BucketSteps, mean_batch
from lift_jax.data.cache_lists import Bucket
from lift_jax.data.frame_choice import choose_frames
from lift_jax.data.rubric import LIFT, Scale, read_rubric
from lift_jax.data.video import ClipInfo
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.sample import SampleConfig
from lift_jax.jobs.score import ScoreConfig, read_prompts
from lift_jax.jobs.train_critic import TrainCriticConfig, check_units
from lift_jax.models import critic_config, generator_config, quantization
from lift_jax.models.critic_protocols import Frames
from lift_jax.models.critics import Critic
from lift_jax.models.functional import functional
from lift_jax.models.generators import VideoModel
from lift_jax.partitioning import BATCH_AXES
from lift_jax.planning.report import Program
from lift_jax.runtime import storage
from lift_jax.sampling import programs
from lift_jax.sampling.config import VideoConfig
from lift_jax.sampling.sizes import latent_shape
from lift_jax.scoring import scorer
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
from lift_jax.weights import param_paths

# Only shapes of a step depend on what a run is, not on how long it is.
_NUM_STEPS = 1000

# Clips that critics see: those of CogVideoX.
CLIP = ClipInfo(num_frames=49, fps=8.0, height=480, width=720)

# Tokens of a question and its label behind the caption, and answer tokens that
# an example has at most: what LiFT's questions and reasons take, rounded up.
_QUESTION_LENGTH = 64
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
    _array(model.text_shape, kept, setup.replicated),
    _array(key.shape, key.dtype, setup.replicated),
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
      _lowering(mesh, jitted, state, frozen, batch, *constants),
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
  rows = functools.partial(_array, sharding=sharding)
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
  rows = functools.partial(_array, sharding=setup.batch_sharding)
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
    frames = _frames(critic, selection, size, setup.batch_sharding)
    batch = CriticBatch(
      frames=frames,
      tokens=rows((size, length), jnp.int32),
      is_target=rows((size, length), jnp.bool_),
      segment_ids=rows((size, length), jnp.int32),
      weight=rows((size,), jnp.float32),
    )
    if config.losses.needs_ratings:
      batch = batch._replace(
        ratings=Ratings(
          position=rows((size,), jnp.int32),
          shares=rows((size, len(scale.labels)), jnp.float32),
          preference=rows((size, 3), jnp.float32),
          overall=rows((size, 3), jnp.float32),
        )
      )
    vision_kernels = critic.vision_attention_flops(frames)
    if config.trained.vision_tower.training != critic_parts.FROZEN:
      vision_kernels = _kernel_flops(vision_kernels, remat)
    return Program(
      _step_name(steps, buckets),
      mesh,
      _lowering(mesh, jitted, state, frozen, batch),
      size,
      steps.step_cost,
      _kernel_flops(size * critic.attention_flops(length), remat)
      + vision_kernels,
    )

  return [program(*bucket) for bucket in buckets.items()]


def _scale(config: TrainCriticConfig) -> Scale:
  questions = config.data.questions
  return read_rubric(questions).scale if questions else LIFT


def sample(config: SampleConfig, devices: Sequence[Any]) -> list[Program]:
  """Text encoder, denoising loop and decoder of `lift sample`."""
  mesh = partitioning.make_mesh(config.mesh, devices)
  model = generator_config.declare_chosen(config.model)
  latents = latent_shape(model, config.video)
  batch_size = config.run.batch_per_shard * partitioning.batch_shards(mesh)
  dtype = jnp.dtype(config.model.compute_dtype)
  rows = functools.partial(_array, sharding=NamedSharding(mesh, P(BATCH_AXES)))
  text_shape = model.text_shape

  def network(name, **options):
    network = model.declare(name, dtype=dtype, **options)
    shardings = partitioning.param_shardings(
      model.networks[name].rules, network.abstract_params, mesh
    )
    return network, _arrays(network.abstract_params, shardings, dtype)

  encoder, encoder_params = network('text_encoder')
  transformer, transformer_params = network(
    'transformer', attention_backend=config.model.attention
  )
  vae, vae_params = network('vae')
  negative = None
  if config.sampler.is_guided:
    negative = _array(text_shape, dtype, NamedSharding(mesh, P()))
  # A plan knows no curve: with a cache it is that of computing every step.
  is_computed = np.ones(
    len(model.schedule.make_steps(config.sampler).index), bool
  )
  passes = config.sampler.passes(is_computed)
  flops = model.flops(model.num_tokens(*latents[:3]))
  return [
    Program(
      'text encoder',
      mesh,
      _lowering(
        mesh,
        programs.embed,
        encoder,
        encoder_params,
        rows((batch_size, text_shape[0]), jnp.int32),
      ),
      batch_size,
      batch_size * model.text_flops(),
      kernel_flops=0.0,
    ),
    Program(
      'denoising',
      mesh,
      _lowering(
        mesh,
        programs.denoise,
        transformer,
        transformer_params,
        model.schedule,
        config.sampler.uncached,
        rows((batch_size, *text_shape), dtype),
        negative,
        latent_shape=latents,
        keys_b2=rows((batch_size, 2), jnp.uint32),
        is_computed=None if config.sampler.cache == 'none' else is_computed,
      ),
      batch_size,
      batch_size * passes * flops.forward,
      batch_size * passes * flops.attention,
    ),
    Program(
      'decoding',
      mesh,
      _lowering(
        mesh,
        programs.decode_latents,
        vae,
        vae_params,
        rows((batch_size, *latents), jnp.float32),
        model.latent_scale,
        config.video.tiling,
      ),
      batch_size,
      # Convolutions are counted in the program.
      model_flops=None,
      kernel_flops=0.0,
    ),
  ]


def score(config: ScoreConfig, devices: Sequence[Any]) -> list[Program]:
  """What rates videos in `lift score`: all questions about each."""
  mesh = partitioning.make_mesh(config.mesh, devices)
  critic = config.frames.of(critic_config.declare_chosen(config.model))
  critic.check_mesh(mesh)
  dtype = jnp.dtype(config.model.compute_dtype)
  model = functional(
    critic.build(dtype=dtype, attention_backend=config.model.attention)
  )
  shardings = partitioning.param_shardings(
    critic.rules, model.abstract_params, mesh
  )
  params = _arrays(model.abstract_params, shardings, dtype)
  if config.run.quantize != quantization.NONE:
    quantization.check_installed(config.run.quantize)
    convert = quantization.quantizer(critic.lora_targets)
    params = param_paths.map_named(convert, params)
  batch_size = config.run.batch_per_shard * partitioning.batch_shards(mesh)
  rubric = read_prompts(config, critic).rubric
  num_questions = len(rubric.dimensions)
  batch_sharding = NamedSharding(mesh, P(BATCH_AXES))
  selection = critic.frames.select(CLIP)
  prefix = selection.num_positions + max(config.prompts.text_buckets)
  frames = _frames(critic, selection, batch_size, batch_sharding)
  rows = functools.partial(_array, sharding=batch_sharding)
  prompts = scorer.Prompts(
    rows((batch_size, prefix), jnp.int32),
    rows((batch_size,), jnp.int32),
    rows((batch_size, num_questions, _QUESTION_LENGTH), jnp.int32),
    rows((batch_size, num_questions), jnp.int32),
  )
  lower = _lowering(
    mesh,
    scorer.rate,
    model,
    params,
    frames,
    prompts,
    # Which tokens they are does not matter to the program.
    label_ids=tuple(
      (label, number) for number, label in enumerate(rubric.labels)
    ),
    max_length=prefix + _QUESTION_LENGTH + config.prompts.max_answer_tokens,
  )
  text_flops = critic.decoder_flops(prefix, 0)
  text_flops += num_questions * critic.decoder_flops(_QUESTION_LENGTH, 1)
  return [
    Program(
      'rating',
      mesh,
      lower,
      batch_size,
      critic.vision_flops(frames) + batch_size * text_flops,
      # Questions are read with `mask_bnm`, which no kernel does.
      batch_size * critic.attention_flops(prefix)
      + critic.vision_attention_flops(frames),
    )
  ]


def _frames(
  critic: Critic,
  selection: Any,
  batch_size: int,
  sharding: jax.sharding.Sharding,
) -> Frames:
  """Frames of a batch of clips."""
  return jax.tree.map(
    lambda leaf: _array((batch_size, *leaf.shape), leaf.dtype, sharding),
    critic.frames.shapes(selection),
  )


def _kernel_flops(forward: float, remat: str, reference: bool = False) -> float:
  """FLOPs of attention in a training step, as a kernel does it.

  Its backward pass has five products in place of two, as the weights are
  computed again. A reference has a forward pass of its own.
  """
  return forward * ((2 if remat == 'full' else 1) + 2.5 + reference)


def _array(shape, dtype, sharding) -> Any:
  """A `jax.ShapeDtypeStruct`, for use where a program takes an array."""
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _arrays(tree, shardings, dtype=None):
  """Shapes of a tree of parameters, in `dtype` or their own type."""
  return jax.tree.map(
    lambda leaf, place: _array(leaf.shape, dtype or leaf.dtype, place),
    tree,
    shardings,
  )


def _state(
  setup: Setup, tx, train, compute_dtype: str
) -> tuple[TrainState, Any]:
  """State and frozen parameters of a run; see `training.setup`."""
  state, places = setup_lib.abstract_state(setup, tx, train.ema_decay > 0)
  _, frozen = setup.split(setup.model.abstract_params)
  _, frozen_places = setup.split(setup.shardings)
  return (
    _arrays(state, places),
    _arrays(frozen, frozen_places, setup.base_dtype(compute_dtype)),
  )


def _lowering(mesh, jitted, *args, **kwargs) -> Callable[[], Any]:
  def lower():
    with jax.set_mesh(mesh):
      return jitted.lower(*args, **kwargs)

  return lower


# The config of each job, and what makes the programs from it.
JOBS: Mapping[str, tuple[type[Any], Callable[..., list[Program]]]] = {
  'align': (AlignConfig, align),
  'train_critic': (TrainCriticConfig, train_critic),
  'sample': (SampleConfig, sample),
  'score': (ScoreConfig, score),
}


def _unit_size(job: str, config: Any) -> int:
  """Examples that a device must have at a time."""
  if job == 'align':
    return UNIT_SIZES[config.objective.chosen.unit]
  return config.losses.unit_size(len(_scale(config).dimensions))


def knobs(job: str, config: Any, mesh: jax.sharding.Mesh) -> list[str]:
  """Settings that would take less memory, the cheapest first."""
  found = []
  if job in ('align', 'train_critic'):
    train = config.train
    if train.remat != 'full':
      found.append(f'train.remat=full: it is {train.remat}')
    shards = partitioning.batch_shards(mesh)
    micro = train.global_batch(mesh.size, shards) // shards // train.grad_accum
    if train.batch_by != CLIPS:
      found.append(
        f'train.batch_by={CLIPS}: batches of cheaper buckets are not larger'
      )
    least = _unit_size(job, config)
    if micro > least:
      parts = train.grad_accum * micro // least
      found.append(
        f'train.grad_accum={parts}: a device works on {micro} rows at a time'
      )
    if train.trainable != 'lora':
      found.append('train.trainable=lora: no moments of the whole network')
    if train.ema_decay > 0:
      found.append('train.ema_decay=0: the average is a copy of what trains')
  elif config.run.batch_per_shard > 1:
    found.append(
      f'run.batch_per_shard={config.run.batch_per_shard // 2}: it is '
      f'{config.run.batch_per_shard}'
    )
  if job == 'score' and config.run.quantize == quantization.NONE:
    found.append('run.quantize=int8: kernels take half as much')
  if job == 'sample' and not config.video.tiling:
    found.append('video.tiling=True: the decoder works on parts of a frame')
  if mesh.shape['data'] > 1:
    found.append(
      f'mesh.fsdp={mesh.shape["fsdp"] * mesh.shape["data"]}, mesh.data=1: '
      'parameters are cut in more parts'
    )
  if job in ('align', 'sample'):
    found.append(
      f'mesh.context={2 * mesh.shape["context"]}: the tokens of a video over '
      'twice as many devices'
    )
  found.append(
    f'mesh.tensor={2 * mesh.shape["tensor"]}: layers over twice as many devices'
  )
  return found
