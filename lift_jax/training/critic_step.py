"""The training step of a critic, on the answers of annotators.

  answer = sum_bt w_b (-log p(answer token t of example b)) / sum_bt w_b

over the answer tokens of the full batch: long answers count more, as in the
reference, which averages over the tokens of the global batch. The losses of
`critic_losses` are averaged over the rated examples, with the same weights, and
over the pairs, in a dimension or overall, of the full batch. All of them are
added with their weights.

B examples  N tokens of a sequence  K most answer tokens of one  V vocabulary
D width  C labels
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from lift_jax.models import lora
from lift_jax.models.critic_protocols import Frames
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.training import critic_losses
from lift_jax.training.batches import micro_batches, weigh_examples
from lift_jax.training.critic_losses import ANSWERS, LabelScale, LossConfig
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths


class Ratings(NamedTuple):
  """What the losses of `critic_losses` take, from `data.critic_pipeline`.

  Attributes:
    position: int32 [B], of the token that predicts the label.
    shares: fp32 [B, C], of each label among the votes; 0 for an example without
      votes.
    preference: fp32 [B, 3], of the pair that slots 2i and 2i + 1 are, the same
      in both: see `critic_losses.pair_losses`.
    overall: likewise, of the two clips of all dimensions that a unit is, the
      same in all of its slots.
  """

  position: jax.Array
  shares: jax.Array
  preference: jax.Array
  overall: jax.Array


class CriticBatch(NamedTuple):
  """Rated clips, from `data.critic_pipeline`.

  Attributes:
    frames: arrays that the critic's `FrameProcessor` defines, [B, ...] each.
    tokens: int32 [B, N], padded on the right.
    is_target: bool [B, N], the tokens of the answer.
    segment_ids: int32 [B, N], 1 for tokens and 0 for padding.
    weight: fp32 [B], of each example in the loss.
    ratings: for the losses that need them.
  """

  frames: Frames
  tokens: jax.Array
  is_target: jax.Array
  segment_ids: jax.Array
  weight: jax.Array
  ratings: Ratings | None = None

  @classmethod
  def of(cls, arrays: Mapping[str, Any]) -> Self:
    """A batch of `data.critic_pipeline`, whose ratings are a dict."""
    arrays = dict(arrays)
    ratings = arrays.pop('ratings', None)
    return cls(**arrays, ratings=Ratings(**ratings) if ratings else None)


@dataclasses.dataclass(frozen=True)
class CriticStepConfig:
  """Settings of the step.

  Attributes:
    max_targets: most answer tokens of an example; logits are computed for
      these positions only.
    grad_accum: micro-batches per step.
    ema_decay: of the moving average; 0 keeps none.
    losses: their weights.
    scale: labels of the ratings; None if the answers are the only loss.
    dropout_seed: of the dropout of adapters, which depends on it and on the
      step alone.
    mean_batch: see `batches.weigh_examples`.
  """

  max_targets: int
  grad_accum: int
  ema_decay: float
  losses: LossConfig = ANSWERS
  scale: LabelScale | None = None
  dropout_seed: int = 0
  mean_batch: float | None = None

  @property
  def unit_size(self) -> int:
    """Examples that stay together; see `LossConfig.unit_size`."""
    scale = self.scale
    return self.losses.unit_size(len(scale.dimension_weights) if scale else 0)


def answer_states(
  hidden_bnd: jax.Array, batch: CriticBatch, max_targets: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Hidden states that predict the answer tokens, in their order.

  Args:
    hidden_bnd: of the network.

  Returns:
    States [B, K, D]; the tokens int32 [B, K], 0 where the answer has none; and
    whether it has one, bool [B, K].
  """
  # Positions of the answer come first, in their order.
  order_bn = jnp.argsort(~batch.is_target, axis=1, stable=True)
  position_bk = order_bn[:, :max_targets]
  is_token_bk = jnp.take_along_axis(batch.is_target, position_bk, axis=1)
  target_bk = jnp.take_along_axis(batch.tokens, position_bk, axis=1)
  target_bk = jnp.where(is_token_bk, target_bk, 0)
  # The logits at a position predict the next token.
  previous_bk = jnp.maximum(position_bk - 1, 0)
  hidden_bkd = jnp.take_along_axis(hidden_bnd, previous_bk[:, :, None], axis=1)
  return hidden_bkd, target_bk, is_token_bk


