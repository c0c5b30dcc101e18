"""The metrics of an objective on pairs that it is not trained on."""

from collections.abc import Callable, Iterator
import functools

import jax
import numpy as np

from lift_jax.data.global_batch import to_global
from lift_jax.models.functional import Params
from lift_jax.training import metrics as metrics_lib
from lift_jax.training.objectives.objective import UNIT_SIZES, Objective
from lift_jax.training.step import LatentBatch

# `evaluate(params, batch, null_text, key, reference)`, the values of each unit.
Evaluate = Callable[..., dict[str, jax.Array]]


class HeldOutMetrics:
  """Evaluates a policy on the same pairs, noise and timesteps every time.

  Args:
    batches: `batches()` yields (examples of this host, number of units without
      fillers), see `data.pipeline.units_in_order`.
    batch_size: examples per batch over all hosts.
    sharding: of a batch along its first axis.
    objective: of units of one size.
    evaluate: see `step.make_evaluate`.
    replicated: sharding of its results.
  """

  def __init__(
    self,
    batches: Callable[[], Iterator[tuple[dict[str, np.ndarray], int]]],
    batch_size: int,
    sharding: jax.sharding.Sharding,
    objective: Objective,
    evaluate: Evaluate,
    replicated: jax.sharding.Sharding,
  ):
    self._batches = batches
    self._batch_size, self._sharding = batch_size, sharding
    self._objective = objective

    @functools.partial(jax.jit, out_shardings=replicated)
    def run(params, batch, null_text, key, number, reference):
      key = jax.random.fold_in(key, number)
      values = evaluate(params, batch, null_text, key, reference)
      return values, batch.columns

    self._run = run

  def __call__(
    self,
    params: Params,
    null_text: jax.Array,
    key: jax.Array,
    reference: Params,
  ) -> dict[str, float]:
    """Metrics of all pairs, named 'held_out/...'; every host must call it.

    Args:
      params: of the full policy.
      null_text: embedding of the empty caption.
      key: of the draws, the same every time.
      reference: see `step.reference_params`.
    """
    size = self._batch_size // UNIT_SIZES[self._objective.unit]
    parts = []
    for number, (arrays, num_units) in enumerate(self._batches()):
      batch = LatentBatch.of(
        to_global(arrays, self._batch_size, self._sharding), self._objective
      )
      part = self._run(params, batch, null_text, key, number, reference)
      # Without fillers; an array has one or more entries for each unit.
      parts.append(
        jax.tree.map(
          lambda x, n=num_units: np.asarray(x)[: len(x) // size * n], part
        )
      )
    values, columns = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    metrics = self._objective.metrics(values, columns)
    summary = metrics_lib.summarize([metrics])
    return {f'held_out/{name}': value for name, value in summary.items()}
