"""A small network whose layers can be adapted."""

from flax import nnx
import jax
import numpy as np

from lift_jax.models import lora
from lift_jax.models.functional import stack
from lift_jax.weights import conversion

LAYERS, WIDTH = 3, 4


class Block(nnx.Module):
  def __init__(self, rngs):
    self.up = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs)
    self.down = nnx.Linear(2 * WIDTH, WIDTH, use_bias=False, rngs=rngs)
    self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)

  def __call__(self, x):
    return x + self.down(jax.nn.silu(self.up(self.norm(x))))


class Network(nnx.Module):
  """Linear layers with and without bias, stacked and not."""

  def __init__(self, rngs):
    self.blocks = stack(Block, LAYERS, rngs)
    self.head = nnx.Linear(WIDTH, 5, rngs=rngs)

  def __call__(self, x):
    graphdef, layers = nnx.split(self.blocks)

    def body(x, layer):
      return nnx.merge(graphdef, layer)(x), None

    return self.head(jax.lax.scan(body, x, layers)[0])


TABLE = (
  *conversion.linear('layer.{i}.up', 'blocks/up'),
  *conversion.linear('layer.{i}.down', 'blocks/down', bias=False),
  *conversion.norm('layer.{i}.norm', 'blocks/norm'),
  *conversion.linear('head', 'head'),
)
CONFIG = lora.LoRAConfig(rank=2, alpha=6.0, targets=('blocks/.*', 'head'))


def random_like(params, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(x.dtype), params
  )


def inputs():
  return np.random.default_rng(0).normal(size=(2, WIDTH)).astype(np.float32)
