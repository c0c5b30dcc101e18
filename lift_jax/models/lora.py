"""Low-rank adapters: y = x W + b + (alpha / rank) (dropout(x) A) B.

Only A and B of an adapted network are trained. B is initialised to zero, so an
untrained adapter changes nothing (Hu et al., arXiv 2106.09685). Dropout is part
of the network that `with_dropout` builds, for training, and of no other.
"""

from collections.abc import Callable
import dataclasses
import functools
import re

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models.functional import Params
from lift_jax.models.linear import matmul
from lift_jax.models.rows import in_rows
from lift_jax.weights import conversion, param_paths

# Sharding of adapters in stacked blocks, whose parameters have a leading layer
# axis, and of adapters outside of them.
_RULES = (
  (r'(.*/)?blocks/.*/lora_a', P(None, 'fsdp', None)),
  (r'(.*/)?blocks/.*/lora_b', P(None, None, 'fsdp')),
  (r'(?!(.*/)?blocks/).*/lora_a', P('fsdp', None)),
  (r'(?!(.*/)?blocks/).*/lora_b', P()),
)


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
  """Which linear layers are adapted, and by how much.

  Attributes:
    rank: inner width of the adapter.
    alpha: the update is scaled by alpha / rank.
    targets: regular expressions, such as 'blocks/attn/to_[qkv]'; a linear layer
      is adapted if one of them matches its path in full.
  """

  rank: int = 128
  alpha: float = 128.0
  targets: tuple[str, ...] = (r'blocks/attn/to_(q|k|v|out)',)

  def __post_init__(self):
    if self.rank < 1:
      raise UserError(f'lora.rank is {self.rank}; give a positive number')
    if not self.targets:
      raise UserError(
        "lora.targets is empty; an example that adapts: 'blocks/attn/to_q'"
      )
    for target in self.targets:
      try:
        re.compile(target)
      except re.error as error:
        raise UserError(
          f'lora.targets: {target!r} is not a regular expression ({error}); '
          'correct it'
        ) from None

  @property
  def scale(self) -> float:
    return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class CriticLoRAConfig(LoRAConfig):
  """Adapters of a critic.

  Attributes:
    dropout: share of an adapter's inputs that a training step leaves out.
  """

  dropout: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.dropout < 1:
      raise UserError(
        f'lora.dropout is {self.dropout:g}; give a share from 0 to below 1'
      )


class Dropout(nnx.Module):
  """Sets elements to 0 with probability `rate`, and scales the others.

  Its key is a parameter, which the caller gives in each step: see
  `dropout_keys`. A stacked layer has a key for each of its layers.
  """

  def __init__(self, rate: float, stacked: tuple[int, ...]):
    self.key = nnx.Variable(_keys(jax.random.key(0), stacked))
    self.rate = rate

  def __call__(self, x):
    is_kept = jax.random.bernoulli(self.key[...], 1 - self.rate, x.shape)
    return jnp.where(is_kept, x / (1 - self.rate), 0)


class LoRALinear(nnx.Module):
  """A linear layer with an adapter; kernel and bias keep their paths."""

  def __init__(self, base: nnx.Linear, config: LoRAConfig, rngs: nnx.Rngs):
    # A stacked layer has its layer axis in front: (layer, in, out).
    *lead, inputs, outputs = base.kernel[...].shape
    self.kernel = base.kernel
    self.bias = base.bias
    # Uniform within 1 / sqrt(in), as PEFT initialises adapters.
    self.lora_a = nnx.Param(
      jax.random.uniform(
        rngs.params(),
        (*lead, inputs, config.rank),
        minval=-(inputs**-0.5),
        maxval=inputs**-0.5,
      )
    )
    self.lora_b = nnx.Param(jnp.zeros((*lead, config.rank, outputs)))
    self.scale = config.scale
    self.dtype = base.dtype
    self.precision = base.precision
    self.preferred_element_type = base.preferred_element_type
    self.dropout = None

  def __call__(self, x):
    x, kernel, a, b = (
      jnp.asarray(value, self.dtype)
      for value in (
        x,
        self.kernel[...],
        self.lora_a[...],
        self.lora_b[...],
      )
    )
    x_kept = x if self.dropout is None else self.dropout(x)
    narrow = functools.partial(matmul, precision=self.precision)
    wide = functools.partial(
      narrow, preferred_element_type=self.preferred_element_type
    )
    y = wide(x, kernel) + self.scale * wide(narrow(x_kept, a), b)
    if self.bias is None:
      return y
    # Rounded to the layer's type first, as in the layer without an adapter.
    bias = jnp.asarray(self.bias[...], self.dtype).astype(y.dtype)
    return y + in_rows(bias, y.shape)


