"""int8 kernels of a network that is only run, by Qwix.

A kernel W [..., D, F] from D inputs to F outputs is kept as int8, with a scale
for each output:

  W ~ Q * scale,  scale_f = max_d |W_df| / 127.5

Products are computed in the type of the activations, from Q * scale, which XLA
can fuse into the product. Qwix (https://github.com/google/qwix) is optional:
pip install 'lift_jax[int8]'.
"""

from collections.abc import Callable, Sequence
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lift_jax.errors import UserError

NONE, INT8 = 'none', 'int8'
KINDS = (NONE, INT8)


def check_installed(kind: str) -> None:
  """Raises UserError if kernels of this kind need what is not installed."""
  if kind == NONE:
    return
  try:
    import qwix  # noqa: F401
  except ImportError:
    raise UserError(
      f"run.quantize is '{kind}', which needs Qwix; install it with pip "
      "install 'lift_jax[int8]'"
    ) from None


def quantizer(layers: Sequence[str]) -> Callable[[str, Any], Any]:
  """`convert(name, parameter)`, which makes kernels of some layers int8.

  Other parameters stay as they are. A kernel is freed; of the shape of one, a
  `jax.ShapeDtypeStruct` with a sharding, it makes those of the result.

  Args:
    layers: regular expressions that match the complete paths of layers.
  """
  pattern = re.compile(f'({"|".join(layers)})/kernel')

  def convert(name: str, kernel: Any) -> Any:
    if not pattern.fullmatch(name):
      return kernel
    shapes = jax.eval_shape(_quantized, kernel)
    shardings = jax.tree.map(functools.partial(_sharding, kernel), shapes)
    if isinstance(kernel, jax.ShapeDtypeStruct):
      return jax.tree.map(_shape_with_sharding, shapes, shardings)
    made = jax.jit(_quantized, out_shardings=shardings)(kernel)
    kernel.delete()
    return made

  return convert


def _quantized(kernel: jax.Array) -> Any:
  import qwix  # only where it is needed

  inputs = kernel.ndim - 2
  return qwix.quantize(
    kernel.astype(jnp.float32),
    jnp.int8,
    channelwise_axes=[a for a in range(kernel.ndim) if a != inputs],
  )


def _sharding(kernel: Any, leaf: Any) -> jax.sharding.Sharding:
  """Of the int8 kernel, or of its scale, which has a single input."""
  sharding = kernel.sharding
  if leaf.shape == kernel.shape or not isinstance(sharding, NamedSharding):
    return sharding
  axes = [*sharding.spec, *[None] * (kernel.ndim - len(sharding.spec))]
  axes[-2] = None
  return NamedSharding(sharding.mesh, P(*axes))


def _shape_with_sharding(
  leaf: Any, sharding: jax.sharding.Sharding
) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def is_quantized(kernel: Any) -> bool:
  """Whether a kernel is a `qwix.QArray`; Qwix need not be installed."""
  return hasattr(kernel, 'qvalue')


def dot_general(
  x: jax.Array, kernel: Any, dimension_numbers: Any, **more: Any
) -> jax.Array:
  """`jax.lax.dot_general` of activations and a quantized kernel."""
  import qwix

  return qwix.dot_general(x, kernel, dimension_numbers, **more)
