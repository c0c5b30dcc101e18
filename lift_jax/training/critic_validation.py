"""Loss and accuracy of a critic in training, on held-out answers."""

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
  """Validation on the way.

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
  loss_bk, is_there_bk, is_right_bk = answer_losses(
    model, params, batch, max_targets
  )
  return {
    'loss': jnp.sum(loss_bk * is_there_bk),
    'label_loss': jnp.sum(loss_bk[:, 0] * is_there_bk[:, 0]),
    'right_tokens': jnp.sum(is_right_bk),
    'right_labels': jnp.sum(is_right_bk[:, 0]),
    'tokens': jnp.sum(is_there_bk),
    'labels': jnp.sum(is_there_bk[:, 0]),
  }


class CriticValidation:
  """Loss and accuracy over a fixed set; every host must call it.

  Args:
    batches: `batches()` gives the rows of this host, batch by batch.
    batch_size: rows of a batch over all hosts.
    sharding: of a batch along its first axis.
    model: the critic; pass the same object for the same program.
    max_targets: answer tokens of a row at most.
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
        total['right_tokens'] / total['tokens']
      ),
      'validation/label_accuracy': float(
        total['right_labels'] / total['labels']
      ),
    }
