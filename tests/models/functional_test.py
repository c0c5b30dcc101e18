"""Networks as functions of their parameters."""

from flax import nnx
import jax
import numpy as np
import pytest

from lift_jax.models.functional import functional


class _Network(nnx.Module):
  def __init__(self, *, rngs: nnx.Rngs):
    self.first = nnx.Linear(2, 3, rngs=rngs)
    self.second = nnx.Linear(3, 3, rngs=rngs)


@pytest.mark.fast
def test_draws_as_flax_does():
  """Every parameter from a key of its own: the keys of `nnx.Rngs`."""
  key = jax.random.key(5)
  params = functional(lambda rngs: _Network(rngs=rngs)).init(key)
  expected = nnx.state(_Network(rngs=nnx.Rngs(key)))
  jax.tree.map(
    np.testing.assert_array_equal, params, nnx.to_pure_dict(expected)
  )
