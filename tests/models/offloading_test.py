"""Offloaded networks: on the devices while used, and unchanged after."""

import gc
from unittest import mock
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import offloading
from lift_jax.models.generators import NETWORKS, VideoModel, open_model
from lift_jax.models.offloading import OffloadedNetwork
from lift_jax.weights import param_paths
from tests.models.cogvideox.tiny_pipeline import make_pipeline


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  path = tmp_path_factory.mktemp('model')
  make_pipeline().save_pretrained(path)
  return open_model(path)


@pytest.fixture(scope='module')
def mesh():
  return partitioning.make_mesh(partitioning.MeshConfig(tensor=2))


def open_network(model, mesh, name='transformer', offload=True, **changes):
  settings = {'dtype': 'float32'} | changes
  return OffloadedNetwork(model, name, mesh=mesh, offload=offload, **settings)


def values(params):
  """By name, on the host, and held by nothing else."""
  return {
    name: np.array(leaf) for name, leaf in param_paths.flatten(params).items()
  }


def assert_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    assert found[name].dtype == value.dtype
    np.testing.assert_array_equal(found[name], value, name)


def num_on_devices(references):
  gc.collect()
  return sum(reference() is not None for reference in references)


def references(params):
  return [weakref.ref(leaf) for leaf in jax.tree.leaves(params)]


@pytest.mark.parametrize('offload', [True, False])
@pytest.mark.parametrize('name', NETWORKS)
def test_equals_the_folder(model, mesh, name, offload):
  offloaded = open_network(model, mesh, name, offload)
  expected = values(model.load(name, offloaded.network, None))
  assert len(expected) > 5
  shardings = partitioning.param_shardings(
    model.networks[name].rules, offloaded.network.abstract_params, mesh
  )
  for _ in range(3):
    with offloaded.params() as params:
      assert_equal(values(params), expected)
      for leaf in jax.tree.leaves(params):
        assert leaf.sharding.device_set == set(jax.devices())
      assert jax.tree.map(lambda leaf: leaf.sharding, params) == shardings
      if name != 'vae':  # each device has a part
        kernel = max(jax.tree.leaves(params), key=lambda leaf: leaf.size)
        shard = kernel.addressable_shards[0].data
        assert shard.size * 4 <= kernel.size
    del params, leaf


def test_type(model, mesh):
  offloaded = open_network(model, mesh, dtype='bfloat16')
  expected = values(model.load('transformer', offloaded.network, None))
  expected = {
    name: value.astype(jnp.bfloat16) for name, value in expected.items()
  }
  for _ in range(2):
    with offloaded.params() as params:
      assert_equal(values(params), expected)


@pytest.mark.parametrize('name', NETWORKS)
def test_leaves_the_devices(model, mesh, name):
  offloaded = open_network(model, mesh, name)
  gc.collect()
  before = len(jax.live_arrays())
  for _ in range(2):
    with offloaded.params() as params:
      leaves = references(params)
      assert num_on_devices(leaves) == len(leaves)
    del params
    assert num_on_devices(leaves) == 0
    assert len(jax.live_arrays()) == before


def test_stays_on_the_devices(model, mesh):
  offloaded = open_network(model, mesh, offload=False)
  with offloaded.params() as params:
    leaves = references(params)
  del params
  assert num_on_devices(leaves) == len(leaves)
  with (
    mock.patch.object(VideoModel, 'load', side_effect=AssertionError),
    offloaded.params() as params,
  ):
    for leaf, reference in zip(jax.tree.leaves(params), leaves, strict=True):
      assert leaf is reference()


@pytest.mark.parametrize('offload', [True, False])
def test_dropped(model, mesh, offload):
  """Nothing is copied to the host, and another use reads the files again."""
  offloaded = open_network(model, mesh, 'vae', offload=offload)
  gc.collect()
  before = len(jax.live_arrays())
  with (
    mock.patch.object(offloading, '_to_host', side_effect=AssertionError),
    offloaded.params(keep=False) as params,
  ):
    expected = values(params)
  del params
  gc.collect()
  assert len(jax.live_arrays()) == before
  with offloaded.params() as params:
    assert_equal(values(params), expected)


def test_computations_in_flight_keep_parameters(model, mesh):
  """A result that is not there yet when its offloaded ends."""
  offloaded = open_network(model, mesh)
  total = jax.jit(
    lambda params: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
  )
  with offloaded.params() as params:
    first = total(params)
  del params
  with offloaded.params() as params:
    second = total(params)
  del params
  expected = sum(
    np.sum(value.astype(np.float64) ** 2)
    for value in values(
      model.load('transformer', offloaded.network, None)
    ).values()
  )
  np.testing.assert_allclose([first, second], [expected] * 2, rtol=1e-5)


def test_read_once_at_first_use(model, mesh):
  with mock.patch.object(
    VideoModel, 'load', autospec=True, side_effect=VideoModel.load
  ) as load:
    gc.collect()
    before = len(jax.live_arrays())
    offloaded = open_network(model, mesh)
    assert len(jax.live_arrays()) == before
    assert load.call_count == 0
    for _ in range(3):
      with offloaded.params():
        assert load.call_count == 1


def test_network_is_one_object(model, mesh):
  """So that a program of it is compiled once."""
  offloaded = open_network(model, mesh, 'text_encoder')
  network = offloaded.network
  for _ in range(2):
    with offloaded.params():
      assert offloaded.network is network


def test_options_reach_the_network(model, mesh):
  module_of = {
    backend: open_network(model, mesh, attention_backend=backend).network
    for backend in ('auto', 'xla')
  }
  texts = {backend: f'{net.graphdef}' for backend, net in module_of.items()}
  assert texts['auto'] != texts['xla']


def test_mesh_that_does_not_fit(model):
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(fsdp=1, tensor=1, data=1), jax.devices()[:1]
  )
  open_network(model, mesh)
  with pytest.raises(UserError, match='cannot be cut into 3 .* another mesh'):
    open_network(
      model,
      partitioning.make_mesh(
        partitioning.MeshConfig(fsdp=3), jax.devices()[:3]
      ),
    )