def answer_losses(
  model: FunctionalModel,
  params: Params,
  hidden_bnd: jax.Array,
  batch: CriticBatch,
  max_targets: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """-log p of every answer token.

  Args:
    model: the critic.
    params: of the full network.
    hidden_bnd: of the network on the batch.
    batch: of which `tokens` and `is_target` are read.
    max_targets: most answer tokens of an example.

  Returns:
    Losses fp32 [B, K]; whether the answer has such a token, bool [B, K];
    whether it was the most probable one, bool [B, K]. Tokens keep their order.
  """
  hidden_bkd, target_bk, is_token_bk = answer_states(
    hidden_bnd, batch, max_targets
  )
  logits_bkv = model(params, hidden_bkd, method='logits')
  loss_bk = optax.softmax_cross_entropy_with_integer_labels(
    logits_bkv, target_bk
  )
  is_correct_bk = jnp.argmax(logits_bkv, axis=-1) == target_bk
  return loss_bk, is_token_bk, is_correct_bk & is_token_bk


def rating_logits(
  model: FunctionalModel,
  params: Params,
  hidden_bnd: jax.Array,
  ratings: Ratings,
) -> jax.Array:
  """Logits [B, V] of the token that is the label; as `answer_losses`."""
  position_b11 = ratings.position[:, None, None]
  hidden_bd = jnp.take_along_axis(hidden_bnd, position_b11, axis=1)[:, 0]
  return model(params, hidden_bd, method='logits')


class _Totals(NamedTuple):
  """What the losses of a full batch are divided by."""

  answer: jax.Array
  label: jax.Array
  pair: jax.Array
  overall: jax.Array


def _totals(batch: CriticBatch, unit_size: int) -> _Totals:
  def at_least_one(total):
    return jnp.where(total > 0, total, 1.0)

  answer = jnp.sum(batch.weight[:, None] * batch.is_target)
  if batch.ratings is None:
    return _Totals(answer, *[jnp.ones(())] * 3)
  label = jnp.sum(batch.weight * jnp.sum(batch.ratings.shares, axis=1))
  pair = jnp.sum(batch.ratings.preference[::2])
  overall = jnp.sum(batch.ratings.overall[::unit_size])
  return _Totals(*map(at_least_one, (answer, label, pair, overall)))


def _rating_losses(model, params, hidden_bnd, batch, totals, config):
  """The sum of the losses of `critic_losses`, and sums for metrics."""
  losses, scale, ratings = config.losses, config.scale, batch.ratings
  assert scale is not None and ratings is not None
  logits_bv = rating_logits(model, params, hidden_bnd, ratings)
  loss, sums = 0.0, {}
  if losses.label:
    label_b = critic_losses.label_cross_entropy(
      logits_bv, ratings.shares, scale
    )
    label = jnp.sum(batch.weight * label_b) / totals.label
    loss += losses.label * label
    sums['soft_label_loss'] = label
  reward_b = critic_losses.expected_reward(logits_bv, scale)
  compared = {}
  if losses.pair:
    compared['pair'] = reward_b.reshape(-1, 2), ratings.preference[::2]
  if losses.overall:
    compared['overall'] = (
      critic_losses.overall_reward(reward_b, scale),
      ratings.overall[:: config.unit_size],
    )
  for name, (reward_p2, preference_p3) in compared.items():
    found = critic_losses.compare(reward_p2, preference_p3, losses)
    loss += getattr(losses, name) * found.loss / getattr(totals, name)
    sums |= {
      f'sum/{name}_loss': found.loss,
      f'count/{name}_loss': found.num_pairs,
      f'sum/{name}_accuracy': found.num_right,
      f'count/{name}_accuracy': found.num_pairs,
    }
  return loss, sums


def make_critic_step(
  model: FunctionalModel,
  tx: optax.GradientTransformation,
  config: CriticStepConfig,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """`step(state, frozen, batch) -> (state, metrics)`; deterministic.

  Args:
    model: the critic; with dropout if `lora.with_dropout` built it.
    tx: the optimizer.
    config: settings.
  """
  losses, unit_size = config.losses, config.unit_size

  def loss_fn(trainable, frozen, batch, totals, key):
    params = param_paths.merge(trainable, frozen)
    params = param_paths.merge(
      params, lora.dropout_keys(model.abstract_params, key)
    )
    hidden_bnd = model(params, batch.frames, batch.tokens)
    loss_bk, is_token_bk, is_correct_bk = answer_losses(
      model, params, hidden_bnd, batch, config.max_targets
    )
    weight_bk = batch.weight[:, None] * is_token_bk
    sums = {
      'token_accuracy': jnp.sum(is_correct_bk),
      # The first token of an answer is its label.
      'label_accuracy': jnp.sum(is_correct_bk[:, 0]),
      'label_loss': jnp.sum(loss_bk[:, 0] * is_token_bk[:, 0]),
    }
    loss = 0.0
    if losses.answer:
      loss = losses.answer * jnp.sum(weight_bk * loss_bk) / totals.answer
    if losses.needs_ratings:
      more, rating_sums = _rating_losses(
        model, params, hidden_bnd, batch, totals, config
      )
      loss, sums = loss + more, sums | rating_sums
    return loss, sums

  value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

  def step(state, frozen, batch):
    totals = _totals(batch, unit_size)
    key = jax.random.fold_in(jax.random.key(config.dropout_seed), state.step)

    def gradient(micro, index):
      return value_and_grad(
        state.trainable, frozen, micro, totals, jax.random.fold_in(key, index)
      )

    if config.grad_accum == 1:
      result = gradient(batch, 0)
    else:
      micro = jax.tree.map(
        lambda x: micro_batches(x, config.grad_accum, unit_size), batch
      )
      first = jax.tree.map(lambda x: x[0], micro)
      zero = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(gradient, first, 0),
      )
      result, _ = jax.lax.scan(
        lambda total, one: (jax.tree.map(jnp.add, total, gradient(*one)), None),
        zero,
        (micro, jnp.arange(config.grad_accum)),
      )
    (loss, sums), grads = result
    grads = weigh_examples(grads, len(batch.tokens), config.mean_batch)
    metrics = {'loss': loss, 'grad_norm': optax.tree.norm(grads)} | sums
    metrics |= _means(sums, batch)
    return state.after(grads, tx, config.ema_decay), metrics

  return step


def _means(sums: dict[str, Any], batch: CriticBatch) -> dict[str, jax.Array]:
  """The metrics of answers, by token or by answer."""
  # Of a batch of pairs, none may be rated.
  num_targets = jnp.maximum(jnp.sum(batch.is_target), 1)
  num_answers = jnp.maximum(jnp.sum(jnp.any(batch.is_target, axis=1)), 1)
  return {
    'token_accuracy': sums['token_accuracy'] / num_targets,
    'label_accuracy': sums['label_accuracy'] / num_answers,
    'label_loss': sums['label_loss'] / num_answers,
  }
