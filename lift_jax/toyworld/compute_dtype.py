"""The number format that the toy networks compute in, chosen by speed.

Some CPUs multiply bfloat16 several times as fast as float32, given a JAX that
uses their instructions (0.12 does); others no faster, or slower. Matrix
products alone do not decide it: what stands between them, such as activations
and conversions, may take longer in bfloat16. So a layer is timed as it is
trained.
"""

import logging
import time

import jax
import jax.numpy as jnp

CHOICES = ('auto', 'float32', 'bfloat16')
# The gain must be worth the rounding.
LEAST_GAIN = 1.2
# The tokens of a batch of clips, and a feed-forward layer of a toy network.
_TOKENS, _WIDTH, _INNER = 3072, 128, 512
_REPEATS = 10


def choose(setting: str, earlier: str | None, logger: logging.Logger) -> str:
  """'float32' or 'bfloat16', and says so in the log.

  Args:
    setting: one of `CHOICES`; 'auto' takes the faster one.
    earlier: what 'auto' chose when this run was started, if it was: a run that
      goes on keeps it, as another measurement might come out otherwise.
    logger: for the choice and its reason.
  """
  if setting != 'auto':
    logger.info('demo: the networks compute in %s, as configured', setting)
    return setting
  if earlier is not None:
    logger.info('demo: the networks compute in %s, as before', earlier)
    return earlier
  gain = bfloat16_gain()
  dtype = 'bfloat16' if gain >= LEAST_GAIN else 'float32'
  logger.info(
    'demo: the networks compute in %s: this machine trains a layer in bfloat16 '
    'at %.1f times the speed of float32, and from %.1f it would be worth it',
    dtype,
    gain,
    LEAST_GAIN,
  )
  return dtype


def bfloat16_gain() -> float:
  """Time to train a feed-forward layer in float32 over that in bfloat16.

  Parameters are float32 in both cases, as those of a network are.
  """
  step = jax.jit(jax.grad(_loss))
  kernels = jnp.ones((_WIDTH, _INNER)), jnp.ones((_INNER, _WIDTH))
  inputs = [
    jnp.ones((_TOKENS, _WIDTH), dtype) for dtype in (jnp.float32, jnp.bfloat16)
  ]
  for x_td in inputs:
    jax.block_until_ready(step(kernels, x_td))  # compiles
  seconds = []
  # Others may be using the machine: both take turns, and the best time counts.
  for _ in range(_REPEATS):
    for x_td in inputs:
      start = time.perf_counter()
      jax.block_until_ready(step(kernels, x_td))
      seconds.append(time.perf_counter() - start)
  return min(seconds[::2]) / min(seconds[1::2])


def _loss(kernels: tuple[jax.Array, jax.Array], x_td: jax.Array) -> jax.Array:
  inner, outer = (kernel.astype(x_td.dtype) for kernel in kernels)
  y_td = x_td + jax.nn.gelu(x_td @ inner, approximate=True) @ outer
  return jnp.sum(jnp.square(y_td.astype(jnp.float32)))
