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
    """Random parameters; call it under `jax.jit` with `out_shardings`."""
    return nnx.to_pure_dict(nnx.split(self.build(nnx.Rngs(key)))[1])


def functional(build: Callable[[nnx.Rngs], nnx.Module]) -> FunctionalModel:
  """Declares a network without allocating parameters.

  Args:
    build: makes the module, for example
      `lambda rngs: Encoder(config, rngs=rngs)`.
  """
  graphdef, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
  return FunctionalModel(graphdef, nnx.to_pure_dict(state), build)


def stack(
  build: Callable[[nnx.Rngs], nnx.Module], num: int, rngs: nnx.Rngs
) -> nnx.Module:
  """Stacks `num` modules: each parameter gets a leading layer axis."""
  graphdef, _ = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
  keys = jax.random.split(rngs.params(), num)
  states = jax.vmap(lambda key: nnx.split(build(nnx.Rngs(key)))[1])(keys)
  return nnx.merge(graphdef, states)
