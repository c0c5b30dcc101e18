"""The programs of `lift sample` and `lift score`.

They are the very functions that the jobs call, on the mesh and with the layout
of the job's config; nothing is loaded and nothing allocated.
"""

from collections.abc import Sequence
import functools
from typing import Any

import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from lift_jax import partitioning
from lift_jax.jobs.sample import SampleConfig
from lift_jax.jobs.score import ScoreConfig, read_prompts
from lift_jax.models import critic_config, generator_config, quantization
from lift_jax.models.functional import functional
from lift_jax.partitioning import BATCH_AXES
from lift_jax.planning.arguments import CLIP, array, arrays, frames_of, lowering
from lift_jax.planning.report import Program
from lift_jax.sampling import programs
from lift_jax.sampling.sizes import latent_shape
from lift_jax.scoring import scorer
from lift_jax.weights import param_paths

# Tokens of a question and its label behind the caption: what LiFT's questions
# take, rounded up.
_QUESTION_LENGTH = 64


def sample(config: SampleConfig, devices: Sequence[Any]) -> list[Program]:
  """Text encoder, denoising loop and decoder of `lift sample`."""
  mesh = partitioning.make_mesh(config.mesh, devices)
  model = generator_config.declare_chosen(config.model)
  latents = latent_shape(model, config.video)
  batch_size = config.run.batch_per_shard * partitioning.batch_shards(mesh)
  dtype = jnp.dtype(config.model.compute_dtype)
  rows = functools.partial(array, sharding=NamedSharding(mesh, P(BATCH_AXES)))
  text_shape = model.text_shape

  def network(name, **options):
    network = model.declare(name, dtype=dtype, **options)
    shardings = partitioning.param_shardings(
      model.networks[name].rules, network.abstract_params, mesh
    )
    return network, arrays(network.abstract_params, shardings, dtype)

  encoder, encoder_params = network('text_encoder')
  transformer, transformer_params = network(
    'transformer', attention_backend=config.model.attention
  )
  vae, vae_params = network('vae')
  negative = None
  if config.sampler.is_guided:
    negative = array(text_shape, dtype, NamedSharding(mesh, P()))
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
      lowering(
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
      lowering(
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
      lowering(
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
  params = arrays(model.abstract_params, shardings, dtype)
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
  frames = frames_of(critic, selection, batch_size, batch_sharding)
  rows = functools.partial(array, sharding=batch_sharding)
  prompts = scorer.Prompts(
    rows((batch_size, prefix), jnp.int32),
    rows((batch_size,), jnp.int32),
    rows((batch_size, num_questions, _QUESTION_LENGTH), jnp.int32),
    rows((batch_size, num_questions), jnp.int32),
  )
  lower = lowering(
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
