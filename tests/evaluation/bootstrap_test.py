"""Bootstrap intervals: resampling of videos, and coverage."""

from absl.testing import parameterized
import numpy as np

from lift_jax.evaluation import bootstrap, critic_metrics
from lift_jax.evaluation.bootstrap import BootstrapConfig
from tests.evaluation.tables import random_table


def _mean(values_n, video_n, num_videos):
  """The mean of ratings, as a function of how often videos count."""
  columns_n2 = np.column_stack([np.ones(len(values_n)), values_n])
  sums_v2 = bootstrap.per_video(columns_n2, video_n, num_videos)

  def metrics(weights_dv):
    count_d, sum_d = (weights_dv @ sums_v2).T
    return {'mean': bootstrap.ratio(sum_d, count_d)}

  return metrics


class EstimatesTest(parameterized.TestCase):
  def test_as_if_repeated(self):
    """Weighting ratings equals drawing videos and repeating their ratings."""
    table = random_table(num=60, num_videos=15)
    config = BootstrapConfig(draws=200, coverage=0.8, seed=3)
    number = critic_metrics.agreement(table, config)['accuracy']
    drawn_dv = np.random.default_rng(3).integers(15, size=(200, 15))
    is_right_n = table.human_n == table.answer_n
    shares = [
      np.concatenate([is_right_n[table.video_n == v] for v in drawn_v]).mean()
      for drawn_v in drawn_dv
    ]
    np.testing.assert_allclose(
      (number.low, number.high), np.quantile(shares, (0.1, 0.9)), rtol=1e-12
    )

  def test_width(self):
    """With one rating per video: the standard error of a mean."""
    values_n = np.random.default_rng(0).normal(size=400)
    number = bootstrap.estimates(
      _mean(values_n, np.arange(400), 400), 400, 2,
      BootstrapConfig(draws=4000, coverage=0.95, seed=0),
    )['mean']  # fmt: skip
    half = 1.96 * values_n.std() / 20
    np.testing.assert_allclose(number.high - number.low, 2 * half, rtol=0.06)
    np.testing.assert_allclose(number.low, values_n.mean() - half, atol=0.01)

  def test_ratings_of_a_video_are_correlated(self):
    """Saying everything three times does not make it surer."""
    values_n = np.random.default_rng(0).normal(size=100)
    config = BootstrapConfig(draws=500, coverage=0.95, seed=0)
    once = bootstrap.estimates(
      _mean(values_n, np.arange(100), 100), 100, 2, config
    )
    thrice = bootstrap.estimates(
      _mean(np.tile(values_n, 3), np.tile(np.arange(100), 3), 100), 100, 2,
      config,
    )  # fmt: skip
    np.testing.assert_allclose(
      (once['mean'].low, once['mean'].high),
      (thrice['mean'].low, thrice['mean'].high),
      rtol=1e-9,
    )

  def test_chunks(self):
    """The chunk size does not change the resamples."""
    table = random_table(num=60, num_videos=15)
    config = BootstrapConfig(draws=50, coverage=0.9, seed=1)
    metrics = _mean(table.human_n, table.video_n, 15)
    whole = bootstrap.estimates(metrics, 15, 1, config)
    parts = bootstrap.estimates(metrics, 15, bootstrap._CHUNK // 3, config)
    np.testing.assert_allclose(
      (whole['mean'].low, whole['mean'].high),
      (parts['mean'].low, parts['mean'].high),
      rtol=1e-12,
    )

  def test_undefined(self):
    config = BootstrapConfig(draws=5, coverage=0.9, seed=1)
    number = bootstrap.estimates(
      lambda weights_dv: {'x': np.full(len(weights_dv), np.nan)}, 3, 1, config
    )['x']
    self.assertEqual(number, bootstrap.Estimate(None, None, None))
