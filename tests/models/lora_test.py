"""Low-rank adapters: results, errors and published names."""

from absl.testing import parameterized
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.errors import UserError
from lift_jax.models import lora
from lift_jax.models.functional import functional
from lift_jax.models.linear import Linear
from lift_jax.weights import conversion, param_paths
from tests.models.adapted_network import (
  CONFIG,
  LAYERS,
  TABLE,
  WIDTH,
  Network,
  inputs,
  random_like,
)

pytestmark = pytest.mark.fast


class LoRATest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.plain = functional(Network)
    cls.adapted = functional(lora.adapted(Network, CONFIG))
    adapters, base = param_paths.partition(
      cls.adapted.abstract_params, lora.is_adapter
    )
    cls.adapter_shapes = adapters
    cls.base_shapes = base

  def test_fresh_adapter_changes_nothing(self):
    params = jax.jit(self.adapted.init)(jax.random.key(0))
    adapters, base = param_paths.partition(params, lora.is_adapter)
    x = inputs()
    np.testing.assert_array_equal(self.adapted(params, x), self.plain(base, x))
    for name, leaf in param_paths.flatten(adapters).items():
      assert np.any(leaf) == name.endswith('/lora_a'), name

  def test_equals_merged_weights(self):
    base = random_like(self.base_shapes, 1)
    adapters = random_like(self.adapter_shapes, 2)
    flat = param_paths.flatten(adapters)

    def merged(name, kernel):
      layer, _, leaf = name.rpartition('/')
      if leaf != 'kernel':
        return kernel
      a, b = flat[f'{layer}/lora_a'], flat[f'{layer}/lora_b']
      return kernel + 6.0 / 2 * np.einsum('...ir,...ro->...io', a, b)

    x = inputs()
    ours = self.adapted(param_paths.merge(base, adapters), x)
    expected = self.plain(param_paths.map_named(merged, base), x)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    assert np.abs(ours - self.plain(base, x)).max() > 1

  def test_dropout(self):
    """Of the adapter's input alone; another mask in each layer and step."""
    model = functional(
      lora.with_dropout(lora.adapted(Network, CONFIG), rate=0.25)
    )
    params = param_paths.merge(
      random_like(self.base_shapes, 1), random_like(self.adapter_shapes, 2)
    )
    x = inputs()

    def run(seed):
      keys = lora.dropout_keys(model.abstract_params, jax.random.key(seed))
      return model(param_paths.merge(params, keys), x)

    np.testing.assert_array_equal(run(0), run(0))
    assert np.abs(run(0) - run(1)).max() > 0.1
    keys = lora.dropout_keys(model.abstract_params, jax.random.key(0))
    flat = [
      bytes(np.asarray(jax.random.key_data(key)).data)
      for leaf in jax.tree.leaves(keys)
      for key in leaf.reshape(-1)
    ]
    assert len(set(flat)) == len(flat) == 2 * LAYERS + 1

    dropout = lora.Dropout(0.25, ())
    y = np.asarray(dropout(jnp.ones((100, 100))))
    np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)
    assert abs(np.mean(y == 0) - 0.25) < 0.02

  def test_base_parameters_keep_their_paths(self):
    shapes = lambda tree: {  # noqa: E731
      name: leaf.shape for name, leaf in param_paths.flatten(tree).items()
    }
    assert shapes(self.base_shapes) == shapes(self.plain.abstract_params)
    assert shapes(self.adapter_shapes) == {
      'blocks/up/lora_a': (LAYERS, WIDTH, 2),
      'blocks/up/lora_b': (LAYERS, 2, 2 * WIDTH),
      'blocks/down/lora_a': (LAYERS, 2 * WIDTH, 2),
      'blocks/down/lora_b': (LAYERS, 2, WIDTH),
      'head/lora_a': (WIDTH, 2),
      'head/lora_b': (2, 5),
    }

  def test_published_names(self):
    table = lora.adapter_table(TABLE, prefix='net.')
    sources = conversion.resolve(table, self.adapter_shapes)
    shapes = {n: s.shape for s in sources.values() for n in s.names}
    layers = {'head': (WIDTH, 5)}
    for i in range(LAYERS):
      layers[f'layer.{i}.up'] = (WIDTH, 2 * WIDTH)
      layers[f'layer.{i}.down'] = (2 * WIDTH, WIDTH)
    assert shapes == {
      f'net.{name}.lora_{half}.weight': (2, size) if half == 'A' else (size, 2)
      for name, sizes in layers.items()
      for half, size in zip('AB', sizes, strict=True)
    }

  def test_compute_dtype(self):
    def build(rngs):
      return nnx.Linear(WIDTH, 5, dtype=jnp.bfloat16, rngs=rngs)

    config = lora.LoRAConfig(rank=2, alpha=2.0, targets=('',))
    model = functional(lora.adapted(build, config))
    params = random_like(model.abstract_params, 3)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    assert model(params, inputs()).dtype == jnp.bfloat16

  def test_result_type(self):
    """That of a layer whose products are wider than its inputs."""

    def build(rngs):
      return Linear(
        WIDTH,
        5,
        dtype=jnp.bfloat16,
        preferred_element_type=jnp.float32,
        bias_init=nnx.initializers.normal(1.0),
        rngs=rngs,
      )

    config = lora.LoRAConfig(rank=2, alpha=2.0, targets=('',))
    adapted = functional(lora.adapted(build, config))
    params = adapted.init(jax.random.key(0))
    plain = {name: params[name] for name in ('kernel', 'bias')}
    wanted = functional(build)(plain, inputs())
    found = adapted(params, inputs())
    assert found.dtype == jnp.float32
    # A fresh adapter changes nothing.
    np.testing.assert_array_equal(found, wanted)
    params['lora_b'] = jnp.ones_like(params['lora_b'])
    changed = adapted(params, inputs())
    assert (changed != changed.astype(jnp.bfloat16)).any()

  def test_precision(self):
    """All three products have that of the layer."""

    def build(rngs):
      return Linear(WIDTH, 5, precision='highest', rngs=rngs)

    config = lora.LoRAConfig(rank=2, alpha=2.0, targets=('',))
    model = functional(lora.adapted(build, config))
    params = random_like(model.abstract_params, 3)
    text = str(jax.make_jaxpr(model)(params, inputs()))
    assert text.count('dot_general') == 3
    assert text.count('precision=(Precision.HIGHEST, Precision.HIGHEST)') == 3

  @parameterized.parameters('blocks/upp', 'blocks', 'up', 'blocks/norm')
  def test_target_that_matches_nothing(self, target):
    config = lora.LoRAConfig(targets=('blocks/down', target))
    with pytest.raises(UserError, match=rf"\['{target}'\] match no linear"):
      functional(lora.adapted(Network, config))

  @parameterized.parameters(
    ({'rank': 0}, 'rank is 0'),
    ({'targets': ()}, 'targets is empty'),
    ({'targets': ('(',)}, 'not a regular expression .*; correct it'),
  )
  def test_bad_config(self, fields, message):
    with pytest.raises(UserError, match=message):
      lora.LoRAConfig(**fields)
