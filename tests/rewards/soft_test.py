"""Beliefs and soft rewards, against the same formulas in float64."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.rewards import soft, weights

IDS = {'Bad': 2, 'Good': 7, 'Normal': 4}
IN_ORDER = [7, 4, 2]


def _softmax(x):
  x = np.exp(x - x.max(-1, keepdims=True))
  return x / x.sum(-1, keepdims=True)


class BeliefTest(parameterized.TestCase):
  @parameterized.parameters((), (5,), (2, 3))
  def test_formula(self, *batch):
    logits = np.random.default_rng(0).normal(0, 4, (*batch, 11))
    belief = jax.jit(lambda x: soft.label_belief(x, IDS))(
      logits.astype(np.float32)
    )
    all_tokens = _softmax(logits)[..., IN_ORDER]
    mass = all_tokens.sum(-1)
    np.testing.assert_allclose(belief.mass, mass, rtol=1e-5)
    np.testing.assert_allclose(
      belief.probabilities, all_tokens / mass[..., None], rtol=1e-5
    )

  def test_bfloat16_is_computed_in_float32(self):
    logits = jnp.array([[0.0, 8.25, 3.5, -1, 4.0, 0, 0, 6.75]], jnp.bfloat16)
    belief = soft.label_belief(logits, IDS)
    exact = _softmax(np.array(logits, np.float64))[..., IN_ORDER]
    self.assertEqual(belief.probabilities.dtype, jnp.float32)
    self.assertEqual(belief.mass.dtype, jnp.float32)
    np.testing.assert_allclose(belief.mass, exact.sum(-1), rtol=1e-5)

  def test_unlikely_labels(self):
    """Their probabilities are all 0 in float32; their ratios are not."""
    logits = np.zeros((1, 11), np.float32)
    logits[:, IN_ORDER] = [-300, -301, -302]
    belief = soft.label_belief(jnp.array(logits), IDS)
    np.testing.assert_array_equal(belief.mass, 0)
    np.testing.assert_allclose(
      belief.probabilities, _softmax(np.array([[0.0, -1, -2]])), rtol=1e-6
    )

  def test_sure_critic(self):
    logits = np.full((1, 11), -np.inf, np.float32)
    logits[:, 7] = 3
    belief = soft.label_belief(jnp.array(logits), IDS)
    np.testing.assert_array_equal(belief.mass, 1)
    np.testing.assert_array_equal(belief.probabilities, [[1, 0, 0]])
    np.testing.assert_array_equal(soft.entropy(belief.probabilities), [0])


class RewardTest(parameterized.TestCase):
  def test_expected_score(self):
    probabilities = jnp.array(
      [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.3, 0.2]]
    )
    np.testing.assert_allclose(
      soft.expected_score(probabilities, weights.RewardMap()),
      [0.9, 0.2, 0.05, 0.45 + 0.06 + 0.01],
      rtol=1e-6,
    )

  def test_sure_critics_soft_reward_is_that_of_its_labels(self):
    labels = ('Good', 'Bad', 'Normal')
    probabilities = jnp.eye(3)[jnp.array([0, 2, 1])]
    reward_map = weights.RewardMap(good=0.8, normal=0.4, bad=0.1)
    reward = weights.video_reward(
      dict(zip(('semantic', 'motion', 'fidelity'), labels, strict=True)),
      reward_map,
    )
    np.testing.assert_allclose(
      soft.soft_reward(probabilities, reward_map), reward, rtol=1e-6
    )

  def test_mean_is_over_dimensions_only(self):
    probabilities = _softmax(np.random.default_rng(1).normal(0, 2, (4, 3, 3)))
    np.testing.assert_allclose(
      soft.soft_reward(jnp.array(probabilities), weights.RewardMap()),
      (probabilities @ [0.9, 0.2, 0.05]).mean(-1),
      rtol=1e-6,
    )

  def test_entropy(self):
    probabilities = np.array([[1 / 3] * 3, [0.5, 0.5, 0], [0.7, 0.2, 0.1]])
    np.testing.assert_allclose(
      soft.entropy(jnp.array(probabilities)),
      [np.log(3), np.log(2), -(probabilities[2] @ np.log(probabilities[2]))],
      rtol=1e-6,
    )
