"""Reward-weighted likelihood (LiFT, equation 3) as a diffusion loss.

  L = E_synthetic[ r(x, z) e(x, z) ] + lambda E_real[ e(x, z) ],
  e = mean (v_theta(x_t, t, z) - v)^2

The error in velocity is the reference's error in x0 divided by 1 - a:
x0_hat - x0 = -sqrt(1 - a) (v_theta - v), so at the pure noise of the last
timestep and at the nearly clean first one no digits are lost.

B batch
"""

import jax
import jax.numpy as jnp


def likelihood_weights(
  reward_b: jax.Array, is_real_b: jax.Array, real_weight: float
) -> jax.Array:
  """Weight of each sample: its reward, or lambda for a real video."""
  return jnp.where(is_real_b, real_weight, reward_b.astype(jnp.float32))


def velocity_error(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Mean squared error of each sample in fp32 [B]."""
  difference = predicted.astype(jnp.float32) - target.astype(jnp.float32)
  return jnp.mean(jnp.square(difference), axis=range(1, difference.ndim))


def reward_weighted(error_b: jax.Array, weight_b: jax.Array) -> jax.Array:
  """Batch mean of weight * error: the weights are not normalised."""
  return jnp.mean(weight_b * error_b)


def effective_sample_share(weight_b: jax.Array) -> jax.Array:
  """(sum w)^2 / (B sum w^2): 1 for equal weights, 1 / B if one decides all."""
  total = jnp.square(jnp.sum(weight_b))
  squares = weight_b.shape[0] * jnp.sum(jnp.square(weight_b))
  return jnp.where(squares > 0, total / jnp.maximum(squares, 1e-30), 0.0)
