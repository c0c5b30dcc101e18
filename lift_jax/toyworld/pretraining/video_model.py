"""Pretraining of the toy world's text-to-video model from scratch.

LiFT starts from an imperfect model. This one is trained on clips of which half
are flawed: first the autoencoder, then the text encoder (`text_encoder`), then
the transformer with both frozen. The result is a folder in the published
format. `lift demo --from_scratch` runs it.

The transformer is trained on a curriculum from high to low noise. At the last
timestep the caption is the only information: its meaning is learned there
several times faster than with all timesteps. Then follow the timesteps that
determine shapes, then all; most of the error at low noise is irreducible and
dominates the loss. Flawed clips come last, as flaws slow down learning.

B batch  T frames  H W height and width  F h w those of latents  C channels
S text tokens
"""

import dataclasses
import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.data.hra import DIMENSIONS
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.models import generator_folder, generators
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.models.generators import (
  TOKENIZER,
  RandomModelConfig,
  VideoModel,
  open_model,
)
from lift_jax.runtime.files import atomic_folder
from lift_jax.runtime.progress import Progress
from lift_jax.toyworld import flaws, scenes
from lift_jax.toyworld.pretraining import text_encoder, tokenizer
from lift_jax.toyworld.pretraining.loop import (
  Pretraining,
  StageConfig,
  pretraining,
  train,
)
from lift_jax.training.step import LatentBatch, draw, predict

_CLIP = (9, 32, 32)  # frames, height, width
_ENCODE_BATCH = 32

# Loss of the autoencoder: additional weight per contrast, and the error at
# which the loss changes from quadratic to linear; in units of half the range.
_SHAPE_WEIGHT = 8.0
_SMOOTH = 0.05


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
  """Sizes of the model, its training data and stages.

  Attributes:
    sizes: of the model; its seed is also that of clips and noise, and the
      scaling_factor of its VAE is computed.
    num_clips: size of the training set of VAE and transformer.
    flawed_share: fraction of flawed clips.
    autoencoder: stage of the VAE.
    kl_weight: of the KL divergence of its posterior, per latent value.
    reading: stage of the text encoder.
    draft: of the transformer, at the last timestep, on clips without flaws.
    outline: then at the later half of the timesteps, without flaws.
    clean: then at all timesteps, without flaws.
    diffusion: then with flaws.
    caption_dropout: fraction of captions replaced by the empty one.
    dtype: of the stored weights.
  """

  sizes: RandomModelConfig
  num_clips: int
  flawed_share: float
  autoencoder: StageConfig
  kl_weight: float
  reading: StageConfig
  draft: StageConfig
  outline: StageConfig
  clean: StageConfig
  diffusion: StageConfig
  caption_dropout: float
  dtype: str


def draw_clips(
  num_clips: int, flawed_share: float, seed: int
) -> tuple[np.ndarray, list[str]]:
  """Renders clips of training scenes: uint8 [B, T, H, W, 3] and captions."""
  rng = np.random.default_rng(seed)
  training = scenes.training_scenes()
  frames_bthw3 = np.empty((num_clips, *_CLIP, 3), np.uint8)
  captions = []
  for index in range(num_clips):
    scene = training[rng.integers(len(training))]
    labels = dict.fromkeys(DIMENSIONS, 'Good')
    clip = flaws.draw_clip(scene, rng, labels)
    if rng.random() < flawed_share:
      while set(clip.labels.values()) == {'Good'}:
        clip = flaws.draw_clip(scene, rng)
    frames_bthw3[index] = clip.frames_thw3
    captions.append(clip.caption)
  return frames_bthw3, captions


def make_autoencoder(
  target: pathlib.Path, config: PretrainConfig, logger: logging.Logger
) -> None:
  """Trains the VAE; writes a model folder without the other weights.

  Args:
    target: the folder to write; an existing one is replaced.
    config: of the pretraining.
    logger: for progress.
  """
  frames_bthw3, _ = _draw_clips(config, logger)
  with (
    pretraining(target, config.sizes.seed, logger) as run,
    atomic_folder(target) as partial,
  ):
    tokenizer.write(partial / TOKENIZER)
    model = empty_model(partial, config)
    params = train_autoencoder(model, frames_bthw3, config, run)
    mean_b, _ = encode_all(model, params, frames_bthw3, logger)
    factor = round(1 / float(np.std(mean_b)), 5)
    logger.info('pretrain: scaling factor of latents: %g', factor)
    vae = dataclasses.replace(model.vae, scaling_factor=factor)
    model = dataclasses.replace(model, vae=vae)
    generator_folder.write_configs(model, partial)
    generator_folder.save_network(model, 'vae', params, partial, config.dtype)


