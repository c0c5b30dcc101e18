"""The training step of a critic, on the answers of annotators.

  loss = sum_bt w_b (-log p(answer token t of example b)) / sum_bt w_b

over the answer tokens of the full batch: long answers count more, as in the
reference, which averages over the tokens of the global batch.

B examples  N tokens of a sequence  K most answer tokens of one  V vocabulary
D width
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lift_jax.models.critic_protocols import Frames
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.training.batches import micro_batches
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths


class CriticBatch(NamedTuple):
  """Rated clips, from `data.critic_pipeline`.

  Attributes:
    frames: arrays that the critic's `FrameProcessor` defines, [B, ...] each.
    tokens: int32 [B, N], padded on the right.
    is_target: bool [B, N], the tokens of the answer.
    segment_ids: int32 [B, N], 1 for tokens and 0 for padding.
    weight: fp32 [B], of each example in the loss.
  """

  frames: Frames
  tokens: jax.Array
  is_target: jax.Array
  segment_ids: jax.Array
  weight: jax.Array


@dataclasses.dataclass(frozen=True)
class CriticStepConfig:
  """Settings of the step.

  Attributes:
    max_targets: most answer tokens of an example; logits are computed for
      these positions only.
    grad_accum: micro-batches per step.
    ema_decay: of the moving average; 0 keeps none.
  """

  max_targets: int
  grad_accum: int
  ema_decay: float


def answer_states(
  model: FunctionalModel, params: Params, batch: CriticBatch, max_targets: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Hidden states that predict the answer tokens, in their order.

  Args:
    params: of the full network.

  Returns:
    States [B, K, D]; the tokens int32 [B, K], 0 where the answer has none; and
    whether it has one, bool [B, K].
  """
  hidden_bnd = model(params, batch.frames, batch.tokens)
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
  model: FunctionalModel, params: Params, batch: CriticBatch, max_targets: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """-log p of every answer token.

  Args:
    params: of the full network.

  Returns:
    Losses fp32 [B, K]; whether the answer has such a token, bool [B, K];
    whether it was the most probable one, bool [B, K]. Tokens keep their order.
  """
  hidden_bkd, target_bk, is_token_bk = answer_states(
    model, params, batch, max_targets
  )
  logits_bkv = model(params, hidden_bkd, method='logits')
  loss_bk = optax.softmax_cross_entropy_with_integer_labels(
    logits_bkv, target_bk
  )
  is_correct_bk = jnp.argmax(logits_bkv, axis=-1) == target_bk
  return loss_bk, is_token_bk, is_correct_bk & is_token_bk


def make_critic_step(
  model: FunctionalModel,
  tx: optax.GradientTransformation,
  config: CriticStepConfig,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """`step(state, frozen, batch) -> (state, metrics)`; deterministic."""

  def loss_fn(trainable, frozen, batch, total_weight):
    loss_bk, is_token_bk, is_correct_bk = answer_losses(
      model, param_paths.merge(trainable, frozen), batch, config.max_targets
    )
    weight_bk = batch.weight[:, None] * is_token_bk
    sums = {
      'token_accuracy': jnp.sum(is_correct_bk),
      # The first token of an answer is its label.
      'label_accuracy': jnp.sum(is_correct_bk[:, 0]),
      'label_loss': jnp.sum(loss_bk[:, 0] * is_token_bk[:, 0]),
    }
    return jnp.sum(weight_bk * loss_bk) / total_weight, sums

  value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

  def step(state, frozen, batch):
    num_targets = jnp.sum(batch.is_target)
    total_weight = jnp.sum(batch.weight[:, None] * batch.is_target)

    def body(total, micro):
      result = value_and_grad(state.trainable, frozen, micro, total_weight)
      return jax.tree.map(jnp.add, total, result), None

    if config.grad_accum == 1:
      result = value_and_grad(state.trainable, frozen, batch, total_weight)
    else:
      micro = jax.tree.map(lambda x: micro_batches(x, config.grad_accum), batch)
      first = jax.tree.map(lambda x: x[0], micro)
      zero = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(
          value_and_grad, state.trainable, frozen, first, total_weight
        ),
      )
      result, _ = jax.lax.scan(body, zero, micro)
    (loss, sums), grads = result
    num_answers = jnp.sum(jnp.any(batch.is_target, axis=1))
    metrics = {
      'loss': loss,
      'grad_norm': optax.tree.norm(grads),
      'token_accuracy': sums['token_accuracy'] / num_targets,
      'label_accuracy': sums['label_accuracy'] / num_answers,
      'label_loss': sums['label_loss'] / num_answers,
    }
    return state.after(grads, tx, config.ema_decay), metrics

  return step
