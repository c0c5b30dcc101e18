import dataclasses

from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import pytest

from lift_jax import errors, partitioning
from lift_jax.partitioning import MeshConfig
from lift_jax.weights import param_paths


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, jnp.float32)


@dataclasses.dataclass(frozen=True)
class _Device:
  """A mock device with the attributes that meshes need."""

  id: int
  platform: str
  coords: tuple[int, int, int]
  device_kind: str = 'stand-in'
  process_index: int = 0
  core_on_chip: int = 0


@dataclasses.dataclass(frozen=True)
class _SliceDevice(_Device):
  slice_index: int = 0


def _slices(platform: str) -> list[_Device]:
  """Two slices of four devices, interleaved."""
  return [
    _SliceDevice(i, platform, (i // 2, 0, 0), slice_index=i % 2)
    for i in range(8)
  ]


class MeshTest(parameterized.TestCase):
  @parameterized.parameters(
    (MeshConfig(), (1, 8, 1, 1)),
    (MeshConfig(data=2, fsdp=-1, tensor=2), (2, 2, 1, 2)),
    (MeshConfig(data=-1, fsdp=2, context=4), (1, 2, 4, 1)),
    (MeshConfig(data=2, fsdp=2, context=1, tensor=2), (2, 2, 1, 2)),
    (MeshConfig(fsdp=1, tensor=-1), (1, 1, 1, 8)),
  )
  def test_sizes(self, config, expected):
    mesh = partitioning.make_mesh(config)
    assert mesh.axis_names == ('data', 'fsdp', 'context', 'tensor')
    assert mesh.devices.shape == expected
    assert mesh.axis_types == (AxisType.Auto,) * 4
    assert set(mesh.devices.flat) == set(jax.devices())

  def test_some_devices(self):
    devices = jax.devices()[3:5]
    mesh = partitioning.make_mesh(MeshConfig(tensor=2), devices)
    assert mesh.devices.ravel().tolist() == devices
    assert dict(mesh.shape) == {'data': 1, 'fsdp': 1, 'context': 1, 'tensor': 2}

  @parameterized.parameters(
    ('tpu', MeshConfig(data=2), [0, 0, 0, 0, 1, 1, 1, 1]),
    ('tpu', MeshConfig(data=4), [0, 0, 0, 0, 1, 1, 1, 1]),
    # GPU hosts have slice_index, too; any mesh may span them.
    ('gpu', MeshConfig(), [0, 1, 0, 1, 0, 1, 0, 1]),
  )
  def test_slices(self, platform, config, expected):
    mesh = partitioning.make_mesh(config, _slices(platform))
    found = [device.slice_index for device in mesh.devices.flat]
    assert found == expected

  def test_one_slice(self):
    """Planned devices of a single slice have no slice_index."""
    devices = [_Device(i, 'tpu', (i, 0, 0)) for i in range(4)]
    mesh = partitioning.make_mesh(MeshConfig(), devices)
    assert dict(mesh.shape) == {'data': 1, 'fsdp': 4, 'context': 1, 'tensor': 1}

  def test_slices_are_data(self):
    with pytest.raises(errors.UserError, match='the devices are 2 slices'):
      partitioning.make_mesh(MeshConfig(), _slices('tpu'))

  def test_batch_shards(self):
    mesh = partitioning.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert partitioning.batch_shards(mesh) == 4

  @parameterized.parameters(
    (MeshConfig(data=3), 'product 3 does not divide the 8 devices'),
    (MeshConfig(data=16), 'product 16 does not divide the 8 devices'),
    (MeshConfig(2, 2, 1, 1), 'product 4 does not equal the 8 devices'),
    (MeshConfig(data=-1), '-1 for at most one axis'),
    (MeshConfig(tensor=0), 'give positive sizes'),
    (MeshConfig(tensor=-2), 'give positive sizes'),
  )
  def test_bad_sizes(self, config, message):
    with pytest.raises(errors.UserError, match=message):
      partitioning.make_mesh(config)

  def test_describe(self):
    mesh = partitioning.make_mesh(MeshConfig(tensor=2))
    assert partitioning.describe(mesh) == (
      '8 cpu devices: data 1, fsdp 4, context 1, tensor 2'
    )
    mesh = partitioning.make_mesh(MeshConfig(), jax.devices()[:1])
    assert partitioning.describe(mesh).startswith('1 cpu device: data 1')


PARAMS = {
  'blocks': {'to_q': {'kernel': shape(3, 8, 4), 'bias': shape(3, 4)}},
  'out': {'kernel': shape(4, 6), 'bias': shape(6)},
  'bias': shape(2),
}
RULES = (
  (r'blocks/.*/kernel', P(None, ('data', 'fsdp'), 'tensor')),
  (r'out/kernel', P('fsdp')),
  (r'(.*/)?bias', P()),
)


class ParamShardingsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.mesh = partitioning.make_mesh(MeshConfig(tensor=2))

  def test_specs(self):
    shardings = partitioning.param_shardings(RULES, PARAMS, self.mesh)
    assert jax.tree.structure(shardings) == jax.tree.structure(PARAMS)
    assert {
      name: sharding.spec
      for name, sharding in param_paths.flatten(shardings).items()
    } == {
      'blocks/to_q/kernel': P(None, ('data', 'fsdp'), 'tensor'),
      'blocks/to_q/bias': P(),
      'out/kernel': P('fsdp'),
      'out/bias': P(),
      'bias': P(),
    }
    assert shardings['blocks']['to_q']['kernel'].shard_shape((3, 8, 4)) == (
      3,
      2,
      2,
    )

  @parameterized.named_parameters(
    ('no rule', RULES[:2], 'bias is matched by no rule'),
    ('part of a name', (*RULES[:2], ('bias', P())), 'no rule'),
    (
      'prefix',
      (RULES[0], ('out', P()), RULES[2]),
      'out/kernel is matched by no rule',
    ),
    ('two rules', (*RULES, ('out/k.*', P())), 'out/kernel is matched by .*k.*'),
    ('unused', (*RULES, ('norm/scale', P())), 'matches norm/scale'),
    (
      'too long',
      (RULES[0], ('out/kernel', P(None, None, 'fsdp')), RULES[2]),
      'longer than .* of out/kernel',
    ),
    (
      'axis',
      (RULES[0], ('out/kernel', P('model')), RULES[2]),
      'out/kernel: no mesh axis .*model',
    ),
  )
  def test_bad_rules(self, rules, message):
    with pytest.raises(ValueError, match=message) as caught:
      partitioning.param_shardings(rules, PARAMS, self.mesh)
    assert not isinstance(caught.value, errors.UserError)

  def test_indivisible(self):
    rules = (RULES[0], (r'out/kernel', P(None, ('fsdp', 'tensor'))), RULES[2])
    with pytest.raises(
      errors.UserError,
      match=(
        'parameter out/kernel: dimension 1 of size 6 cannot be cut into 8 '
        'along mesh axes fsdp, tensor; choose another mesh'
      ),
    ):
      partitioning.param_shardings(rules, PARAMS, self.mesh)


class LikeTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.mesh = partitioning.make_mesh(MeshConfig(tensor=2))
    self.shardings = partitioning.param_shardings(RULES, PARAMS, self.mesh)

  def like(self, tree):
    return partitioning.like(tree, PARAMS, self.shardings, self.mesh)

  @parameterized.named_parameters(
    ('adamw', optax.adamw(1e-3), 2),
    (
      'wrapped',
      optax.apply_if_finite(
        optax.chain(
          optax.clip_by_global_norm(1.0),
          optax.MultiSteps(
            optax.adamw(optax.cosine_decay_schedule(1e-3, 9)), 2
          ),
          optax.ema(0.9),
        ),
        3,
      ),
      4,
    ),  # two moments, the accumulated gradient, the average
    (
      'masked',
      optax.masked(
        optax.adam(1e-3), {'blocks': True, 'out': False, 'bias': True}
      ),
      None,
    ),
    ('sgd', optax.sgd(1e-3), 0),
  )
  def test_optax(self, optimizer, copies):
    state = jax.eval_shape(optimizer.init, PARAMS)
    shardings = self.like(state)
    assert jax.tree.structure(shardings) == jax.tree.structure(state)
    by_name = param_paths.flatten(self.shardings)
    counts = dict.fromkeys(by_name, 0)
    for name, sharding in param_paths.flatten(shardings).items():
      holders = [param for param in by_name if f'/{name}'.endswith(f'/{param}')]
      if holders:
        param = max(holders, key=len)
        counts[param] += 1
        assert sharding == by_name[param], name
      else:
        assert sharding == NamedSharding(self.mesh, P()), name
    if copies is not None:
      assert set(counts.values()) == {copies}
    # And the optimizer can be initialised with these shardings.
    made = jax.jit(optimizer.init, out_shardings=shardings)(
      jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), PARAMS)
    )
    assert jax.tree.map(lambda leaf: leaf.sharding, made) == shardings

  def test_params_themselves(self):
    assert self.like(PARAMS) == self.shardings

  def test_longest_name_wins_and_shape_must_agree(self):
    kernel = param_paths.flatten(self.shardings)['out/kernel']
    replicated = NamedSharding(self.mesh, P())
    tree = {
      'mu': {'out': {'kernel': shape(4, 6)}},
      'row': {'out': {'kernel': shape(4)}},  # as in optax.adafactor
      'other_out': {'kernel': shape(4, 6)},
      'about': {'kernel': shape(4, 6)},
    }
    assert self.like(tree) == {
      'mu': {'out': {'kernel': kernel}},
      'row': {'out': {'kernel': replicated}},
      'other_out': {'kernel': replicated},
      'about': {'kernel': replicated},
    }
    params = {'kernel': shape(8), 'deep': {'kernel': shape(8)}}
    shardings = partitioning.param_shardings(
      (('kernel', P('fsdp')), ('deep/kernel', P('tensor'))), params, self.mesh
    )
    found = partitioning.like({'mu': params}, params, shardings, self.mesh)
    assert found == {'mu': shardings}

  def test_trees_must_agree(self):
    with pytest.raises(ValueError, match='differ in out/bias, out/kernel'):
      partitioning.like(
        {},
        {'bias': PARAMS['bias'], 'blocks': PARAMS['blocks']},
        self.shardings,
        self.mesh,
      )


