"""The noise schedule of CogVideoX and the targets that follow from it.

With a = alpha-bar(t), eps ~ N(0, 1):

  x_t = sqrt(a) x0 + sqrt(1 - a) eps         (noisy latents)
  v   = sqrt(a) eps - sqrt(1 - a) x0         (velocity, what the model predicts)
  x0  = sqrt(a) x_t - sqrt(1 - a) v

`a` runs from nearly 1 at t = 0 to exactly 0 at the last step, which is pure
noise.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.weights.published_config import PublishedConfig


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
  """Noise schedule; the defaults are CogVideoX-2B.

  Attributes:
    num_train_timesteps: number of timesteps.
    beta_start: first beta of the scaled linear series.
    beta_end: last beta.
    snr_shift_scale: divides the signal-to-noise ratio: 3 for 2B, 1 for 5B.
  """

  num_train_timesteps: int = 1000
  beta_start: float = 0.00085
  beta_end: float = 0.012
  snr_shift_scale: float = 3.0

  @classmethod
  def from_json(cls, published: Mapping[str, Any]) -> Self:
    """Reads scheduler/scheduler_config.json of a diffusers folder.

    Raises:
      UserError: an unknown key, or a schedule that is not CogVideoX's.
    """
    return _PUBLISHED.read(cls, published, 'scheduler/scheduler_config.json')

  def to_json(self) -> dict[str, Any]:
    """The published form, which diffusers loads."""
    return {
      '_class_name': 'CogVideoXDDIMScheduler',
      **_PUBLISHED.write(self),
      'clip_sample': False,
      'clip_sample_range': 1.0,
      'sample_max_value': 1.0,
      'set_alpha_to_one': True,
      'steps_offset': 0,
      'timestep_spacing': 'trailing',
    }


_PUBLISHED = PublishedConfig(
  kind='a CogVideoX schedule',
  required={
    field.name: field.name for field in dataclasses.fields(ScheduleConfig)
  },
  fixed={
    'beta_schedule': 'scaled_linear',
    'prediction_type': 'v_prediction',
    'rescale_betas_zero_snr': True,
    'trained_betas': None,
  },
  stated=('beta_schedule', 'prediction_type', 'rescale_betas_zero_snr'),
  # These concern sampling only.
  ignored=(
    'clip_sample',
    'clip_sample_range',
    'sample_max_value',
    'set_alpha_to_one',
    'steps_offset',
    'timestep_spacing',
  ),
)


def alpha_bars(config: ScheduleConfig) -> np.ndarray:
  """alpha-bar of every timestep, float64 [num_train_timesteps].

  Betas are linear in their square roots. The signal-to-noise ratio is shifted
  first: a <- a / (s + (1 - s) a); then sqrt(a) is moved and stretched so that
  its last value is 0 and its first stays (Lin et al., arXiv 2305.08891).
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


class Schedule:
  """sqrt(a) and sqrt(1 - a) as fp32 tables, rounded once from float64."""

  def __init__(self, config: ScheduleConfig):
    a = alpha_bars(config)
    self.num_timesteps = config.num_train_timesteps
    self._signal = np.sqrt(a).astype(np.float32)
    self._noise = np.sqrt(1.0 - a).astype(np.float32)

  def _rates(self, t_b: jax.Array, rank: int):
    shape = (-1,) + (1,) * (rank - 1)
    signal = jnp.asarray(self._signal)[t_b].reshape(shape)
    noise = jnp.asarray(self._noise)[t_b].reshape(shape)
    return signal, noise

  def add_noise(self, x0, noise, t_b) -> jax.Array:
    """x_t = sqrt(a) x0 + sqrt(1 - a) noise; t is [B], the rest [B, ...]."""
    signal_rate, noise_rate = self._rates(t_b, x0.ndim)
    return signal_rate * x0 + noise_rate * noise

  def velocity(self, x0, noise, t_b) -> jax.Array:
    """v = sqrt(a) noise - sqrt(1 - a) x0."""
    signal_rate, noise_rate = self._rates(t_b, x0.ndim)
    return signal_rate * noise - noise_rate * x0
