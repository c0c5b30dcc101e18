"""The network of a run: its trainable parameters and their shardings."""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import optax

from lift_jax import partitioning
from lift_jax.models import lora
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.partitioning import BATCH_AXES
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths
from lift_jax.weights.checkpoints import TrainCheckpoints

IS_TRAINABLE: dict[str, Callable[[str], bool]] = {
  'blocks': lambda name: name.startswith('blocks/'),
  'all': lambda name: True,
  'lora': lora.is_adapter,
}

# In place of a key: the parts that a config section chooses.
PARTS = 'parts'


@dataclasses.dataclass(frozen=True)
class Setup:
  """The network of a run and the shardings of its parameters.

  Attributes:
    model: the network, with adapters if those are trained.
    mesh: all devices.
    shardings: of every parameter.
    trainable: a key of `IS_TRAINABLE`, or `PARTS`.
    is_trainable: whether a parameter is trained, by its name.
  """

  model: FunctionalModel
  mesh: jax.sharding.Mesh
  shardings: Params
  trainable: str
  is_trainable: Callable[[str], bool]

  @property
  def batch_sharding(self) -> NamedSharding:
    return NamedSharding(self.mesh, P(BATCH_AXES))

  @property
  def replicated(self) -> NamedSharding:
    return NamedSharding(self.mesh, P())

  def base_dtype(self, compute_dtype: str) -> jax.numpy.dtype:
    """The dtype of parameters that are not trained.

    With adapters, or if only some parts of the network are trained, it is the
    dtype of the computation, which saves memory.
    """
    is_partial = self.trainable in ('lora', PARTS)
    name = compute_dtype if is_partial else 'float32'
    return jax.numpy.dtype(name)

  def split(self, tree: Params) -> tuple[Params, Params]:
    """(trainable, frozen) of a tree with an entry for every parameter."""
    return param_paths.partition(tree, self.is_trainable)


def make_setup(
  model: FunctionalModel,
  rules: partitioning.Rules,
  trainable: str,
  mesh: jax.sharding.Mesh,
  is_trainable: Callable[[str], bool] | None = None,
) -> Setup:
  """Assigns shardings to the parameters of a network; allocates nothing.

  Args:
    model: the network, with adapters or without.
    rules: for the parameters without adapters; all must match.
    trainable: a key of `IS_TRAINABLE`, or `PARTS`.
    mesh: all devices.
    is_trainable: whether a parameter is trained, by its name; by default as
      `trainable` says.

  Raises:
    UserError: the mesh does not divide a parameter.
  """
  adapters, base = param_paths.partition(model.abstract_params, lora.is_adapter)
  shardings = partitioning.param_shardings(rules, base, mesh)
  if adapters:
    shardings = param_paths.merge(shardings, lora.shardings(adapters, mesh))
  return Setup(
    model, mesh, shardings, trainable, is_trainable or IS_TRAINABLE[trainable]
  )


def load(
  setup: Setup,
  load_base: Callable[[FunctionalModel, Params, Any], Params],
  compute_dtype: str,
  key: jax.Array,
) -> tuple[Params, Params]:
  """(trainable, frozen) parameters before the first step.

  Trainable parameters are fp32; for the others see `Setup.base_dtype`.

  Args:
    load_base: `load_base(model, shardings, dtype)` reads the network without
      its adapters.
    compute_dtype: of the computation.
    key: for new adapters.
  """
  adapters, base = param_paths.partition(
    setup.model.abstract_params, lora.is_adapter
  )
  adapter_shardings, base_shardings = param_paths.partition(
    setup.shardings, lora.is_adapter
  )
  plain = dataclasses.replace(setup.model, abstract_params=base)
  params = load_base(plain, base_shardings, setup.base_dtype(compute_dtype))
  if adapters:
    # XLA removes the rest of the initialisation, as only adapters are returned.
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
  """Shapes of the state of a run, and its shardings."""
  trainable, _ = setup.split(setup.model.abstract_params)
  shardings, _ = setup.split(setup.shardings)
  abstract = jax.eval_shape(
    lambda params: TrainState.create(params, tx, with_ema), trainable
  )
  return abstract, partitioning.like(abstract, trainable, shardings, setup.mesh)


def create_or_restore(
  setup: Setup,
  trainable: Params,
  tx: optax.GradientTransformation,
  with_ema: bool,
  checkpoints: TrainCheckpoints,
  resume_step: int | None,
  iterator: Any,
) -> TrainState:
  """The state before the next step: new, or from a checkpoint.

  Args:
    trainable: parameters before the first step; donated.
    resume_step: step of the checkpoint, or None for a new run.
    iterator: over the data; its position is restored too.
  """
  abstract, shardings = abstract_state(setup, tx, with_ema)
  if resume_step is None:
    create = jax.jit(
      lambda params: TrainState.create(params, tx, with_ema),
      out_shardings=shardings,
      donate_argnums=0,
    )
    return create(trainable)
  jax.tree.map(lambda leaf: leaf.delete(), trainable)
  state, data_state = checkpoints.restore(resume_step, abstract, shardings)
  with checkpoints.reading(resume_step):
    iterator.set_state(data_state)
  return state


def count(params: Any) -> int:
  """Number of parameters of a tree of arrays or shapes."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
