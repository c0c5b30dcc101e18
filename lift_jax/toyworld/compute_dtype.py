"""The number format that the toy networks compute in, chosen by speed.

CPUs with AMX multiply bfloat16 several times as fast as float32, given a JAX
that uses it (0.12 does); CPUs without it multiply it no faster, or slower.
"""

import logging
import time

import jax
import jax.numpy as jnp

CHOICES = ('auto', 'float32', 'bfloat16')
# A step has more than products, and rounding has a price of its own.
LEAST_GAIN = 1.5
# The tokens of a batch of clips, through the wider layers of a toy network.
_SHAPES = (3072, 128), (128, 512)
_REPEATS = 10


def choose(setting: str, logger: logging.Logger) -> str:
  """'float32' or 'bfloat16'; 'auto' is measured, and the log says so."""
  if setting != 'auto':
    logger.info('demo: the networks compute in %s, as configured', setting)
    return setting
  gain = bfloat16_gain()
  dtype = 'bfloat16' if gain >= LEAST_GAIN else 'float32'
  logger.info(
    'demo: the networks compute in %s: this machine multiplies bfloat16 at %.1f'
    ' times the speed of float32, and from %.1f it would be worth it',
    dtype,
    gain,
    LEAST_GAIN,
  )
  return dtype


def bfloat16_gain() -> float:
  """Time of a product of float32 matrices over that of bfloat16 ones."""
  product = jax.jit(jnp.matmul)
  seconds = {}
  for dtype in (jnp.float32, jnp.bfloat16):
    operands = [jnp.ones(shape, dtype) for shape in _SHAPES]
    product(*operands).block_until_ready()  # compiles
    times = []
    for _ in range(_REPEATS):
      start = time.perf_counter()
      product(*operands).block_until_ready()
      times.append(time.perf_counter() - start)
    seconds[dtype] = min(times)  # others may be using the machine
  return seconds[jnp.float32] / seconds[jnp.bfloat16]
