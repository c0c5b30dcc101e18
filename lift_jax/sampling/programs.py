"""Compiled programs of sampling: embed texts, denoise latents, decode videos.

They are separate programs, so that the networks need not be in memory together;
each is compiled once per shape. Under a mesh (`jax.set_mesh`) `embed` and
`denoise` shard clips over 'data' and 'fsdp', and `decode_latents` shards them
over all devices if the batch size allows it.

B clips  F latent frames  h w height and width in latents  C channels  S text
tokens  D width of their embeddings  N steps  T H W frames, height and width of
videos
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lift_jax.diffusion import guidance, sampler
from lift_jax.diffusion.sampler import SamplerConfig, Steps
from lift_jax.diffusion.schedule import Schedule
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.models.latents import LatentScale
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
  is_computed: jax.Array | None = None,
) -> jax.Array:
  """Scaled latents [B, F, h, w, C] in fp32.

  Noise is sampled from the keys unless it is given as an array.

  Args:
    model: the transformer; pass the same object for the same program.
    params: its parameters.
    schedule: the noise schedule that it was trained with.
    config: settings of the sampler; those of its cache are not read.
    text_bsd: text embeddings [B, S, D].
    negative_text_sd: embeddings of the negative prompt [S, D]; ignored if
      `config` has no guidance.
    latent_shape: (F, h, w, C).
    keys_b2: uint32 [B, 2], see `sampler.clip_keys`.
    initial_noise: [B, F, h, w, C].
    step_noise: noise of a stochastic sampler [N, B, F, h, w, C].
    is_computed: which steps run the transformer's blocks, bool [N]; None for
      all. The others reuse what the blocks added to the tokens.

  Raises:
    ValueError: an argument that `config` needs is missing, or has another
      shape.
  """

  def network(x_bfhwc, text_bsd, t_b, step, residual):
    inputs = constrain(x_bfhwc, BATCH), text_bsd, t_b
    if residual is None:
      prediction = model(params, *inputs)
    else:
      prediction, residual = model(
        params, *inputs, step.is_computed, residual, method='cached'
      )
    return constrain(prediction, BATCH), residual

  def no_residual(shape):
    if is_computed is None:
      return None
    return model(params, shape, method='no_residual')

  steps = schedule.make_steps(config)
  _check_shape('is_computed', is_computed, steps.index.shape)
  latents_bfhwc, _ = _run_sampler(
    network,
    no_residual,
    steps._replace(is_computed=is_computed),
    config,
    text_bsd,
    negative_text_sd,
    latent_shape,
    keys_b2,
    initial_noise,
    step_noise,
  )
  return latents_bfhwc


class StepChanges(NamedTuple):
  """How much the transformer changes from each step to the next, fp32.

  Attributes:
    residual_kn: MagCache's ratio of residuals for each guidance branch, the
      negative one first; without guidance, for the only one. 1 where there is
      no step before.
    output_n: mean |v_i - v_(i-1)| / mean |v_(i-1)| of the predictions of both
      branches, 0 where there is no step before.
    time_n: the same of time embeddings.
  """

  residual_kn: jax.Array
  output_n: jax.Array
  time_n: jax.Array


class _Measured(NamedTuple):
  """Of the step before: residual and prediction; of all so far: changes."""

  residual_bnd: jax.Array
  prediction_bfhwc: jax.Array
  ratio_kn: jax.Array
  output_n: jax.Array


@functools.partial(
  jax.jit, static_argnames=('model', 'schedule', 'config', 'latent_shape')
)
def measure_steps(
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
) -> StepChanges:
  """Denoises clips, and measures what a step cache needs to know.

  Args: as of `denoise`.
  """
  num_clips, num_branches = len(text_bsd), 2 if config.is_guided else 1
  steps = schedule.make_steps(config)
  starts = [part.start for part, _ in config.phases(len(steps.index))]

  def network(x_bfhwc, text_bsd, t_b, step, before):
    prediction, residual_bnd = model(
      params, constrain(x_bfhwc, BATCH), text_bsd, t_b, True,
      before.residual_bnd, method='cached',
    )  # fmt: skip
    is_start = jnp.isin(step.index, jnp.array(starts))
    num_text = text_bsd.shape[1]
    lengths_bn, before_bn = (
      jnp.linalg.norm(x_bnd[:, num_text:].astype(jnp.float32), axis=-1)
      for x_bnd in (residual_bnd, before.residual_bnd)
    )
    ratio_b = jnp.mean(lengths_bn / (before_bn + 1e-8), axis=1)
    # Without guidance in this phase, the only branch counts for both.
    ratio_k = ratio_b.reshape(num_clips, -1).mean(axis=0)
    change = _mean_size(
      prediction.astype(jnp.float32) - before.prediction_bfhwc
    ) / _mean_size(before.prediction_bfhwc)
    column = (slice(None), step.index)
    return prediction, _Measured(
      residual_bnd,
      prediction.astype(jnp.float32),
      before.ratio_kn.at[column].set(jnp.where(is_start, 1.0, ratio_k)),
      before.output_n.at[step.index].set(jnp.where(is_start, 0.0, change)),
    )

  def nothing(shape):
    num_steps = len(steps.index)
    return _Measured(
      model(params, shape, method='no_residual'),
      jnp.zeros(shape),
      jnp.ones((num_branches, num_steps)),
      jnp.zeros(num_steps),
    )

  _, measured = _run_sampler(
    network, nothing, steps, config, text_bsd, negative_text_sd, latent_shape,
    keys_b2, initial_noise, step_noise,
  )  # fmt: skip
  # Each phase has filled in its own steps; the others are 1 or 0.
  ratio_kn = jnp.prod(jnp.stack([m.ratio_kn for m in measured]), axis=0)
  output_n = jnp.sum(jnp.stack([m.output_n for m in measured]), axis=0)
  time_nt = model(params, jnp.asarray(steps.timestep), method='embed_time')
  return StepChanges(ratio_kn, output_n, _relative_changes(time_nt))


def _mean_size(x: jax.Array) -> jax.Array:
  return jnp.mean(jnp.abs(x))


def _relative_changes(x_nt: jax.Array) -> jax.Array:
  x_nt = x_nt.astype(jnp.float32)
  before_n = jnp.mean(jnp.abs(x_nt[:-1]), axis=1)
  changes_n = jnp.mean(jnp.abs(jnp.diff(x_nt, axis=0)), axis=1) / before_n
  return jnp.concatenate([jnp.zeros(1), changes_n])


def _check_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
  if array is not None and array.shape != shape:
    raise ValueError(f'{name} has shape {array.shape}, not {shape}')


def _run_sampler(
  network: Callable[..., tuple[jax.Array, Any]],
  make_cache: Callable[[tuple[int, ...]], Any],
  steps: Steps,
  config: SamplerConfig,
  text_bsd: jax.Array,
  negative_text_sd: jax.Array | None,
  latent_shape: tuple[int, int, int, int],
  keys_b2: jax.Array | None,
  initial_noise: jax.Array | None = None,
  step_noise: jax.Array | None = None,
) -> tuple[jax.Array, list[Any]]:
  """Latents, and the cache at the end of each phase.

  Args:
    network: see `guidance.guided`.
    make_cache: makes the cache for the first step of a phase, from the shape of
      the latents that the network gets.
    steps: of the sampler.
    config: see `denoise`, like the rest.
    text_bsd: text embeddings.
    negative_text_sd: embeddings of the negative prompt.
    latent_shape: of a clip.
    keys_b2: keys of clips.
    initial_noise: noise of the first step.
    step_noise: noise of all steps.
  """
  clips_shape = (text_bsd.shape[0], *latent_shape)
  draws_noise = config.is_stochastic and step_noise is None
  if keys_b2 is None and (initial_noise is None or draws_noise):
    raise ValueError('give keys, or all noises')
  if config.is_guided and negative_text_sd is None:
    raise ValueError('guidance needs the embeddings of a negative prompt')
  _check_shape('initial_noise', initial_noise, clips_shape)
  _check_shape('step_noise', step_noise, (len(steps.index), *clips_shape))

  def drawn_noise(index):
    assert keys_b2 is not None  # else all noises are given, as checked above
    return sampler.clip_noise(keys_b2, index, latent_shape)

  def draw(index):
    if step_noise is not None:
      return step_noise[index]
    return drawn_noise(index + 1)

  if initial_noise is None:
    initial_noise = drawn_noise(0)
  phases = []
  for part, is_guided in config.phases(len(steps.index)):
    branches = 2 if is_guided else 1
    phases.append(
      sampler.Phase(
        guidance.guided(
          network, text_bsd, negative_text_sd if is_guided else None
        ),
        jax.tree.map(lambda column, part=part: column[part], steps),
        make_cache((branches * clips_shape[0], *latent_shape)),
      )
    )
  return sampler.sample(
    phases,
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
