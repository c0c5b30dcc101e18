"""The training step of a diffusion model.

The loss comes from an objective, see `training.objectives`.

B examples  F latent frames  h w C height, width and channels of latents
S text tokens  D width of their embeddings
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from lift_jax.diffusion.schedule import Schedule
from lift_jax.models import lora
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.models.latents import LatentScale
from lift_jax.partitioning import constrain
from lift_jax.training.batches import (
  batch_spec,
  merge_micro_batches,
  micro_batches,
  weigh_examples,
)
from lift_jax.training.objectives.objective import (
  UNIT_SIZES,
  Objective,
  Predictions,
)
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths


class LatentBatch(NamedTuple):
  """Encoded videos of one size.

  Attributes:
    mean: posterior mean of the video autoencoder [B, F, h, w, C].
    logvar: its log-variance [B, F, h, w, C].
    text: embedded caption [B, S, D].
    columns: what the objective reads of each example, [B] each.
  """

  mean: jax.Array
  logvar: jax.Array
  text: jax.Array
  columns: dict[str, jax.Array]

  @classmethod
  def of(cls, arrays: Mapping[str, Any], objective: Objective) -> Self:
    """The batch with these arrays, named as in `data.pipeline`."""
    columns = {name: arrays[name] for name in objective.columns}
    return cls(arrays['mean'], arrays['logvar'], arrays['text'], columns)


class Draws(NamedTuple):
  """The random draws of a step.

  Attributes:
    posterior: standard normal [B, F, h, w, C], to sample the latents.
    noise: standard normal [B, F, h, w, C], added to them.
    timesteps: from the schedule's distribution [B].
    drop_caption: whether the caption is replaced by the empty one [B].
  """

  posterior: jax.Array
  noise: jax.Array
  timesteps: jax.Array
  drop_caption: jax.Array


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """Settings of the step.

  Attributes:
    latent_scale: of the model.
    caption_dropout: share of captions replaced by the empty one.
    grad_accum: micro-batches per step.
    ema_decay: of the moving average; 0 keeps none.
    mean_batch: see `batches.weigh_examples`.
  """

  latent_scale: LatentScale
  caption_dropout: float
  grad_accum: int
  ema_decay: float
  mean_batch: float | None = None


def draw(
  key: jax.Array,
  batch: LatentBatch,
  schedule: Schedule,
  caption_dropout: float,
  unit_size: int = 1,
) -> Draws:
  """Independent draws for every unit, the same on any mesh.

  The examples of a unit share all draws but that of the posterior.
  """
  posterior, noise, times, drop = jax.random.split(key, 4)
  num_examples, *latent_shape = batch.mean.shape
  num_units = num_examples // unit_size
  shared = (
    jax.random.normal(noise, (num_units, *latent_shape)),
    schedule.draw_timesteps(times, (num_units,)),
    jax.random.bernoulli(drop, caption_dropout, (num_units,)),
  )
  return Draws(
    jax.random.normal(posterior, batch.mean.shape),
    *(jnp.repeat(x, unit_size, axis=0) for x in shared),
  )


def predict(
  model: FunctionalModel,
  schedule: Schedule,
  latent_scale: LatentScale,
  params: Params,
  batch: LatentBatch,
  draws: Draws,
  null_text: jax.Array,
  reference_params: Params | None = None,
) -> Predictions:
  """Predictions for every example.

  Args:
    params: of the full network.
    null_text: embedding of the empty caption [S, D].
    reference_params: of the full reference network; None does not run it.
  """
  mean = batch.mean.astype(jnp.float32)
  deviation = jnp.exp(0.5 * batch.logvar.astype(jnp.float32))
  x0 = latent_scale.normalize(mean + deviation * draws.posterior)
  noisy = schedule.add_noise(x0, draws.noise, draws.timesteps)
  target = schedule.target(x0, draws.noise, draws.timesteps)
  text = jnp.where(
    draws.drop_caption[:, None, None], null_text[None], batch.text
  )
  reference = None
  if reference_params is not None:
    reference = jax.lax.stop_gradient(
      model(reference_params, noisy, text, draws.timesteps)
    )
  policy = model(params, noisy, text, draws.timesteps)
  return Predictions(
    noisy, draws.timesteps, target, policy, reference, schedule
  )


def reference_params(params: Params, initial: Params) -> Params:
  """Parameters of the reference, from those of the policy.

  Args:
    params: of the full network. Its adapters are switched off.
    initial: the parameters in training before the first step, without adapters.
  """
  initial = param_paths.flatten(initial)

  def choose(name, leaf):
    if lora.is_adapter(name):
      return jnp.zeros_like(leaf)
    return initial.get(name, leaf)

  return param_paths.map_named(choose, params)


def make_evaluate(
  model: FunctionalModel,
  schedule: Schedule,
  objective: Objective,
  latent_scale: LatentScale,
) -> Callable[..., dict[str, jax.Array]]:
  """`evaluate(params, batch, null_text, key, reference)`.

  It returns the `Objective.values` of a batch, with draws that depend on `key`
  alone. `params` is of the full network, `reference` as of `make_train_step`.
  """
  unit_size = UNIT_SIZES[objective.unit]

  def evaluate(params, batch, null_text, key, reference):
    draws = draw(key, batch, schedule, 0.0, unit_size)
    draws = jax.tree.map(lambda x: constrain(x, batch_spec(x.ndim)), draws)
    return objective.values(
      predict(
        model,
        schedule,
        latent_scale,
        params,
        batch,
        draws,
        null_text,
        reference_params(params, reference)
        if objective.needs_reference
        else None,
      )
    )

  return evaluate


def make_train_step(
  model: FunctionalModel,
  schedule: Schedule,
  tx: optax.GradientTransformation,
  objective: Objective,
  config: StepConfig,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """`step(state, frozen, batch, null_text, key, reference)`.

  It returns (state, metrics). Pure; jit it with the state donated. `key` is
  that of the run: the step number is folded in here, so that a resumed run
  repeats the same draws. `reference` holds the `initial` of `reference_params`
  for an objective that needs it, and is {} for others.
  """
  unit_size = UNIT_SIZES[objective.unit]

  def evaluate(trainable, constants, batch, draws):
    frozen, null_text, reference = constants
    params = param_paths.merge(trainable, frozen)
    return objective.values(
      predict(
        model,
        schedule,
        config.latent_scale,
        params,
        batch,
        draws,
        null_text,
        reference_params(params, reference)
        if objective.needs_reference
        else None,
      )
    )

  def loss_fn(trainable, constants, statistics, batch, draws):
    values = evaluate(trainable, constants, batch, draws)
    if statistics is None:  # this is the full batch
      statistics = objective.statistics(
        jax.lax.stop_gradient(values), batch.columns
      )
    return objective.loss(values, batch.columns, statistics), values

  value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

  def accumulate(trainable, constants, batch, draws):
    """Mean loss and gradient over micro-batches, computed in sequence."""
    if config.grad_accum == 1:
      return value_and_grad(trainable, constants, None, batch, draws)

    num_units = len(batch.mean) // unit_size // config.grad_accum
    micro = jax.tree.map(
      lambda x: micro_batches(x, config.grad_accum, unit_size), (batch, draws)
    )

    def merged(values):
      return jax.tree.map(lambda x: merge_micro_batches(x, num_units), values)

    statistics = {}
    if objective.needs_statistics:
      values = jax.lax.map(
        lambda micro: evaluate(trainable, constants, *micro), micro
      )
      statistics = objective.statistics(merged(values), batch.columns)

    def body(total, micro):
      (loss, values), grads = value_and_grad(
        trainable, constants, statistics, *micro
      )
      return jax.tree.map(jnp.add, total, (loss, grads)), values

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, trainable))
    total, values = jax.lax.scan(body, zero, micro)
    loss, grads = jax.tree.map(lambda x: x / config.grad_accum, total)
    return (loss, merged(values)), grads

  def step(state, frozen, batch, null_text, key, reference):
    key = jax.random.fold_in(key, state.step)
    draws = draw(key, batch, schedule, config.caption_dropout, unit_size)
    draws = jax.tree.map(lambda x: constrain(x, batch_spec(x.ndim)), draws)
    (loss, values), grads = accumulate(
      state.trainable, (frozen, null_text, reference), batch, draws
    )
    grads = weigh_examples(grads, len(batch.mean), config.mean_batch)
    metrics = {
      'loss': loss,
      'grad_norm': optax.tree.norm(grads),
      **objective.metrics(values, batch.columns),
    }
    return state.after(grads, tx, config.ema_decay), metrics

  return step
