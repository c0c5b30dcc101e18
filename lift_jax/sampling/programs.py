"""Compiled programs of sampling: embed texts, denoise latents, decode videos.

They are separate programs, so that the networks need not be in memory together;
each is compiled once per shape. Under a mesh (`jax.set_mesh`) `embed` and
`denoise` shard clips over 'data' and 'fsdp', and `decode_latents` shards them
over all devices if the batch size allows it.

B clips  F latent frames  h w height and width in latents  C channels  S text
tokens  D width of their embeddings  N steps  T H W frames, height and width of
videos
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lift_jax.diffusion import guidance, sampler
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.diffusion.schedule import Schedule
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.models.generators import LatentScale
from lift_jax.partitioning import AXES, BATCH, BATCH_AXES, constrain


@functools.partial(jax.jit, static_argnames='model')
def embed(
  model: FunctionalModel, params: Params, tokens_bs: jax.Array
) -> jax.Array:
  """Text embeddings [B, S, D] in the dtype of the computation.

  Args:
    model: the text encoder; pass the same object for the same program.
    params: its parameters.
    tokens_bs: ids int32 [B, S].
  """
  return constrain(model(params, constrain(tokens_bs, BATCH)), BATCH)


@functools.partial(
  jax.jit, static_argnames=('model', 'schedule', 'config', 'latent_shape')
)
def denoise(
  model: FunctionalModel,
  params: Params,
  schedule: Schedule,
  config: SamplerConfig,
  text_bsd: jax.Array,
  negative_text_sd: jax.Array | None = None,
  *,
  latent_shape: tuple[int, int, int, int],
  keys_b2: jax.Array | None = None,
  initial_noise: jax.Array | None = None,
  step_noise: jax.Array | None = None,
) -> jax.Array:
  """Scaled latents [B, F, h, w, C] in fp32.

  Noise is sampled from the keys unless it is given as an array.

  Args:
    model: the transformer; pass the same object for the same program.
    params: its parameters.
    schedule: the noise schedule that it was trained with.
    config: settings of the sampler.
    text_bsd: text embeddings [B, S, D].
    negative_text_sd: embeddings of the negative prompt [S, D]; ignored if
      `config` has no guidance.
    latent_shape: (F, h, w, C).
    keys_b2: uint32 [B, 2], see `sampler.clip_keys`.
    initial_noise: [B, F, h, w, C].
    step_noise: noise of a stochastic sampler [N, B, F, h, w, C].

  Raises:
    ValueError: an argument that `config` needs is missing, or has another
      shape.
  """
  clips_shape = (text_bsd.shape[0], *latent_shape)
  steps = schedule.make_steps(config)
  draws_noise = config.is_stochastic and step_noise is None
  if keys_b2 is None and (initial_noise is None or draws_noise):
    raise ValueError('give keys, or all noises')
  if config.is_guided and negative_text_sd is None:
    raise ValueError('guidance needs the embeddings of a negative prompt')
  steps_shape = (len(steps.index), *clips_shape)
  for name, noise, shape in (
    ('initial_noise', initial_noise, clips_shape),
    ('step_noise', step_noise, steps_shape),
  ):
    if noise is not None and noise.shape != shape:
      raise ValueError(f'{name} has shape {noise.shape}, not {shape}')

  def network(x_bfhwc, text_bsd, t_b):
    prediction = model(params, constrain(x_bfhwc, BATCH), text_bsd, t_b)
    return constrain(prediction, BATCH)

  def drawn_noise(index):
    assert keys_b2 is not None  # else all noises are given, as checked above
    return sampler.clip_noise(keys_b2, index, latent_shape)

  def draw(index):
    if step_noise is not None:
      return step_noise[index]
    return drawn_noise(index + 1)

  if initial_noise is None:
    initial_noise = drawn_noise(0)
  return sampler.sample(
    guidance.guided(
      network, text_bsd, negative_text_sd if config.is_guided else None
    ),
    steps,
    constrain(initial_noise, BATCH),
    draw if config.is_stochastic else None,
    config.carry_dtype,
  )


@functools.partial(jax.jit, static_argnames=('vae', 'scale', 'tiling'))
def decode_latents(
  vae: FunctionalModel,
  params: Params,
  latents_bfhwc: jax.Array,
  scale: LatentScale,
  tiling: bool,
) -> jax.Array:
  """Videos uint8 [B, T, H, W, 3] of scaled latents.

  Each device decodes its clips in sequence, so that only the results take more
  memory with a larger batch.

  Args:
    vae: the autoencoder; pass the same object for the same program.
    params: its parameters, replicated on each device.
    latents_bfhwc: [B, F, h, w, C]; under a mesh B is a multiple of 'data' times
      'fsdp', and all devices take part if it is one of the mesh size.
    scale: normalisation of the latents.
    tiling: whether the autoencoder works in tiles.
  """

  def decode_one(latents_fhwc, params):
    latents = scale.denormalize(latents_fhwc[None].astype(jnp.float32))
    video = vae(params, latents, method='decode', tiling=tiling)[0]
    # [-1, 1] to [0, 255], as the published pipelines write frames.
    video = jnp.clip(video.astype(jnp.float32) / 2 + 0.5, 0, 1)
    return jnp.round(video * 255).astype(jnp.uint8)

  def decode_all(params, latents_bfhwc):
    return jax.lax.map(lambda x: decode_one(x, params), latents_bfhwc)

  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return decode_all(params, latents_bfhwc)
  axes = AXES if latents_bfhwc.shape[0] % mesh.size == 0 else BATCH_AXES
  return jax.shard_map(
    decode_all,
    mesh=mesh,
    in_specs=(P(), P(axes)),
    out_specs=P(axes),
    check_vma=False,
  )(params, latents_bfhwc)
