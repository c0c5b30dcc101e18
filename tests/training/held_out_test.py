"""Metrics of pairs that are not trained on."""

import jax
import numpy as np

from lift_jax import partitioning
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.models.latents import LatentScale
from lift_jax.training import step as step_lib
from lift_jax.training.held_out import HeldOutMetrics
from lift_jax.training.objectives.dpo import DPO
from tests.training.objectives import tiny

_DPO = DPO(20.0, 'half', 'sigmoid', 0.0, 0.0)
_KEY = jax.random.key(2)
_EVALUATE = step_lib.make_evaluate(
  tiny.model, ScheduleConfig(), _DPO, LatentScale(1.0)
)


def test_equals_the_metrics_of_all_pairs():
  """Three pairs in two batches, of which the second has one filler."""
  arrays = tiny.arrays()
  order = [[0, 1, 2, 3], [4, 5, 4, 5]]
  mesh = partitioning.make_mesh(partitioning.MeshConfig(fsdp=2, tensor=4))
  sharding = jax.sharding.NamedSharding(mesh, partitioning.BATCH)

  def batches():
    for indices, number in zip(order, (2, 1), strict=True):
      yield {name: x[indices] for name, x in arrays.items()}, number

  metrics = HeldOutMetrics(
    batches, 4, sharding, _DPO, _EVALUATE,
    jax.sharding.NamedSharding(mesh, jax.P()),
  )  # fmt: skip
  with jax.set_mesh(mesh):
    found, again = (
      metrics(tiny.params(), tiny.NULL_TEXT, _KEY, tiny.params(seed=7))
      for _ in range(2)
    )
  assert found == again

  values = []
  for number, indices in enumerate(order):
    batch = step_lib.LatentBatch.of(
      {name: x[indices] for name, x in arrays.items()}, _DPO
    )
    values.append(
      _EVALUATE(
        tiny.params(), batch, tiny.NULL_TEXT,
        jax.random.fold_in(_KEY, number), tiny.params(seed=7),
      )
    )  # fmt: skip
  z = np.concatenate(
    [
      x['winner_reference_error'] - x['winner_error']
      - x['loser_reference_error'] + x['loser_error']
      for x in values
    ]
  )[:3]  # fmt: skip
  np.testing.assert_allclose(found['held_out/logit'], 10 * z.mean(), rtol=1e-4)
  np.testing.assert_allclose(
    found['held_out/logit_max'], 10 * z.max(), rtol=1e-4
  )
  np.testing.assert_allclose(
    found['held_out/implicit_accuracy'], (z > 0).mean(), rtol=1e-6
  )
