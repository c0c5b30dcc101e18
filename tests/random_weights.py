"""Random parameters without a compiled program."""

import numpy as np

from lift_jax.weights import param_paths


def random_params(abstract_params, seed: int = 0):
  """Parameters of a network: scales near 1, kernels by their fan-in."""
  rng = np.random.default_rng(seed)

  def draw(name, leaf):
    if name.endswith('scale'):
      values = rng.uniform(0.5, 1.5, leaf.shape)
    elif name.endswith('kernel'):
      is_stacked = leaf.ndim == 3
      fan_in = np.prod(leaf.shape[is_stacked:-1])
      values = rng.normal(0, 1.5 * fan_in**-0.5, leaf.shape)
    else:
      values = rng.normal(0, 0.5, leaf.shape)
    return np.asarray(values, np.float32)

  return param_paths.map_named(draw, abstract_params)
