"""LayerNorm that trains fast in bfloat16 on CPUs too."""

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from lift_jax.models import rows


class LayerNorm(nnx.LayerNorm):
  """`nnx.LayerNorm` over the last axis.

  Its values are the same; gradients are summed as `rows` says, if it has scale,
  bias and a `dtype`, and neither `use_fast_variance` nor axes of its own.
  """

  def __call__(
    self, x: jax.Array, *, mask: jax.Array | None = None
  ) -> jax.Array:
    scale, bias, dtype = self.scale, self.bias, self.dtype
    if (
      (scale is None or bias is None or dtype is None)
      or (mask is not None or self.use_fast_variance)
      or not self.reduction_axes == self.feature_axes == -1
      or self.axis_name is not None
      or not rows.sums_by_products(dtype)
    ):
      return super().__call__(x, mask=mask)
    scale_d, bias_d = (
      rows.in_rows(param[...].astype(dtype), x.shape) for param in (scale, bias)
    )
    # Statistics are float32, as those of Flax.
    wide = x.astype(dtype).astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    y = centred * (lax.rsqrt(variance + self.epsilon) * scale_d) + bias_d
    return y.astype(dtype)
