"""Validation of a critic: the same means for any batch size and mesh."""

from absl.testing import parameterized
import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from lift_jax.data.critic_units import Unit
from lift_jax.data.global_batch import local_indices
from lift_jax.partitioning import BATCH_AXES, MeshConfig, make_mesh
from lift_jax.training.critic_losses import LabelScale, LossConfig
from lift_jax.training.critic_step import answer_losses
from lift_jax.training.critic_validation import CriticValidation
from tests.training.critic_pair import BATCH, declare, params_of

MAX_TARGETS = 6
SCALE = LabelScale((7, 11, 30), (0.9, 0.2, 0.05), (1.5, 0.5))
LOSSES = LossConfig(label=1.0, pair=1.0, overall=1.0, pair_scale=10.0)
POSITION = BATCH.segment_ids.sum(1).astype(np.int32) - 1
SHARES = np.array(
  [
    [1, 0, 0], [0.5, 0.25, 0.25], [0, 0, 0], [0, 0, 1],
    [0, 2 / 3, 1 / 3], [0, 0, 1], [1, 0, 0], [0, 1, 0],
  ],
  np.float32,
)  # fmt: skip
FIRST, SAME, SECOND, NONE = (
  (1.0, 0.0, 0.0),
  (0.0, 1.0, 0.0),
  (0.0, 0.0, 1.0),
  (0.0, 0.0, 0.0),
)
# The third has an example that is not in the batches, the last one a pair that
# there was before.
UNITS = (
  Unit((0, 1, 2, 3), (FIRST, NONE), SAME),
  Unit((1, 4, 5, 6), (SECOND, SAME), FIRST),
  Unit((6, 7, 0, 8), (SAME, FIRST), SECOND),
  Unit((2, 3, 6, 7), (NONE, SAME)),
)


def examples_at(numbers, with_ratings):
  """These examples; indices past the end have no target."""
  size = len(BATCH.weight)
  indices = np.minimum(numbers, size - 1)
  is_used = numbers < size
  arrays = {
    field: np.asarray(array)[indices]
    for field, array in BATCH._asdict().items()
    if array is not None  # ratings
  }
  arrays['is_target'] = arrays['is_target'] & is_used[:, None]
  arrays['index'] = np.where(is_used, numbers, -1).astype(np.int32)
  if with_ratings:
    arrays['ratings'] = {
      'position': POSITION[indices],
      'shares': SHARES[indices] * is_used[:, None],
      'preference': np.zeros((len(indices), 3), np.float32),
      'overall': np.zeros((len(indices), 3), np.float32),
    }
  return arrays


def log_outcomes(difference):
  """Rao and Kupper's, with theta 5."""
  e = np.exp(difference)
  same = 24 * e / ((e + 5) * (5 * e + 1))
  return np.log([e / (e + 5), same, 1 / (1 + 5 * e)])


class CriticValidationTest(parameterized.TestCase):
  def expected(self, model, params):
    """Of every answer token by itself."""
    hidden = model(params, BATCH.frames, BATCH.tokens)
    loss, is_there, is_right = jax.tree.map(
      np.asarray, answer_losses(model, params, hidden, BATCH, MAX_TARGETS)
    )
    has_answer = is_there[:, 0]
    return {
      'validation/loss': loss[is_there].mean(),
      'validation/label_loss': loss[has_answer, 0].mean(),
      'validation/token_accuracy': is_right[is_there].mean(),
      'validation/label_accuracy': is_right[has_answer, 0].mean(),
    }

  def expected_of_ratings(self, model, params):
    """Likewise, of every vote and every pair."""
    hidden = model(params, BATCH.frames, BATCH.tokens)
    logits = np.asarray(
      model(params, hidden[np.arange(8), POSITION], method='logits')
    )
    of_labels = logits[:, SCALE.ids]
    log_p = of_labels - np.log(np.exp(logits).sum(1, keepdims=True))
    p = np.exp(of_labels) / np.exp(of_labels).sum(1, keepdims=True)
    reward = p @ SCALE.rewards
    pairs = [(0, 1, 0), (1, 4, 2), (5, 6, 1), (6, 7, 1)]
    both = [(0, 2, 1, 3, 1), (1, 5, 4, 6, 0)]
    found = {
      'pair': [
        (log_outcomes(10 * (reward[a] - reward[b])), best)
        for a, b, best in pairs
      ],
      'overall': [
        (
          log_outcomes(
            7.5 * (reward[a] - reward[b]) + 2.5 * (reward[c] - reward[d])
          ),
          best,
        )
        for a, c, b, d, best in both
      ],
    }
    expected = {
      'validation/soft_label_loss': -(SHARES * log_p).sum() / SHARES.sum()
    }
    for name, compared in found.items():
      expected[f'validation/{name}_loss'] = -np.mean(
        [log_p[best] for log_p, best in compared]
      )
      expected[f'validation/{name}_accuracy'] = np.mean(
        [log_p.argmax() == best for log_p, best in compared]
      )
    return expected

  @parameterized.parameters(
    (4, {'data': 2, 'fsdp': 2, 'tensor': 2}, True), (6, {}, False)
  )
  def test_means(self, batch_size, axes, with_ratings):
    model = declare('all')
    params = params_of('all')
    num_devices = 8 if axes else 1
    mesh = make_mesh(
      MeshConfig(**{'fsdp': 1} | axes), jax.devices()[:num_devices]
    )
    sharding = NamedSharding(mesh, P(BATCH_AXES))
    local = local_indices(sharding, batch_size)

    def batches():
      for start in range(0, len(BATCH.weight), batch_size):
        yield examples_at(start + local, with_ratings)

    ratings = (LOSSES, SCALE, UNITS) if with_ratings else ()
    validation = CriticValidation(
      batches, batch_size, sharding, model, MAX_TARGETS, *ratings
    )
    with jax.set_mesh(mesh):
      found = validation(params)
    expected = self.expected(model, params)
    if with_ratings:
      expected |= self.expected_of_ratings(model, params)
    self.assertEqual(found.keys(), expected.keys())
    for name, value in expected.items():
      self.assertIsInstance(found[name], float)
      np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
