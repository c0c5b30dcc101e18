"""A CogVideoX transformer, made ready to be fine-tuned on a mesh."""

from collections.abc import Callable
import dataclasses
import hashlib
import json
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import optax

from lift_jax import param_paths, partitioning
from lift_jax.data.pipeline import ScoredEntry
from lift_jax.errors import UserError
from lift_jax.models import lora
from lift_jax.models.cogvideox.choice import ModelConfig
from lift_jax.models.cogvideox.folder import ModelFolder
from lift_jax.models.cogvideox.sharding import (
  BATCH,
  LORA_RULES,
  TRANSFORMER_RULES,
)
from lift_jax.models.cogvideox.transformer import Transformer
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.training.config import TrainConfig
from lift_jax.training.state import TrainState

IS_TRAINABLE: dict[str, Callable[[str], bool]] = {
  'blocks': lambda name: name.startswith('blocks/'),
  'all': lambda name: True,
  'lora': lora.is_adapter,
}


@dataclasses.dataclass(frozen=True)
class Setup:
  """The network of a run and where its parameters lie.

  Attributes:
    model: the transformer, with adapters if those train.
    mesh: all devices.
    shardings: of every parameter.
    trainable: 'blocks', 'all' or 'lora'.
  """

  model: FunctionalModel
  mesh: jax.sharding.Mesh
  shardings: Params
  trainable: str

  @property
  def batch_sharding(self) -> NamedSharding:
    return NamedSharding(self.mesh, BATCH)

  @property
  def replicated(self) -> NamedSharding:
    return NamedSharding(self.mesh, P())

  def split(self, tree: Params) -> tuple[Params, Params]:
    """(trainable, frozen) of a tree with an entry for every parameter."""
    return param_paths.partition(tree, IS_TRAINABLE[self.trainable])


def make_setup(
  folder: ModelFolder,
  config: ModelConfig,
  trainable: str,
  lora_config: lora.LoRAConfig,
  mesh: jax.sharding.Mesh,
) -> Setup:
  """Declares the network of a run; allocates nothing.

  Raises:
    UserError: the mesh does not divide the heads or a parameter.
  """
  heads, parts = folder.transformer.num_heads, mesh.shape['tensor']
  if heads % parts:
    raise UserError(
      f'mesh.tensor is {parts}, which does not divide the {heads} attention '
      'heads; choose another mesh'
    )

  def build(rngs):
    return Transformer(
      folder.transformer,
      dtype=jnp.dtype(config.compute_dtype),
      remat=config.remat,
      attention_backend=config.attention,
      rngs=rngs,
    )

  if trainable == 'lora':
    build = lora.adapted(build, lora_config)
  model = functional(build)
  adapters, base = param_paths.partition(model.abstract_params, lora.is_adapter)
  shardings = partitioning.param_shardings(TRANSFORMER_RULES, base, mesh)
  if adapters:
    # Not every place of the network has adapters.
    names = param_paths.flatten(adapters)
    rules = [
      rule
      for rule in LORA_RULES
      if any(re.fullmatch(rule[0], name) for name in names)
    ]
    shardings = param_paths.merge(
      shardings, partitioning.param_shardings(rules, adapters, mesh)
    )
  return Setup(model, mesh, shardings, trainable)


def load_base(
  setup: Setup, folder: ModelFolder, compute_dtype: str, key: jax.Array
) -> tuple[Params, Params]:
  """(trainable, frozen) parameters before the first step.

  What trains is fp32. Beside adapters the frozen network is kept in the type
  of the computation, which takes half the memory.
  """
  adapters, base = param_paths.partition(
    setup.model.abstract_params, lora.is_adapter
  )
  adapter_shardings, base_shardings = param_paths.partition(
    setup.shardings, lora.is_adapter
  )
  plain = dataclasses.replace(setup.model, abstract_params=base)
  dtype = compute_dtype if adapters else 'float32'
  params = folder.load('transformer', plain, base_shardings, jnp.dtype(dtype))
  if adapters:
    # Only the adapters are results, so only they are made.
    fresh = jax.jit(
      lambda key: param_paths.partition(setup.model.init(key), lora.is_adapter)[
        0
      ],
      out_shardings=adapter_shardings,
    )(key)
    params = param_paths.merge(params, fresh)
  return setup.split(params)


def abstract_state(
  setup: Setup, tx: optax.GradientTransformation, with_ema: bool
) -> tuple[TrainState, TrainState]:
  """Shapes of the state of a run, and where each of them lies."""
  trainable, _ = setup.split(setup.model.abstract_params)
  shardings, _ = setup.split(setup.shardings)
  abstract = jax.eval_shape(
    lambda params: TrainState.create(params, tx, with_ema), trainable
  )
  places = partitioning.like(abstract, trainable, shardings, setup.mesh)
  return abstract, places


def count(params: Any) -> int:
  """Number of parameters of a tree of arrays or shapes."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def belongs_to(
  folder: ModelFolder,
  config: TrainConfig,
  lora_config: lora.LoRAConfig,
  scored: list[ScoredEntry],
  batch_size: int,
) -> dict[str, Any]:
  """What a checkpoint of this run may be continued with."""
  data = [(s.entry.key, s.reward, s.is_real) for s in scored]
  digest = hashlib.sha256(json.dumps(data).encode()).hexdigest()
  adapters = dataclasses.asdict(lora_config)
  adapters['targets'] = list(adapters['targets'])
  return {
    'model': folder.fingerprint('transformer'),
    'trainable': config.trainable,
    'lora': adapters if config.trainable == 'lora' else None,
    'has_ema': config.ema_decay > 0,
    'seed': config.seed,
    'batch_size': batch_size,
    'data': digest[:16],
  }
