"""The two sides of benchmarks/cpu.py: a training step of ours, and of torch."""

from collections.abc import Callable
import dataclasses
import pathlib

import jax
import numpy as np

from lift_jax.data import global_batch
from lift_jax.data.cache import Bucket
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.functional import Params
from lift_jax.models.generators import LatentScale
from lift_jax.runtime import distributed
from lift_jax.training import loop
from lift_jax.training import setup as setup_lib
from lift_jax.training.objectives.reward_weighted import RewardWeighted
from lift_jax.training.optimizer import (
  OptimizerConfig,
  learning_rate_schedule,
  make_optimizer,
)
from lift_jax.training.state import TrainState
from lift_jax.training.step import (
  Draws,
  LatentBatch,
  StepConfig,
  draw,
  make_train_step,
)

# A batch on its way from the cache, by the names of the pipeline.
Arrays = dict[str, np.ndarray]

# LiFT's, as in configs/align_cogvideox_2b.py, but for the warm-up: the first
# step would have a learning rate of 0.
OPTIMIZER = OptimizerConfig(
  learning_rate=1e-5,
  warmup_steps=0,
  cycles=1,
  beta1=0.9,
  beta2=0.95,
  eps=1e-8,
  weight_decay=1e-4,
  clip_norm=1.0,
)
NUM_STEPS = 18_800  # of LiFT's training; sets the learning rate alone
SCHEDULE = ScheduleConfig()
OBJECTIVE = RewardWeighted(real_weight=1.0)
STEP = StepConfig(
  latent_scale=LatentScale(VAEConfig().scaling_factor),
  caption_dropout=0.0,
  grad_accum=1,
  ema_decay=0.0,
)


@dataclasses.dataclass(frozen=True)
class Size:
  """What is measured.

  Attributes:
    transformer: its sizes; those of a sample are those of the clips, so that
      diffusers makes its table of positions once, before the clock.
    latents: frames, rows and columns of a clip.
    batch_size: videos of a step.
    num_videos: in the cache.
    reading_seconds: how long batches are read for.
  """

  transformer: TransformerConfig
  latents: Bucket
  batch_size: int
  num_videos: int
  reading_seconds: float


def text_shape(config: TransformerConfig) -> tuple[int, int]:
  return config.max_text_length, config.text_embed_dim


def to_batch(size: Size, setup: setup_lib.Setup, arrays) -> LatentBatch:
  """On the device, as `lift align` puts it there."""
  return LatentBatch.of(
    global_batch.to_global(arrays, size.batch_size, setup.batch_sharding),
    OBJECTIVE,
  )


def make_params(setup: setup_lib.Setup) -> Params:
  """Random parameters, biases too, so that a wrong one shows in the loss."""
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda x: x + 0.02 * rng.standard_normal(x.shape, np.float32),
    jax.device_get(jax.jit(setup.model.init)(jax.random.key(0))),
  )
  return jax.device_put(params, setup.shardings)


class Ours:
  """The step of `lift align`."""

  def __init__(self, size: Size, setup: setup_lib.Setup, params: Params):
    tx = make_optimizer(OPTIMIZER, NUM_STEPS)
    trainable, self._frozen = setup.split(params)
    _, shardings = setup_lib.abstract_state(setup, tx, with_ema=False)
    self._state = jax.jit(
      lambda params: TrainState.create(params, tx, with_ema=False),
      out_shardings=shardings,
    )(trainable)
    self._size, self._setup = size, setup
    self._key = jax.device_put(jax.random.key(0), setup.replicated)
    self._null_text = jax.device_put(
      np.zeros(text_shape(size.transformer), np.float32), setup.replicated
    )
    step = make_train_step(setup.model, SCHEDULE, tx, OBJECTIVE, STEP)
    self._steps = loop.CompiledSteps(
      loop.jit_step(step, self._state),
      lambda batch: 'latents ' + 'x'.join(map(str, batch.mean.shape)),
      distributed.start_logging(),
    )

  def draws(self, number: int, arrays: Arrays) -> Draws:
    """What the step of this number draws."""
    return jax.device_get(
      draw(
        jax.random.fold_in(self._key, number),
        LatentBatch.of(arrays, OBJECTIVE),
        SCHEDULE,
        STEP.caption_dropout,
      )
    )

  def make_step(
    self, number: int, arrays: Arrays, draws: Draws
  ) -> Callable[[], tuple[float, float]]:
    """What makes one step and returns its loss and gradient norm."""
    del number, draws  # the state knows the first, and from it the others
    batch = to_batch(self._size, self._setup, arrays)
    jax.block_until_ready(batch)

    def step() -> tuple[float, float]:
      self._state, metrics = self._steps(
        self._state, self._frozen, batch, self._null_text, self._key, {}
      )
      jax.block_until_ready((self._state, metrics))
      return float(metrics['loss']), float(metrics['grad_norm'])

    return step


