"""NNX modules as pure functions of their parameters.

Flax NNX declares the network; we run `model(params, *inputs)`, where `params`
is a nested dict that works with `jax.jit`, Optax and Orbax as it is.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import nnx
import jax

Params = dict[Any, Any]


class _Stream(nnx.RngStream):
  """Random keys, counted in Python.

  Flax counts them in an array. Under a trace, it would ask each count for its
  sharding, and JAX would search all that is traced for a message that nobody
  reads: most of the time that it takes to declare an autoencoder.
  """

  def __init__(self, key: jax.Array | int):
    super().__init__(key, tag='params')
    self.num_drawn = 0

  def __call__(self) -> jax.Array:
    key = jax.random.fold_in(self.key[...], self.num_drawn)
    self.num_drawn += 1
    return key


class _Rngs(nnx.Rngs):
  """Draws what `nnx.Rngs(key)` draws."""

  params: nnx.RngStream

  def __init__(self, key: jax.Array | int):
    super().__init__()
    self.params = _Stream(key)


@dataclasses.dataclass(frozen=True, eq=False)  # hashable: jax.jit(model)
class FunctionalModel:
  """A network's structure and the shapes of its parameters.

  Attributes:
    graphdef: the static structure of the module.
    abstract_params: nested dict of `jax.ShapeDtypeStruct`.
    build: `build(nnx.Rngs)` makes the module with initial parameters.
  """

  graphdef: Any
  abstract_params: Params
  build: Callable[[nnx.Rngs], nnx.Module] = dataclasses.field(repr=False)

  def __call__(self, params: Params, *args, method: str = '__call__', **kwargs):
    """Runs `method` of the module with `params`."""
    module = nnx.merge(self.graphdef, params)
    return getattr(module, method)(*args, **kwargs)

  def init(self, key: jax.Array) -> Params:
    """Random parameters; under `jax.jit` with `out_shardings`, sharded ones."""
    return nnx.to_pure_dict(nnx.split(self.build(_Rngs(key)))[1])


def functional(build: Callable[[nnx.Rngs], nnx.Module]) -> FunctionalModel:
  """Declares a network without allocating parameters.

  Args:
    build: makes the module, for example
      `lambda rngs: Encoder(config, rngs=rngs)`.
  """
  graphdef, state = nnx.split(nnx.eval_shape(lambda: build(_Rngs(0))))
  return FunctionalModel(graphdef, nnx.to_pure_dict(state), build)


def stack(
  build: Callable[[nnx.Rngs], nnx.Module], num: int, rngs: nnx.Rngs
) -> nnx.Module:
  """Stacks `num` modules: each parameter gets a leading layer axis."""
  graphdef, _ = nnx.split(nnx.eval_shape(lambda: build(_Rngs(0))))
  keys = jax.random.split(rngs.params(), num)
  states = jax.vmap(lambda key: nnx.split(build(_Rngs(key)))[1])(keys)
  return nnx.merge(graphdef, states)
