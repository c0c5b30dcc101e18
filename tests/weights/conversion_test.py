"""Conversion tables that do not account for every parameter."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import pytest

from lift_jax.weights import conversion


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, jnp.float32)


class ResolveTest(parameterized.TestCase):
  def test_two_parameters_of_one_tensor(self):
    table = (conversion.TensorRule('x', 'a'), conversion.TensorRule('x', 'b'))
    with pytest.raises(ValueError, match='parameters have the same tensor x'):
      conversion.resolve(table, {'a': shape(1), 'b': shape(1)})

  @parameterized.parameters(((),), ((conversion.TensorRule('y', '.*'),),))
  def test_no_rule(self, table):
    with pytest.raises(ValueError, match='a matches no rule'):
      conversion.resolve(table, {'a': shape(1)})