class Torch:
  """LiFT's step as its reference writes it, on the transformer of diffusers.

    loss = reward * mean (x0_hat - x0)^2 / (1 - a)

  Only the blocks train, and gradients of nothing else are computed.
  """

  def __init__(self, folder: pathlib.Path, threads: int):
    import diffusers
    import torch

    torch.set_num_threads(threads)
    self._torch = torch
    self._module = diffusers.CogVideoXTransformer3DModel.from_pretrained(
      folder, use_safetensors=True, local_files_only=True
    ).train()
    self._scheduler = diffusers.CogVideoXDDIMScheduler.from_config(
      SCHEDULE.to_json()
    )
    self._trained = []
    for name, parameter in self._module.named_parameters():
      is_trained = name.startswith('transformer_blocks.')
      parameter.requires_grad_(is_trained)
      if is_trained:
        self._trained.append(parameter)
    self._rate = learning_rate_schedule(OPTIMIZER, NUM_STEPS)
    self._optimizer = torch.optim.AdamW(
      self._trained,
      lr=OPTIMIZER.learning_rate,
      betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
      eps=OPTIMIZER.eps,
      weight_decay=OPTIMIZER.weight_decay,
    )

  def make_step(
    self, number: int, arrays: Arrays, draws: Draws
  ) -> Callable[[], tuple[float, float]]:
    """What makes one step and returns its loss and gradient norm."""
    video = lambda x: self._tensor(np.moveaxis(x, -1, 2))  # noqa: E731
    mean, logvar = video(arrays['mean']), video(arrays['logvar'])
    posterior, noise = video(draws.posterior), video(draws.noise)
    text, reward = self._tensor(arrays['text']), self._tensor(arrays['reward'])
    t = self._tensor(draws.timesteps).long()
    for group in self._optimizer.param_groups:
      group['lr'] = float(self._rate(number))

    def step() -> tuple[float, float]:
      x0 = STEP.latent_scale.factor * (mean + (0.5 * logvar).exp() * posterior)
      loss = self._loss(x0, noise, text, reward, t)
      loss.backward()
      norm = self._torch.nn.utils.clip_grad_norm_(
        self._trained, OPTIMIZER.clip_norm
      )
      self._optimizer.step()
      self._optimizer.zero_grad()
      return loss.item(), norm.item()

    return step

  def _tensor(self, array):
    return self._torch.tensor(np.ascontiguousarray(array))

  def _loss(self, x0, noise, text, reward, t):
    noisy = self._scheduler.add_noise(x0, noise, t)
    velocity = self._module(noisy, text, t, return_dict=False)[0]
    # The velocity of a velocity: sqrt(a) x_t - sqrt(1 - a) v = x0_hat.
    x0_hat = self._scheduler.get_velocity(velocity, noisy, t)
    weight = reward / (1 - self._scheduler.alphas_cumprod[t])
    return (weight * ((x0_hat - x0) ** 2).flatten(1).mean(1)).mean()
