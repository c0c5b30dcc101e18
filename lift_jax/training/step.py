"""One step of reward-weighted fine-tuning, jitted as a whole.

B batch  F latent frames  A micro-batches of an accumulated step
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lift_jax.diffusion.schedule import Schedule
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.partitioning import constrain
from lift_jax.training import losses
from lift_jax.training.batches import batch_spec, micro_batches
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths

# Upper ends of the reward ranges whose losses are logged apart; the ten scores
# that LiFT's labels can give fall into all of them.
REWARD_EDGES = (0.1, 0.3, 0.5, 0.7, 1.0)


class Batch(NamedTuple):
  """Scored, encoded videos, all of one size.

  Attributes:
    mean: posterior mean of the video autoencoder [B, F, h, w, C].
    logvar: its log-variance [B, F, h, w, C].
    text: embedded caption [B, S, D].
    reward: in [0, 1] [B].
    is_real: whether the video was filmed, not generated [B].
  """

  mean: jax.Array
  logvar: jax.Array
  text: jax.Array
  reward: jax.Array
  is_real: jax.Array


class Draws(NamedTuple):
  """What is random in a step.

  Attributes:
    posterior: standard normal [B, F, h, w, C], picks the latents.
    noise: standard normal [B, F, h, w, C], is added to them.
    timesteps: int32 [B].
    drop_caption: whether the caption is replaced by the empty one [B].
  """

  posterior: jax.Array
  noise: jax.Array
  timesteps: jax.Array
  drop_caption: jax.Array


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """What the loss is made of.

  Attributes:
    scaling_factor: latents are multiplied by it (from the VAE's config).
    real_weight: lambda of the real videos.
    caption_dropout: share of captions replaced by the empty one.
    grad_accum: micro-batches of a step.
    ema_decay: of the moving average; 0 keeps none.
  """

  scaling_factor: float
  real_weight: float
  caption_dropout: float
  grad_accum: int
  ema_decay: float


def draw(
  key: jax.Array, batch: Batch, num_timesteps: int, caption_dropout: float
) -> Draws:
  """Independent draws for every sample, the same on any mesh."""
  posterior, noise, times, drop = jax.random.split(key, 4)
  size = batch.reward.shape
  return Draws(
    jax.random.normal(posterior, batch.mean.shape),
    jax.random.normal(noise, batch.mean.shape),
    jax.random.randint(times, size, 0, num_timesteps),
    jax.random.bernoulli(drop, caption_dropout, size),
  )


def sample_errors(
  model: FunctionalModel,
  schedule: Schedule,
  scaling_factor: float,
  params: Params,
  batch: Batch,
  draws: Draws,
  null_text: jax.Array,
) -> jax.Array:
  """Velocity error of every sample, fp32 [B].

  Args:
    params: the whole network.
    null_text: embedding of the empty caption [S, D].
  """
  mean = batch.mean.astype(jnp.float32)
  deviation = jnp.exp(0.5 * batch.logvar.astype(jnp.float32))
  x0 = scaling_factor * (mean + deviation * draws.posterior)
  noisy = schedule.add_noise(x0, draws.noise, draws.timesteps)
  target = schedule.velocity(x0, draws.noise, draws.timesteps)
  text = jnp.where(
    draws.drop_caption[:, None, None], null_text[None], batch.text
  )
  predicted = model(params, noisy, text, draws.timesteps)
  return losses.velocity_error(predicted, target)


def make_train_step(
  model: FunctionalModel,
  schedule: Schedule,
  tx: optax.GradientTransformation,
  config: StepConfig,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """`step(state, frozen, batch, null_text, key) -> (state, metrics)`.

  Pure; jit it with the state donated. `key` is that of the run: the step
  number is folded in here, so that a resumed run replays the same draws.
  """

  def loss_fn(trainable, frozen, batch, draws, null_text):
    error_b = sample_errors(
      model,
      schedule,
      config.scaling_factor,
      param_paths.merge(trainable, frozen),
      batch,
      draws,
      null_text,
    )
    weight_b = losses.likelihood_weights(
      batch.reward, batch.is_real, config.real_weight
    )
    return losses.reward_weighted(error_b, weight_b), error_b

  value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

  def accumulate(trainable, frozen, batch, draws, null_text):
    """Mean loss and gradient over micro-batches, one after the other."""
    if config.grad_accum == 1:
      return value_and_grad(trainable, frozen, batch, draws, null_text)

    def body(total, micro):
      (loss, error_b), grads = value_and_grad(
        trainable, frozen, *micro, null_text
      )
      return jax.tree.map(jnp.add, total, (loss, grads)), error_b

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, trainable))
    micro = jax.tree.map(
      lambda x: micro_batches(x, config.grad_accum), (batch, draws)
    )
    total, error_ab = jax.lax.scan(body, zero, micro)
    loss, grads = jax.tree.map(lambda x: x / config.grad_accum, total)
    return (loss, error_ab.swapaxes(0, 1).reshape(-1)), grads

  def step(state, frozen, batch, null_text, key):
    key = jax.random.fold_in(key, state.step)
    draws = draw(key, batch, schedule.num_timesteps, config.caption_dropout)
    draws = jax.tree.map(lambda x: constrain(x, batch_spec(x.ndim)), draws)
    (loss, error_b), grads = accumulate(
      state.trainable, frozen, batch, draws, null_text
    )
    metrics = {
      'loss': loss,
      'grad_norm': optax.tree.norm(grads),
      **_batch_metrics(batch, error_b, config.real_weight),
    }
    return state.after(grads, tx, config.ema_decay), metrics

  return step


def _batch_metrics(batch: Batch, error_b, real_weight: float):
  """Sums over the batch; the loop turns them into means over many steps."""
  weight_b = losses.likelihood_weights(batch.reward, batch.is_real, real_weight)
  metrics = {
    'reward': jnp.mean(batch.reward),
    'effective_sample_share': losses.effective_sample_share(weight_b),
  }
  low = -1.0
  for high in REWARD_EDGES:
    inside = (batch.reward > low) & (batch.reward <= high) & ~batch.is_real
    metrics[f'error_sum/reward_to_{high}'] = jnp.sum(error_b * inside)
    metrics[f'error_count/reward_to_{high}'] = jnp.sum(inside)
    low = high
  metrics['error_sum/real'] = jnp.sum(error_b * batch.is_real)
  metrics['error_count/real'] = jnp.sum(batch.is_real)
  return metrics
