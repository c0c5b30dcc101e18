"""Validation of a critic: loss and accuracy on held-out answers."""

from collections.abc import Callable, Iterator
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.data.global_batch import to_global
from lift_jax.errors import UserError
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.training.critic_step import CriticBatch, answer_losses


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


@functools.partial(jax.jit, static_argnames=('model', 'max_targets'))
def _sums(
  model: FunctionalModel, params: Params, batch: CriticBatch, max_targets: int
) -> dict[str, jax.Array]:
  loss_bk, is_token_bk, is_correct_bk = answer_losses(
    model, params, batch, max_targets
  )
  return {
    'loss': jnp.sum(loss_bk * is_token_bk),
    'label_loss': jnp.sum(loss_bk[:, 0] * is_token_bk[:, 0]),
    'correct_tokens': jnp.sum(is_correct_bk),
    'correct_labels': jnp.sum(is_correct_bk[:, 0]),
    'tokens': jnp.sum(is_token_bk),
    'labels': jnp.sum(is_token_bk[:, 0]),
  }


class CriticValidation:
  """Loss and accuracy on a fixed data set; every host must call it.

  Args:
    batches: `batches()` yields batches, each with the examples of this host.
    batch_size: examples per batch over all hosts.
    sharding: of a batch along its first axis.
    model: the critic; pass the same object for the same program.
    max_targets: most answer tokens of an example.
  """

  def __init__(
    self,
    batches: Callable[[], Iterator[dict[str, np.ndarray]]],
    batch_size: int,
    sharding: jax.sharding.Sharding,
    model: FunctionalModel,
    max_targets: int,
  ):
    self._batches = batches
    self._batch_size, self._sharding = batch_size, sharding
    self._model, self._max_targets = model, max_targets

  def __call__(self, params: Params) -> dict[str, float]:
    """Means over all answers, named 'validation/...'."""
    total = None
    for arrays in self._batches():
      batch = CriticBatch(**to_global(arrays, self._batch_size, self._sharding))
      sums = _sums(self._model, params, batch, self._max_targets)
      total = sums if total is None else jax.tree.map(jnp.add, total, sums)
    total = jax.device_get(total)
    return {
      'validation/loss': float(total['loss'] / total['tokens']),
      'validation/label_loss': float(total['label_loss'] / total['labels']),
      'validation/token_accuracy': float(
        total['correct_tokens'] / total['tokens']
      ),
      'validation/label_accuracy': float(
        total['correct_labels'] / total['labels']
      ),
    }
