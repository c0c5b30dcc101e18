"""Every parameter has one rule, every rule is used; sharded results agree."""

import re

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import errors, partitioning
from lift_jax.models.functional import functional
from lift_jax.models.llama import config as config_lib
from lift_jax.models.llama import sharding
from lift_jax.models.llama.cache import KVCache
from lift_jax.models.llama.decoder import Decoder
from lift_jax.weights import param_paths
from tests.torch_weights import scaled_error

TINY = config_lib.LlamaConfig(
  vocab_size=40,
  width=16,
  num_layers=2,
  num_heads=8,
  num_kv_heads=4,
  head_dim=4,
  mlp_width=24,
  max_length=16,
)


def _model(config):
  return functional(lambda rngs: Decoder(config, rngs=rngs))


def _mesh(**axes):
  return partitioning.make_mesh(partitioning.MeshConfig(**{'fsdp': 1} | axes))


def _run(model, params, tokens_bn, segment_ids_bn, lengths_b):
  """Each way to run the decoder: hidden states, cache and logits."""
  x_bnd = model(params, tokens_bn, method='embed')
  positions_bn = jnp.broadcast_to(jnp.arange(6)[None], (4, 6))
  whole = model(params, x_bnd, positions_bn, segment_ids_bn)
  first, cache = model(
    params, x_bnd[:, :4], lengths_b, max_length=9, num_branches=2,
    method='prefill',
  )  # fmt: skip
  more, cache = model(
    params,
    jnp.repeat(x_bnd[:, 4:], 2, axis=0),
    jnp.array([2, 1] * 4),
    cache,
    method='extend',
  )
  one, cache = model(
    params, more[:, :1], jnp.array([1, 0] * 4), cache, method='extend'
  )
  logits = model(params, whole, method='logits')
  return whole, logits, first, more, one[::2], cache.lengths_bq


class ShardingTest(parameterized.TestCase):
  def test_total(self):
    """`param_shardings` raises if a rule is missing or unused."""
    for config in (config_lib.VILA_13B, config_lib.VILA_40B):
      model = _model(config)
      mesh = _mesh(fsdp=2, tensor=4)
      sharding.check_heads(config, mesh)
      shardings = param_paths.flatten(
        partitioning.param_shardings(
          sharding.RULES, model.abstract_params, mesh
        )
      )
      for name, leaf in param_paths.flatten(model.abstract_params).items():
        if leaf.size > 1_000_000:
          self.assertContainsSubset(
            {'fsdp', 'tensor'}, set(shardings[name].spec), name
          )

  @parameterized.parameters(
    {'data': 2, 'fsdp': 2, 'tensor': 2},
    {'fsdp': 2, 'tensor': 4},
    {'fsdp': 4, 'context': 2},
  )
  def test_same_result_on_a_mesh(self, **axes):
    model = _model(TINY)
    params = jax.jit(model.init)(jax.random.key(0))
    # Larger than at the start of training, so that attention matters.
    params = jax.tree.map(lambda x: x if x.ndim == 1 else 5 * x, params)
    inputs = (
      jnp.arange(24, dtype=jnp.int32).reshape(4, 6),
      jnp.array([[1, 1, 2, 2, 2, 0]] * 4),
      jnp.array([4, 2, 3, 1]),
    )
    run = jax.jit(_run, static_argnums=0)
    expected = run(model, params, *inputs)
    mesh = _mesh(**axes)
    shardings = partitioning.param_shardings(
      sharding.RULES, model.abstract_params, mesh
    )
    batch = jax.NamedSharding(mesh, jax.P(partitioning.BATCH_AXES))
    laid_out = jax.device_put(params, shardings)
    with jax.set_mesh(mesh):
      actual = run(model, laid_out, *jax.device_put(inputs, batch))
    for ours, one_device in zip(actual, expected, strict=True):
      self.assertTrue(np.isfinite(one_device).all())
      self.assertLess(scaled_error(ours, one_device), 1e-5)

  def test_each_device_writes_its_own_part_of_the_cache(self):
    """No collective moves data of the size of the cache."""
    model = _model(TINY)
    mesh = _mesh(data=2, fsdp=2, tensor=2)
    slots = 13  # a size that nothing else has
    cache_shape = (TINY.num_layers, 4, slots, 4, 4)
    cache_spec = jax.NamedSharding(mesh, sharding.CACHE)
    batch = jax.NamedSharding(mesh, jax.P(partitioning.BATCH_AXES))

    def abstract(shape, sharding, dtype=jnp.float32):
      return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    params = jax.tree.map(
      lambda leaf, spec: abstract(leaf.shape, spec),
      model.abstract_params,
      partitioning.param_shardings(sharding.RULES, model.abstract_params, mesh),
    )

    def extend(params, x_rmd, lengths_r, keys, values, lengths_b):
      cache, _ = KVCache.of_prompts(keys, values, lengths_b, 7, num_branches=2)
      return model(params, x_rmd, lengths_r, cache, method='extend')

    with jax.set_mesh(mesh):
      text = (
        jax.jit(extend)
        .lower(
          params,
          abstract((8, 1, TINY.width), batch),
          abstract((8,), batch, jnp.int32),
          abstract(cache_shape, cache_spec),
          abstract(cache_shape, cache_spec),
          abstract((4,), batch, jnp.int32),
        )
        .compile()
        .as_text()
      )
    gathered = re.findall(r'= \w+\[([\d,]*)\]\S* all-gather\(', text)
    for shape in gathered:
      self.assertNotIn(str(slots), shape.split(','), gathered)
    self.assertNotIn(' all-to-all(', text)

  @parameterized.parameters((config_lib.VILA_40B, 7), (TINY, 8))
  def test_heads_that_the_mesh_would_cut(self, config, tensor):
    devices = jax.devices()[:tensor]
    mesh = partitioning.make_mesh(
      partitioning.MeshConfig(fsdp=1, tensor=tensor), devices
    )
    with self.assertRaisesRegex(
      errors.UserError, f'mesh.tensor is {tensor}, .* {config.num_kv_heads} key'
    ):
      sharding.check_heads(config, mesh)
