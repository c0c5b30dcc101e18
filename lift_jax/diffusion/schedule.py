"""Noise schedules: noisy latents, prediction targets, sampling steps.

For CogVideoX, with a = alpha-bar(t) and eps ~ N(0, 1):

  x_t = sqrt(a) x0 + sqrt(1 - a) eps         (noisy latents)
  v   = sqrt(a) eps - sqrt(1 - a) x0         (velocity, what the model predicts)
  x0  = sqrt(a) x_t - sqrt(1 - a) v

`a` decreases from nearly 1 at t = 0 to exactly 0 at the last timestep, which is
pure noise.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import config_lib
from lift_jax.diffusion.sampler import (
  SPACINGS,
  SamplerConfig,
  Steps,
  spaced_timesteps,
  velocity_steps,
)
from lift_jax.errors import UserError
from lift_jax.weights.published_config import PublishedConfig


class Schedule(Protocol):
  """Interface of noise schedules; hashable, as compiled programs depend on it.

  Timesteps are integers or floats, as the network takes them. B examples.
  """

  def draw_timesteps(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Samples timesteps for training."""

  def add_noise(self, x0, noise, t_b) -> jax.Array:
    """Noisy latents; t_b is [B], the others are fp32 [B, ...]."""

  def target(self, x0, noise, t_b) -> jax.Array:
    """Target of the network's prediction for these noisy latents."""

  def x0_error_scale(self, t_b) -> jax.Array:
    """Error of the predicted x0 over error of the prediction, [B], positive."""

  def make_steps(self, config: SamplerConfig) -> Steps:
    """The coefficients of a sampler.

    Raises:
      UserError: the schedule does not support the sampler or number of steps.
    """

  def to_json(self) -> dict[str, Any]:
    """The published scheduler_config.json."""


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
  """CogVideoX's schedule with v-prediction; the defaults are those of 2B.

  Attributes:
    num_train_timesteps: number of timesteps.
    beta_start: first beta of the scaled linear schedule.
    beta_end: last beta.
    snr_shift_scale: divides the signal-to-noise ratio: 3 for 2B, 1 for 5B.
    timestep_spacing: of samplers; one of `sampler.SPACINGS`.
    steps_offset: see `sampler.spaced_timesteps`.
    set_alpha_to_one: whether the last step of a sampler goes to clean latents;
      otherwise to alpha-bar(0).
  """

  num_train_timesteps: int = 1000
  beta_start: float = 0.00085
  beta_end: float = 0.012
  snr_shift_scale: float = 3.0
  timestep_spacing: str = 'trailing'
  steps_offset: int = 0
  set_alpha_to_one: bool = True

  def __post_init__(self):
    config_lib.check_choice('timestep_spacing', self.timestep_spacing, SPACINGS)
    for name in ('beta_start', 'beta_end'):
      if not 0 < (beta := getattr(self, name)) < 1:
        raise UserError(f'{name} is {beta}; give a number between 0 and 1')
    if self.num_train_timesteps < 2:
      raise UserError(
        f'num_train_timesteps is {self.num_train_timesteps}; give at least 2'
      )

  def draw_timesteps(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.randint(key, shape, 0, self.num_train_timesteps)

  def add_noise(self, x0, noise, t_b) -> jax.Array:
    """x_t = sqrt(a) x0 + sqrt(1 - a) noise."""
    signal_rate, noise_rate = self._rates(t_b, x0.ndim)
    return signal_rate * x0 + noise_rate * noise

  def target(self, x0, noise, t_b) -> jax.Array:
    """v = sqrt(a) noise - sqrt(1 - a) x0."""
    signal_rate, noise_rate = self._rates(t_b, x0.ndim)
    return signal_rate * noise - noise_rate * x0

  def x0_error_scale(self, t_b) -> jax.Array:
    """sqrt(1 - a), as x0(v) = sqrt(a) x_t - sqrt(1 - a) v."""
    _, noise_rate = self._tables
    return jnp.asarray(noise_rate)[t_b]

  def make_steps(self, config: SamplerConfig) -> Steps:
    t = spaced_timesteps(
      self.timestep_spacing,
      config.num_steps,
      self.num_train_timesteps,
      self.steps_offset,
      reference=config.reference,
    )
    final = 1.0 if self.set_alpha_to_one else alpha_bars(self)[0]
    return velocity_steps(alpha_bars(self), t, final, config)

  @functools.cached_property
  def _tables(self) -> tuple[np.ndarray, np.ndarray]:
    """sqrt(a) and sqrt(1 - a) in fp32, rounded once from float64."""
    a = alpha_bars(self)
    return np.sqrt(a).astype(np.float32), np.sqrt(1.0 - a).astype(np.float32)

  def _rates(self, t_b: jax.Array, rank: int):
    shape = (-1,) + (1,) * (rank - 1)
    return (jnp.asarray(table)[t_b].reshape(shape) for table in self._tables)

  @classmethod
  def from_json(cls, published: Mapping[str, Any]) -> Self:
    """Reads scheduler/scheduler_config.json of a diffusers folder.

    Raises:
      UserError: an unknown key, or a schedule that is not CogVideoX's.
    """
    return _PUBLISHED.read(cls, published, 'scheduler/scheduler_config.json')

  def to_json(self) -> dict[str, Any]:
    """The published scheduler_config.json, as diffusers loads it."""
    return {
      '_class_name': 'CogVideoXDDIMScheduler',
      **_PUBLISHED.write(self),
      'clip_sample': False,
      'clip_sample_range': 1.0,
      'sample_max_value': 1.0,
    }


_PUBLISHED = PublishedConfig(
  kind='a CogVideoX schedule',
  required={
    key: key
    for key in (
      'num_train_timesteps',
      'beta_start',
      'beta_end',
      'snr_shift_scale',
      'timestep_spacing',
    )
  },
  optional={key: key for key in ('steps_offset', 'set_alpha_to_one')},
  fixed={
    'beta_schedule': 'scaled_linear',
    'prediction_type': 'v_prediction',
    'rescale_betas_zero_snr': True,
    'trained_betas': None,
  },
  stated=('beta_schedule', 'prediction_type', 'rescale_betas_zero_snr'),
  or_zero=('steps_offset',),
  # CogVideoX's schedulers do not read these.
  ignored=('clip_sample', 'clip_sample_range', 'sample_max_value'),
)


def alpha_bars(config: ScheduleConfig) -> np.ndarray:
  """alpha-bar of every timestep, float64 [num_train_timesteps].

  Square roots of betas are linear in t. First the signal-to-noise ratio is
  shifted, a <- a / (s + (1 - s) a); then sqrt(a) is shifted and scaled so that
  its last value is 0 and its first is unchanged (Lin et al., arXiv 2305.08891).
  """
  root_betas = np.linspace(
    config.beta_start**0.5,
    config.beta_end**0.5,
    config.num_train_timesteps,
    dtype=np.float64,
  )
  a = np.cumprod(1.0 - root_betas**2)
  shift = config.snr_shift_scale
  a = a / (shift + (1.0 - shift) * a)
  root = np.sqrt(a)
  root = (root - root[-1]) * root[0] / (root[0] - root[-1])
  return root**2