def adapted(
  build: Callable[[nnx.Rngs], nnx.Module], config: LoRAConfig
) -> Callable[[nnx.Rngs], nnx.Module]:
  """`build` with an adapter on every target.

  Raises:
    UserError: on building, if a target matches no linear layer.
  """

  def build_adapted(rngs: nnx.Rngs) -> nnx.Module:
    used = set()

    def adapt(path, node):
      name = '/'.join(str(part) for part in path)
      hits = [t for t in config.targets if re.fullmatch(t, name)]
      if not hits or not isinstance(node, nnx.Linear):
        return node
      used.update(hits)
      return LoRALinear(node, config, rngs)

    module = nnx.recursive_map(adapt, build(rngs))
    unused = sorted(set(config.targets) - used)
    if unused:
      raise UserError(
        f'lora.targets {unused} match no linear layer; '
        "an example that does: 'blocks/attn/to_q'"
      )
    return module

  return build_adapted


def with_dropout(
  build: Callable[[nnx.Rngs], nnx.Module], rate: float
) -> Callable[[nnx.Rngs], nnx.Module]:
  """`build` with dropout before every adapter, for training."""

  def build_with_dropout(rngs: nnx.Rngs) -> nnx.Module:
    module = build(rngs)
    for _, node in nnx.iter_graph(module):
      if isinstance(node, LoRALinear):
        *stacked, _, _ = node.kernel[...].shape
        node.dropout = nnx.data(Dropout(rate, tuple(stacked)))
    return module

  return build_with_dropout


def dropout_keys(abstract_params: Params, key: jax.Array) -> Params:
  """The keys of a network that `with_dropout` built, different in every layer.

  Args:
    abstract_params: of the network; all its other parameters are omitted.
    key: of this step.
  """
  keys, _ = param_paths.partition(
    abstract_params, lambda name: name.endswith('/dropout/key')
  )
  leaves, structure = jax.tree.flatten(keys)
  return jax.tree.unflatten(
    structure,
    [
      _keys(jax.random.fold_in(key, index), leaf.shape)
      for index, leaf in enumerate(leaves)
    ],
  )


def _keys(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  return jax.random.split(key, shape) if shape else key


def adapter_table(
  table: conversion.Table, prefix: str = ''
) -> conversion.Table:
  """Conversion table of the adapters of a network's linear layers, as in PEFT.

  Args:
    table: of the network itself.
    prefix: of every published name.
  """
  rules = []
  for rule in table:
    if rule.transform is conversion.LINEAR:
      layer = rule.ours.removesuffix('/kernel')
      name = prefix + rule.published.removesuffix('.weight')
      rules += [
        conversion.TensorRule(
          f'{name}.lora_A.weight', f'{layer}/lora_a', conversion.LINEAR
        ),
        conversion.TensorRule(
          f'{name}.lora_B.weight', f'{layer}/lora_b', conversion.LINEAR
        ),
      ]
  return tuple(rules)


def shardings(adapters: Params, mesh: jax.sharding.Mesh) -> Params:
  """The sharding of every adapter.

  Args:
    adapters: nested dict of arrays or shapes; not every network has adapters in
      stacked blocks and outside of them.
    mesh: all devices.
  """
  names = param_paths.flatten(adapters)
  rules = [
    rule
    for rule in _RULES
    if any(re.fullmatch(rule[0], name) for name in names)
  ]
  return partitioning.param_shardings(rules, adapters, mesh)


def is_adapter(name: str) -> bool:
  """Whether a parameter belongs to an adapter."""
  return name.rsplit('/', 1)[-1] in ('lora_a', 'lora_b')
