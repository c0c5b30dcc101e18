"""Parameters of every row: values and gradients of broadcasting."""

import functools
from unittest import mock

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.models import layer_norm, linear, rows

pytestmark = pytest.mark.fast

BATCH, TOKENS, D = 4, 64, 8
_IS_FIRST = np.arange(TOKENS) < 20


def _random(seed, *shape):
  drawn = np.random.default_rng(seed).standard_normal(shape, np.float32)
  # Each is a bfloat16, so that both types have the same values.
  return np.asarray(jnp.asarray(drawn, jnp.bfloat16).astype(jnp.float32))


_LIKE = _random(0, BATCH, TOKENS, D)


def _in_rows(row_d):
  return rows.in_rows(row_d, _LIKE.shape)


def _where_rows(sets_b2d):
  return rows.where_rows(_IS_FIRST, sets_b2d[:, :1], sets_b2d[:, 1:])


def _broadcast_sets(sets_b2d):
  return jnp.where(_IS_FIRST[None, :, None], sets_b2d[:, :1], sets_b2d[:, 1:])


CASES = {
  'in_rows': (_in_rows, lambda row_d: row_d[None, None], _random(1, D)),
  'where_rows': (_where_rows, _broadcast_sets, _random(2, BATCH, 2, D)),
}
case = functools.partial(pytest.mark.parametrize, 'name', CASES)


def _compiled(function, *arguments):
  return jax.jit(function).lower(*arguments).compile().as_text()


def _loss(function, parameter, like):
  return jnp.sum((function(parameter) * like).astype(jnp.float32))


@case()
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_values(name, dtype):
  function, plain, parameter = CASES[name]
  parameter = parameter.astype(dtype)
  np.testing.assert_array_equal(
    jnp.broadcast_to(function(parameter), _LIKE.shape),
    jnp.broadcast_to(plain(parameter), _LIKE.shape),
  )


@case()
def test_gradients(name):
  """In bfloat16 those of float32, rounded once."""
  function, plain, parameter = CASES[name]
  wanted = jax.grad(functools.partial(_loss, plain))(parameter, _LIKE)
  narrow = parameter.astype(jnp.bfloat16), _LIKE.astype(jnp.bfloat16)
  found = jax.jit(jax.grad(functools.partial(_loss, function)))(*narrow)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    found.astype(np.float32), wanted, rtol=2**-8, atol=1e-6
  )


@case()
def test_gradients_are_products(name):
  """A window of sums is what XLA's CPU backend makes of them otherwise."""
  function, plain, parameter = CASES[name]
  narrow = parameter.astype(jnp.bfloat16), _LIKE.astype(jnp.bfloat16)
  ours = _compiled(jax.grad(functools.partial(_loss, function)), *narrow)
  assert ' reduce-window(' not in ours
  theirs = _compiled(jax.grad(functools.partial(_loss, plain)), *narrow)
  assert ' reduce-window(' in theirs


def test_where_it_applies():
  applies = functools.partial(rows.sums_by_products, jnp.bfloat16)
  assert applies()
  assert not rows.sums_by_products(jnp.float32)
  with mock.patch.object(partitioning, 'platform', return_value='tpu'):
    assert not applies()
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(fsdp=1, context=2), jax.devices()[:2]
  )
  with jax.set_mesh(mesh):
    assert not applies()


_MAKERS = {
  'linear': (nnx.Linear, linear.Linear, (D, D)),
  'norm': (nnx.LayerNorm, layer_norm.LayerNorm, (D,)),
}


def _layer(name, number, dtype=jnp.bfloat16):
  """Flax's (0) or ours (1), of the same parameters."""
  options = {'dtype': dtype, 'bias_init': nnx.initializers.normal(1.0)}
  if name == 'norm':
    options |= {
      'use_fast_variance': False,
      'scale_init': nnx.initializers.normal(1.0),
    }
  *makers, sizes = _MAKERS[name]
  return makers[number](*sizes, rngs=nnx.Rngs(0), **options)


def _gradient(layer):
  """Values and gradients of a layer, given the gradient of its values."""
  graphdef, params = nnx.split(layer)

  def run(params, x, gradient):
    y, backward = jax.vjp(
      lambda params, x: nnx.merge(graphdef, params)(x), params, x
    )
    return y, jax.tree.leaves(backward(gradient))

  return jax.jit(run), params


_INPUTS = (
  _LIKE.astype(jnp.bfloat16),
  _random(3, *_LIKE.shape).astype(jnp.bfloat16),
)


def _assert_close(found, wanted):
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_allclose(
      one.astype(np.float32), other.astype(np.float32), rtol=0.02, atol=0.05
    )


@pytest.mark.parametrize('name', _MAKERS)
def test_layers(name):
  """Values are those of Flax, and gradients near those of float32."""
  plain, ours = (_gradient(_layer(name, number)) for number in (0, 1))
  run, params = _gradient(_layer(name, 0, jnp.float32))
  _, wanted = run(params, *(x.astype(jnp.float32) for x in _INPUTS))
  (plain_y, _), (y, found) = (
    run(params, *_INPUTS) for run, params in (plain, ours)
  )
  np.testing.assert_array_equal(y, plain_y)
  _assert_close(found, wanted)
  windows = [
    ' reduce-window(' in _compiled(run, params, *_INPUTS)
    for run, params in (plain, ours)
  ]
  assert windows == [True, False]


@pytest.mark.parametrize(
  'options',
  [
    {'use_fast_variance': True},
    {'use_fast_variance': False, 'reduction_axes': (-2, -1)},
    {
      'use_fast_variance': False,
      'feature_axes': -2,
      'num_features': TOKENS,
    },
  ],
)
def test_other_norms_are_left_to_flax(options):
  plain, ours = (
    make(
      **{'num_features': D, 'dtype': jnp.bfloat16} | options, rngs=nnx.Rngs(0)
    )
    for make in _MAKERS['norm'][:2]
  )
  x = _INPUTS[0]
  assert str(jax.make_jaxpr(ours)(x)) == str(jax.make_jaxpr(plain)(x))


@pytest.mark.parametrize('name', _MAKERS)
def test_a_mesh(name):
  """Sharded gradients are those of one device."""
  run, params = _gradient(_layer(name, 1))
  _, wanted = run(params, *_INPUTS)
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(data=2, fsdp=2), jax.devices()[:4]
  )
  sharding = jax.NamedSharding(mesh, jax.P(partitioning.BATCH_AXES))
  with jax.set_mesh(mesh):
    _, found = run(params, *jax.device_put(_INPUTS, sharding))
  _assert_close(found, wanted)
