"""Every parameter has one rule, every rule is used; sharded results agree."""

import re

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import partitioning
from lift_jax.models import functional
from lift_jax.models.t5 import config as config_lib
from lift_jax.models.t5 import encoder, sharding
from lift_jax.weights import param_paths


def _model(config):
  return functional.functional(lambda rngs: encoder.Encoder(config, rngs=rngs))


def _rules(name):
  return [rule for rule in sharding.RULES if re.fullmatch(rule[0], name)]


class ShardingTest(absltest.TestCase):
  def test_total(self):
    model = _model(config_lib.T5Config())
    used = set()
    for name, leaf in param_paths.flatten(model.abstract_params).items():
      rules = _rules(name)
      self.assertLen(rules, 1, name)
      used.add(rules[0])
      self.assertLessEqual(len(rules[0][1]), leaf.ndim)
    self.assertEqual(used, set(sharding.RULES))

  def test_large_parameters_are_split(self):
    model = _model(config_lib.T5Config())
    for name, leaf in param_paths.flatten(model.abstract_params).items():
      [(_, spec)] = _rules(name)
      if leaf.size > 1_000_000:
        self.assertContainsSubset({'fsdp', 'tensor'}, set(spec), name)

  def test_same_result_on_a_mesh(self):
    config = config_lib.T5Config(
      vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4
    )
    model = _model(config)
    params = model.init(jax.random.key(0))
    tokens_bn = jnp.arange(24, dtype=jnp.int32).reshape(4, 6)
    expected = jax.jit(model)(params, tokens_bn)
    mesh = partitioning.make_mesh(
      partitioning.MeshConfig(fsdp=2, tensor=2), jax.devices()[:4]
    )
    laid_out = param_paths.map_named(
      lambda name, leaf: jax.device_put(
        leaf, jax.NamedSharding(mesh, _rules(name)[0][1])
      ),
      params,
    )
    with jax.set_mesh(mesh):
      actual = jax.jit(model)(laid_out, tokens_bn)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