def network(weights, x_bd, spec):
  """Softmax over the batch: wrong if padding is included."""

  def layer(x_bd, weight):
    x_bd = partitioning.constrain(jnp.tanh(x_bd @ weight), spec)
    return 3 * jax.nn.softmax(x_bd, axis=0), None

  x_bd, _ = jax.lax.scan(jax.checkpoint(layer), x_bd, weights)
  return jnp.sum(x_bd**2)


class ConstrainTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.mesh = partitioning.make_mesh(MeshConfig(tensor=2))

  def test_no_mesh_is_a_no_op(self):
    x = jnp.ones((8, 2))
    assert partitioning.constrain(x, P('fsdp')) is x
    traced = jax.make_jaxpr(lambda x: partitioning.constrain(x, P('fsdp')))(x)
    assert 'sharding_constraint' not in str(traced)

  def test_constrains(self):
    spec = P(partitioning.BATCH_AXES, 'tensor')
    expected = NamedSharding(self.mesh, spec)

    def double(x):
      return 2 * partitioning.constrain(x, spec)

    x = jnp.ones((8, 4))
    with jax.set_mesh(self.mesh):
      assert 'sharding_constraint' in str(jax.make_jaxpr(double)(x))
      y = jax.jit(double)(x)
      assert y.sharding.is_equivalent_to(expected, 2)
      assert y.addressable_shards[0].data.shape == (2, 2)
    # The same jitted function with no mesh after one: not the old program.
    assert len(jax.jit(double)(x).sharding.device_set) == 1

  @parameterized.product(batch=(1, 6, 8), jit=(True, False))
  def test_uneven(self, batch, jit):
    """Values and gradients as on one device, for every split."""
    keys = jax.random.split(jax.random.key(0))
    weights = jax.random.normal(keys[0], (3, 7, 7))
    x_bd = jax.random.normal(keys[1], (batch, 7))
    spec = P(('data', 'fsdp'), 'tensor')

    def run(weights, x_bd):
      return network(weights, x_bd, spec)

    run = jax.value_and_grad(run, argnums=(0, 1))
    expected = run(weights, x_bd)
    with jax.set_mesh(self.mesh):
      found = (jax.jit(run) if jit else run)(weights, x_bd)
    for left, right in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_allclose(left, right, rtol=2e-6, atol=2e-6)

  def test_uneven_is_cut_inside_a_program(self):
    """XLA pads a batch of 6 to 2 on each of 4 devices; no replication."""

    def total(x):
      x = partitioning.constrain(jnp.sin(x), P('fsdp'))
      return jnp.sum(jnp.cos(x))

    x = jax.device_put(
      jnp.arange(18.0).reshape(6, 3), jax.NamedSharding(self.mesh, P())
    )
    with jax.set_mesh(self.mesh):
      compiled = jax.jit(total).lower(x).compile()
      expected = np.cos(np.sin(np.asarray(x))).sum()
      np.testing.assert_allclose(compiled(x), expected, rtol=1e-6)
    assert 'f32[2,3]' in compiled.as_text()


class TestSpread:
  @pytest.mark.parametrize(
    ('size', 'parts'), [(16, 8), (20, 4), (6, 2), (5, 1)]
  )
  def test_as_many_parts_as_fit(self, size, parts):
    shape = {'x': jax.ShapeDtypeStruct((size,), jnp.float32)}
    rules = ((r'x', jax.sharding.PartitionSpec('fsdp')),)
    sharding = partitioning.spread(
      lambda mesh: partitioning.param_shardings(rules, shape, mesh)
    )['x']
    assert sharding.shard_shape((size,)) == (size // parts,)
    assert sharding.num_devices == 8

  def test_other_errors_pass(self):
    def place(mesh):
      raise errors.UserError('no')

    with pytest.raises(errors.UserError, match='no'):
      partitioning.spread(place)
