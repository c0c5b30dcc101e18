"""int8 kernels: their error, their layout, and the layers that use them."""

import sys
from unittest import mock

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import linear, quantization
from lift_jax.partitioning import MeshConfig

qwix = pytest.importorskip('qwix')

pytestmark = pytest.mark.fast

CONVERT = quantization.quantizer(['blocks/(q|mlp/up)', 'last'])
SHAPE = (2, 8, 12)


def kernel():
  return jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)


def test_error():
  """Half a step of the scale of each output at most."""
  made = CONVERT('blocks/q/kernel', kernel())
  assert made.qvalue.dtype == jnp.int8
  assert made.scale.shape == (2, 1, 12)
  exact = np.asarray(kernel())
  scale = np.abs(exact).max(axis=1, keepdims=True) / 127.5
  np.testing.assert_allclose(made.scale, scale, rtol=1e-6)
  error = np.abs(np.asarray(qwix.dequantize(made)) - exact)
  assert (error <= scale * 0.5001).all()
  assert error.max() > 0


def test_which_layers():
  for name in ('blocks/mlp/up/kernel', 'last/kernel'):
    assert quantization.is_quantized(CONVERT(name, kernel()))
  for name in ('blocks/k/kernel', 'blocks/q/bias', 'other/last/kernel'):
    assert not quantization.is_quantized(CONVERT(name, kernel()))


@pytest.mark.parametrize('use_bias', [True, False])
def test_layer(use_bias):
  """It computes with the dequantized kernel, in its type."""
  layer = linear.Linear(
    8, 12, rngs=nnx.Rngs(0), use_bias=use_bias, dtype=jnp.bfloat16
  )
  x_bnd = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 8)))
  made = CONVERT('last/kernel', jnp.array(layer.kernel[...]))
  layer.kernel = nnx.Param(qwix.dequantize(made))
  expected = layer(x_bnd)
  graphdef, state = nnx.split(layer)
  params = nnx.to_pure_dict(state) | {'kernel': made}
  found = nnx.merge(graphdef, params)(x_bnd)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    found.astype(np.float32), expected.astype(np.float32), atol=0.02
  )


def test_sharding():
  """Of arrays, and of their shapes alone."""
  mesh = partitioning.make_mesh(
    MeshConfig(data=1, fsdp=2, tensor=2), jax.devices()[:4]
  )
  sharding = NamedSharding(mesh, P(None, 'fsdp', 'tensor'))
  placed = jax.device_put(kernel(), sharding)
  shape = jax.ShapeDtypeStruct(SHAPE, jnp.float32, sharding=sharding)
  made = CONVERT('last/kernel', placed)
  abstract = CONVERT('last/kernel', shape)
  assert made.qvalue.sharding == sharding
  assert made.scale.sharding.spec == P(None, None, 'tensor')
  for one, other in zip(
    jax.tree.leaves(made), jax.tree.leaves(abstract), strict=True
  ):
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert one.sharding == other.sharding
  assert placed.is_deleted()


def test_not_installed():
  with mock.patch.dict(sys.modules, {'qwix': None}):
    quantization.check_installed('none')
    with pytest.raises(UserError, match=r"pip install 'lift_jax\[int8\]'"):
      quantization.check_installed('int8')
