"""Classifier-free guidance: away from a text that is not wanted.

  v = v(negative text) + g (v(text) - v(negative text))

Both velocities come from one call of the network on twice the batch, in which
the two of a clip, negative first, stand side by side: wherever the clip lies on
a mesh, both of them do, and guiding moves nothing between devices.

The scale g is one number for each step. CogVideoX can let it swing between 1
and 1 + scale:

  g = 1 + scale (1 - cos(pi ((N - s) / N)^5)) / 2        (N steps)

Published pipelines put the raw timestep, 999 down to 0, for s, so that g goes
up and down in waves; its authors keep that (github.com/THUDM/CogVideo, issue
267). With s the number of the step g falls smoothly from 1 + scale to 1, as
diffusers' pull request 13172 proposes.

B clips  S text tokens  D width
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

DYNAMICS = ('none', 'timestep', 'step')

# Exponent of the reference's dynamic guidance.
_EXPONENT = 5.0


def guidance_scales(
  scale: float, dynamic: str, timesteps: np.ndarray, num_steps: int
) -> np.ndarray:
  """The scale of every step, float64 like `timesteps` in shape.

  Args:
    scale: the constant scale, or how far a dynamic one rises above 1.
    dynamic: 'none' for a constant, 'timestep' for the published waves, 'step'
      for the smooth fall.
    timesteps: those of the steps, first to last.
    num_steps: steps that were asked for.
  """
  timesteps = np.asarray(timesteps, np.float64)
  if dynamic == 'none':
    return np.full_like(timesteps, scale)
  passed = timesteps if dynamic == 'timestep' else np.arange(len(timesteps))
  phase = np.pi * ((num_steps - passed) / num_steps) ** _EXPONENT
  return 1.0 + scale * (1.0 - np.cos(phase)) / 2.0


def pairs(first: jax.Array, second: jax.Array) -> jax.Array:
  """[B, ...] and [B, ...] to [2 B, ...], the two of each clip side by side."""
  stacked = jnp.stack([first, second], axis=1)
  return stacked.reshape(-1, *first.shape[1:])


def guide(velocity_pairs: jax.Array, scale: jax.Array) -> jax.Array:
  """[2 B, ...], of each clip negative and positive, to [B, ...] in fp32."""
  split = velocity_pairs.astype(jnp.float32)
  split = split.reshape(-1, 2, *velocity_pairs.shape[1:])
  negative, positive = split[:, 0], split[:, 1]
  return negative + scale * (positive - negative)


def guided(
  network: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
  text_bsd: jax.Array,
  negative_text_sd: jax.Array | None,
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
  """The guided velocity as a function of latents, timestep and scale.

  Args:
    network: `network(x_b, text_bsd, t_b)` predicts a velocity like x_b.
    text_bsd: text of each clip [B, S, D].
    negative_text_sd: text to keep away from [S, D]; None leaves guidance out,
      and the network is then called on B clips instead of 2 B.

  Returns:
    `velocity(x_b, t, scale)` in fp32, with t and scale of rank 0.
  """
  if negative_text_sd is None:

    def plain(x_b, t, scale):
      del scale
      t_b = jnp.broadcast_to(t, x_b.shape[:1])
      return network(x_b, text_bsd, t_b).astype(jnp.float32)

    return plain

  negative_bsd = jnp.broadcast_to(negative_text_sd[None], text_bsd.shape)
  text_pairs = pairs(negative_bsd.astype(text_bsd.dtype), text_bsd)

  def velocity(x_b, t, scale):
    x_pairs = pairs(x_b, x_b)
    t_pairs = jnp.broadcast_to(t, x_pairs.shape[:1])
    return guide(network(x_pairs, text_pairs, t_pairs), scale)

  return velocity
