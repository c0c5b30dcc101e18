"""Validation of a critic: losses and accuracies on held-out records.

B examples  V vocabulary  K answer tokens  N D tokens and width of hidden states
C labels  P pairs  M examples of a pair
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.data.critic_units import Unit
from lift_jax.data.global_batch import to_global
from lift_jax.errors import UserError
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.partitioning import constrain
from lift_jax.training import critic_losses
from lift_jax.training.critic_losses import ANSWERS, LabelScale, LossConfig
from lift_jax.training.critic_step import (
  CriticBatch,
  answer_losses,
  rating_logits,
)

# Sum and number of what is averaged.
_Share = tuple[jax.typing.ArrayLike, jax.typing.ArrayLike]


@dataclasses.dataclass(frozen=True)
class CriticValidationConfig:
  """Validation during training.

  Attributes:
    every_steps: optimizer steps between two validations; 0 makes none. There is
      also one before the first step and one after the last.
  """

  every_steps: int

  def __post_init__(self):
    if self.every_steps < 0:
      raise UserError('validation.every_steps must not be below 0')


@functools.partial(jax.jit, static_argnames=('model', 'max_targets', 'scale'))
def _evaluate(
  model: FunctionalModel,
  params: Params,
  batch: CriticBatch,
  index_b: jax.Array,
  max_targets: int,
  scale: LabelScale | None,
) -> tuple[dict[str, jax.Array], tuple[jax.Array, jax.Array] | None]:
  """Sums over the answers of a batch; index and expected reward of its slots.

  The latter are on every host; None without `scale`.
  """
  hidden_bnd = model(params, batch.frames, batch.tokens)
  loss_bk, is_token_bk, is_correct_bk = answer_losses(
    model, params, hidden_bnd, batch, max_targets
  )
  sums = {
    'loss': jnp.sum(loss_bk * is_token_bk),
    'label_loss': jnp.sum(loss_bk[:, 0] * is_token_bk[:, 0]),
    'correct_tokens': jnp.sum(is_correct_bk),
    'correct_labels': jnp.sum(is_correct_bk[:, 0]),
    'tokens': jnp.sum(is_token_bk),
    'labels': jnp.sum(is_token_bk[:, 0]),
  }
  if scale is None:
    return sums, None
  assert batch.ratings is not None
  logits_bv = rating_logits(model, params, hidden_bnd, batch.ratings)
  shares_bc = batch.ratings.shares
  label_b = critic_losses.label_cross_entropy(logits_bv, shares_bc, scale)
  sums |= {'soft_label_loss': jnp.sum(label_b), 'rated': jnp.sum(shares_bc)}
  reward_b = critic_losses.expected_reward(logits_bv, scale)
  everywhere = jax.sharding.PartitionSpec()
  return sums, (constrain(index_b, everywhere), constrain(reward_b, everywhere))


@functools.partial(jax.jit, static_argnames=('losses', 'scale'))
def _compare(
  reward_pm: jax.Array,
  preference_p3: jax.Array,
  losses: LossConfig,
  scale: LabelScale | None,
) -> critic_losses.Comparison:
  """Compares pairs; of all dimensions if their scale is given."""
  if scale is not None:
    reward_pm = critic_losses.overall_reward(reward_pm, scale)
  return critic_losses.compare(reward_pm, preference_p3, losses)


class CriticValidation:
  """Losses and accuracies on a fixed data set; every host must call it.

  Args:
    batches: `batches()` yields those of `critic_pipeline.validation_batches`,
      each with the examples of this host.
    batch_size: examples per batch over all hosts.
    sharding: of a batch along its first axis.
    model: the critic; pass the same object for the same program.
    max_targets: most answer tokens of an example.
    losses: those of the training.
    scale: labels of the ratings, for losses that need them.
    units: which examples are compared.
  """

  def __init__(
    self,
    batches: Callable[[], Iterator[dict[str, np.ndarray]]],
    batch_size: int,
    sharding: jax.sharding.Sharding,
    model: FunctionalModel,
    max_targets: int,
    losses: LossConfig = ANSWERS,
    scale: LabelScale | None = None,
    units: Sequence[Unit] = (),
  ):
    self._batches = batches
    self._batch_size, self._sharding = batch_size, sharding
    self._model, self._max_targets = model, max_targets
    self._losses, self._scale, self._units = losses, scale, units

  def __call__(self, params: Params) -> dict[str, float]:
    """Means, named 'validation/...', each answer and each pair once.

    They are omitted if there is nothing to average.
    """
    total, rewards = None, {}
    for arrays in self._batches():
      arrays = to_global(arrays, self._batch_size, self._sharding)
      index_b = arrays.pop('index')
      sums, rated = _evaluate(
        self._model,
        params,
        CriticBatch.of(arrays),
        index_b,
        self._max_targets,
        self._scale,
      )
      total = sums if total is None else jax.tree.map(jnp.add, total, sums)
      if rated is not None:
        rewards |= zip(
          *(x.tolist() for x in jax.device_get(rated)), strict=True
        )
    total = jax.device_get(total)
    shares = {
      'loss': (total['loss'], total['tokens']),
      'label_loss': (total['label_loss'], total['labels']),
      'token_accuracy': (total['correct_tokens'], total['tokens']),
      'label_accuracy': (total['correct_labels'], total['labels']),
    }
    if self._losses.label:
      shares['soft_label_loss'] = total['soft_label_loss'], total['rated']
    if self._losses.compares_clips:
      rewards.pop(-1, None)
      shares |= self._compare(rewards)
    return {
      f'validation/{name}': float(value / count)
      for name, (value, count) in shares.items()
      if count
    }

  def _compare(self, rewards: Mapping[int, float]) -> dict[str, _Share]:
    """Losses and accuracies of pairs, from the rewards of their examples."""
    # Preferences by members, as units of a batch may repeat a pair.
    compared = {}
    if self._losses.pair:
      compared['pair'] = dict(
        pair for unit in self._units for pair in unit.pairs
      )
    if self._losses.overall:
      compared['overall'] = {
        unit.members: unit.overall for unit in self._units if any(unit.overall)
      }
    shares = {}
    for name, preferences in compared.items():
      known = [each for each in preferences if rewards.keys() >= {*each}]
      if known:
        found = jax.device_get(
          _compare(
            np.array([[rewards[index] for index in each] for each in known]),
            np.array([preferences[each] for each in known]),
            self._losses,
            self._scale if name == 'overall' else None,
          )
        )
        shares[f'{name}_loss'] = found.loss, found.num_pairs
        shares[f'{name}_accuracy'] = found.num_right, found.num_pairs
    return shares
