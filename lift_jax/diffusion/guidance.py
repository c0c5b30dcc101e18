"""Classifier-free guidance with a negative text.

  v = v(negative text) + g (v(text) - v(negative text))

Both velocities are computed by one call of the network on twice the batch, in
which the negative and the positive example of a clip are adjacent: they are on
the same devices of a mesh, and guidance needs no communication.

The scale g is one number per step. CogVideoX can vary it between 1 and
1 + scale:

  g = 1 + scale (1 - cos(pi ((N - s) / N)^5)) / 2        (N steps)

Published pipelines use the raw timestep, 999 down to 0, for s, so that g
oscillates, which the authors kept (github.com/THUDM/CogVideo, issue 267). With
the index of the step for s, g decreases smoothly from 1 + scale to 1, as
diffusers' pull request 13172 proposes.

B clips  S text tokens  D width
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DYNAMICS = ('none', 'timestep', 'step')

# Exponent of the reference's dynamic guidance.
_EXPONENT = 5.0


def guidance_scales(
  scale: float, dynamic: str, timesteps: np.ndarray, num_steps: int
) -> np.ndarray:
  """The scale of every step, float64, shaped like `timesteps`.

  Args:
    scale: the constant scale, or the maximum of a dynamic one minus 1.
    dynamic: 'none' for a constant, 'timestep' for the published oscillation,
      'step' for a smooth decrease.
    timesteps: of all steps, first to last.
    num_steps: requested number of steps.
  """
  timesteps = np.asarray(timesteps, np.float64)
  if dynamic == 'none':
    return np.full_like(timesteps, scale)
  s = timesteps if dynamic == 'timestep' else np.arange(len(timesteps))
  phase = np.pi * ((num_steps - s) / num_steps) ** _EXPONENT
  return 1.0 + scale * (1.0 - np.cos(phase)) / 2.0


def interleave(first: jax.Array, second: jax.Array) -> jax.Array:
  """Interleaves two arrays [B, ...] to [2 B, ...], clip by clip."""
  stacked = jnp.stack([first, second], axis=1)
  return stacked.reshape(-1, *first.shape[1:])


def guide(velocity_pairs: jax.Array, scale: jax.Array) -> jax.Array:
  """Combines negative and positive velocities [2 B, ...] to [B, ...], fp32."""
  split = velocity_pairs.astype(jnp.float32)
  split = split.reshape(-1, 2, *velocity_pairs.shape[1:])
  negative, positive = split[:, 0], split[:, 1]
  return negative + scale * (positive - negative)


def guided(
  network: Callable[..., tuple[jax.Array, Any]],
  text_bsd: jax.Array,
  negative_text_sd: jax.Array | None,
) -> Callable[[jax.Array, Any, Any], tuple[jax.Array, Any]]:
  """Makes a function that computes the guided velocity.

  Args:
    network: `network(x_b, text_bsd, t_b, step, cache)` predicts a velocity like
      x_b, and returns the cache for the next step.
    text_bsd: text of each clip [B, S, D].
    negative_text_sd: the negative text [S, D]; None for no guidance: the
      network is then called on B clips instead of 2 B.

  Returns:
    `velocity(x_b, step, cache)`, as `sampler.Phase` takes it.
  """
  if negative_text_sd is None:

    def plain(x_b, step, cache):
      t_b = jnp.broadcast_to(step.timestep, x_b.shape[:1])
      v_b, cache = network(x_b, text_bsd, t_b, step, cache)
      return v_b.astype(jnp.float32), cache

    return plain

  negative_bsd = jnp.broadcast_to(negative_text_sd[None], text_bsd.shape)
  text_pairs = interleave(negative_bsd.astype(text_bsd.dtype), text_bsd)

  def velocity(x_b, step, cache):
    x_pairs = interleave(x_b, x_b)
    t_pairs = jnp.broadcast_to(step.timestep, x_pairs.shape[:1])
    v_pairs, cache = network(x_pairs, text_pairs, t_pairs, step, cache)
    return guide(v_pairs, step.guidance), cache

  return velocity
