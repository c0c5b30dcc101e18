"""Networks that are kept in host memory while they are not used.

Text encoder, transformer and autoencoder run one after the other, so that the
devices need to hold only one of them at a time.
"""

from collections.abc import Iterator
import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import partitioning
from lift_jax.models.functional import Params
from lift_jax.models.generators import VideoModel


class OffloadedNetwork:
  """One network of a model on a mesh, loaded at its first use.

  `network` is always the same object, so that programs that take it are
  compiled once.

  Args:
    model: model folder.
    name: one of `generators.NETWORKS`.
    mesh: mesh that its parameters are sharded over.
    dtype: of the computation and of the parameters.
    offload: whether to move it to host memory after each use.
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
    self._on_host: Any = None  # a tree of `_HostShards`
    self._on_devices: Params | None = None

  @contextlib.contextmanager
  def params(self, *, keep: bool = True) -> Iterator[Params]:
    """Parameters on the devices; do not use them after the context.

    Args:
      keep: whether they are needed again. Otherwise they are dropped, neither
        left on the devices nor moved to host memory.

    Raises:
      UserError: the weights do not match the config.
    """
    if self._on_devices is None:
      self._on_devices = self._to_devices()
    yield self._on_devices
    # Computations in flight keep their own references.
    if not keep:
      self._on_devices = self._on_host = None
    elif self._offload:
      if self._on_host is None:
        self._on_host = jax.tree.map(_to_host, self._on_devices)
      self._on_devices = None

  def _to_devices(self) -> Params:
    if self._on_host is None:
      return self._model.load(
        self._name, self.network, self._shardings, self._dtype
      )
    return jax.tree.map(
      lambda shards, leaf, sharding: jax.make_array_from_callback(
        leaf.shape, sharding, lambda index: shards[_bounds(index)]
      ),
      self._on_host,
      self.network.abstract_params,
      self._shardings,
      is_leaf=lambda node: isinstance(node, _HostShards),
    )


class _HostShards(dict):
  """Copies of an array's shards on this host, by their `_bounds`."""


def _to_host(array: jax.Array) -> _HostShards:
  shards = _HostShards()
  for shard in array.addressable_shards:
    if _bounds(shard.index) not in shards:
      shards[_bounds(shard.index)] = np.array(shard.data)
  return shards


def _bounds(index: tuple[slice, ...]) -> tuple[tuple[int, int], ...]:
  """(start, stop) per axis: a hashable form of an index."""
  return tuple((part.start, part.stop) for part in index)
