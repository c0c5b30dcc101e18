"""A network that is on the devices while it is used, and else in host memory.

Text encoder, transformer and autoencoder work one after the other, so none of
them needs to leave room for the others.
"""

from collections.abc import Iterator
import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import partitioning
from lift_jax.models.functional import Params
from lift_jax.models.generators import VideoModel


class Stage:
  """One network of a model on a mesh.

  Nothing is loaded before it is first used. `network` is one object for good,
  so that programs that take it are compiled once.

  Args:
    model: folder of the networks.
    name: one of `generators.NETWORKS`.
    mesh: on which its parameters lie by the rules of the network.
    dtype: of the computation and of the parameters.
    offload: whether it leaves the devices after each use.
    options: for the constructor of the network.
  """

  def __init__(
    self,
    model: VideoModel,
    name: str,
    mesh: jax.sharding.Mesh,
    dtype: str,
    offload: bool,
    **options,
  ):
    self._model = model
    self._name = name
    self._dtype = jnp.dtype(dtype)
    self._offload = offload
    self.network = model.declare(name, dtype=self._dtype, **options)
    self._shardings = partitioning.param_shardings(
      model.networks[name].rules, self.network.abstract_params, mesh
    )
    self._on_host = self._on_devices = None

  @contextlib.contextmanager
  def params(self) -> Iterator[Params]:
    """Parameters on the devices, which may be gone afterwards.

    Raises:
      UserError: the weights are not those of the config.
    """
    if self._on_devices is None:
      self._on_devices = self._place()
    yield self._on_devices
    if self._offload:
      if self._on_host is None:
        self._on_host = jax.tree.map(_copy, self._on_devices)
      # What still computes with them holds them until it is done.
      self._on_devices = None

  def _place(self) -> Params:
    if self._on_host is None:
      return self._model.load(
        self._name, self.network, self._shardings, self._dtype
      )

    def put(parts, leaf, sharding):
      return jax.make_array_from_callback(
        leaf.shape, sharding, lambda index: parts[_place(index)]
      )

    return jax.tree.map(
      put,
      self._on_host,
      self.network.abstract_params,
      self._shardings,
      is_leaf=lambda node: isinstance(node, _Parts),
    )


class _Parts(dict):
  """What this host holds of an array: copies of its parts, by their place."""


def _copy(array: jax.Array) -> _Parts:
  parts = _Parts()
  for shard in array.addressable_shards:
    if _place(shard.index) not in parts:
      parts[_place(shard.index)] = np.array(shard.data)
  return parts


def _place(index: tuple[slice, ...]) -> tuple[tuple[int, int], ...]:
  return tuple((cut.start, cut.stop) for cut in index)