def make_model(
  target: pathlib.Path,
  autoencoder: pathlib.Path,
  config: PretrainConfig,
  logger: logging.Logger,
) -> None:
  """Trains text encoder and transformer; writes the full model.

  Args:
    target: the folder to write, in the published format; an existing one is
      replaced.
    autoencoder: the folder that `make_autoencoder` wrote.
    config: of the pretraining.
    logger: for progress.
  """
  model = open_model(autoencoder)
  vae_params = model.load('vae', model.declare('vae'), None, jnp.float32)
  clean, flawed = (
    (*encode_all(model, vae_params, frames, logger), _tokens(model, captions))
    for frames, captions in (
      draw_clips(config.num_clips, 0.0, config.sizes.seed + 1),
      _draw_clips(config, logger),
    )
  )
  last = _num_timesteps(model) - 1
  with (
    pretraining(target, config.sizes.seed, logger) as run,
    atomic_folder(target) as partial,
  ):
    text_params = train_text_encoder(model, config, run)
    params = _init(model.declare('transformer'), config.sizes.seed + 2)
    for stage, data, first_timestep in (
      ('draft', clean, last),
      ('outline', clean, last // 2),
      ('clean', clean, 0),
      ('diffusion', flawed, 0),
    ):
      params = train_transformer(
        model, params, text_params, data, config, stage, first_timestep, run
      )
    tokenizer.write(partial / TOKENIZER)
    generator_folder.write_configs(model, partial)
    for network, weights in {
      'vae': vae_params,
      'text_encoder': text_params,
      'transformer': params,
    }.items():
      generator_folder.save_network(
        model, network, weights, partial, config.dtype
      )


def _draw_clips(
  config: PretrainConfig, logger: logging.Logger
) -> tuple[np.ndarray, list[str]]:
  logger.info('pretrain: rendering %d clips', config.num_clips)
  return draw_clips(config.num_clips, config.flawed_share, config.sizes.seed)


def empty_model(path: pathlib.Path, config: PretrainConfig) -> VideoModel:
  """A model without weights, with the index of its folder."""
  model = generators.from_sizes(config.sizes, path=path)
  tokenizer_class = {'tokenizer': ['transformers', 'PreTrainedTokenizerFast']}
  return dataclasses.replace(model, index={**model.index, **tokenizer_class})


def _init(network: FunctionalModel, seed: int) -> Params:
  return network.init(jax.random.key(seed))


def train_autoencoder(
  model: VideoModel,
  frames_bthw3: np.ndarray,
  config: PretrainConfig,
  run: Pretraining,
) -> Params:
  """Trains the VAE; returns its parameters, fp32.

  The reconstruction loss is a smooth absolute error, as with squared errors
  edges stay blurred. Pixels that differ from the mean colour of the clip have a
  higher weight, as shapes cover only a twentieth of the image.
  """
  network = model.declare('vae')
  params = _init(network, config.sizes.seed)

  def loss_fn(params, frames_bthw3, key):
    video = frames_bthw3.astype(jnp.float32) / 127.5 - 1
    mean, logvar = network(params, video, method='encode')
    noise = jax.random.normal(key, mean.shape)
    latents = mean + jnp.exp(0.5 * logvar) * noise
    decoded = network(params, latents, method='decode')
    difference = jnp.abs(decoded - video)
    contrast = jnp.abs(video - jnp.mean(video, (1, 2, 3), keepdims=True))
    weight = 1 + _SHAPE_WEIGHT * jnp.max(contrast, axis=-1, keepdims=True)
    smooth = jnp.sqrt(difference**2 + _SMOOTH**2) - _SMOOTH
    error = jnp.mean(weight / jnp.mean(weight) * smooth)
    divergence = 0.5 * jnp.mean(mean**2 + jnp.exp(logvar) - 1 - logvar)
    return error + config.kl_weight * divergence, {
      'levels of 255': 127.5 * jnp.mean(difference),
      'weighted': 127.5 * jnp.mean(weight / jnp.mean(weight) * difference),
      'divergence': divergence,
    }

  return train(
    'autoencoder',
    params,
    loss_fn,
    lambda indices, _: (frames_bthw3[indices],),
    len(frames_bthw3),
    config.autoencoder,
    run,
  )


def encode_all(
  model: VideoModel,
  params: Params,
  frames_bthw3: np.ndarray,
  logger: logging.Logger,
) -> tuple[np.ndarray, np.ndarray]:
  """Posterior mean and log variance of all clips, fp32 [B, F, h, w, C]."""
  network = model.declare('vae')

  @jax.jit
  def encode(params, frames_bthw3):
    video = frames_bthw3.astype(jnp.float32) / 127.5 - 1
    return tuple(network(params, video, method='encode'))

  parts = []
  with Progress(len(frames_bthw3), 'clip', logger=logger) as progress:
    for start in range(0, len(frames_bthw3), _ENCODE_BATCH):
      batch = frames_bthw3[start : start + _ENCODE_BATCH]
      parts.append(jax.tree.map(np.asarray, encode(params, batch)))
      progress.update(len(batch))
  mean_b, logvar_b = zip(*parts, strict=True)
  return np.concatenate(mean_b), np.concatenate(logvar_b)


def train_text_encoder(
  model: VideoModel, config: PretrainConfig, run: Pretraining
) -> Params:
  """Trains the text encoder; returns its parameters, fp32."""
  network = model.declare('text_encoder')
  training = scenes.training_scenes()
  tokens_bs = _tokens(model, [scene.caption for scene in training])
  params = _init(network, config.sizes.seed + 1)
  return text_encoder.train_text_encoder(
    network, params, training, tokens_bs, config.reading, run
  )


def _tokens(model: VideoModel, captions: list[str]) -> np.ndarray:
  """int32 [B, S]."""
  return model.load_tokenizer()(captions)[0]


def train_transformer(
  model: VideoModel,
  params: Params,
  text_params: Params,
  data: tuple[np.ndarray, np.ndarray, np.ndarray],
  config: PretrainConfig,
  stage: str,
  first_timestep: int,
  run: Pretraining,
) -> Params:
  """Trains the transformer in one stage; returns its parameters, fp32.

  Args:
    model: the model.
    params: initial parameters, donated.
    text_params: of the text encoder.
    data: posterior mean and log variance [B, F, h, w, C], tokens [B, S].
    config: of the pretraining.
    stage: the field of `config` with the settings of the stage.
    first_timestep: the first of the timesteps, which are sampled uniformly.
    run: the pretraining that it is a stage of.
  """
  network, text_encoder = map(model.declare, ('transformer', 'text_encoder'))
  num_timesteps = _num_timesteps(model)
  null_tokens = _tokens(model, [''])

  # The first timestep is an argument, so that stages can share a program.
  def loss_fn(params, first_timestep, mean, logvar, tokens_bs, key):
    tokens_bs = jnp.concatenate([tokens_bs, null_tokens])
    text_bsd = text_encoder(text_params, tokens_bs)
    batch = LatentBatch(mean, logvar, text_bsd[:-1], columns={})
    draws = draw(key, batch, model.schedule, config.caption_dropout)
    timesteps = later(draws.timesteps, first_timestep, num_timesteps)
    draws = draws._replace(timesteps=timesteps)
    predictions = predict(
      network,
      model.schedule,
      model.latent_scale,
      params,
      batch,
      draws,
      text_bsd[-1],
    )
    return jnp.mean(predictions.errors()['error']), {}

  return train(
    stage,
    params,
    loss_fn,
    lambda indices, _: (
      np.int32(first_timestep),
      *(array[indices] for array in data),
    ),
    len(data[2]),
    getattr(config, stage),
    run,
  )


def _num_timesteps(model: VideoModel) -> int:
  """Timesteps of the toy model's schedule, which are numbered."""
  assert isinstance(model.schedule, ScheduleConfig)
  return model.schedule.num_train_timesteps


def later(
  timesteps: jax.Array, first: int | jax.Array, count: int
) -> jax.Array:
  """Maps uniform timesteps in [0, count) to uniform ones in [first, count)."""
  return first + timesteps * (count - first) // count
