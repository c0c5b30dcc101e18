"""Rank correlations and pairs, against scipy and against brute force."""

import itertools

from absl.testing import parameterized
import numpy as np
import scipy.stats

from lift_jax.evaluation import ranking
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.evaluation.ranking import Pairs, Ranked

CONFIG = BootstrapConfig(draws=50, coverage=0.9, seed=0)


def _scales(seed, num=60, levels=3, is_discrete=False):
  """A noisy reward and a scale of few levels."""
  rng = np.random.default_rng(seed)
  human_n = rng.integers(levels, size=num).astype(float)
  reward_n = human_n + rng.normal(0, 1, num)
  return (np.round(reward_n) if is_discrete else reward_n), human_n


def _ranked(reward, human, caption=None, video=None):
  num = len(reward)
  video = np.arange(num) if video is None else np.array(video)
  caption = np.zeros(num, int) if caption is None else np.array(caption)
  return Ranked(
    np.array(reward), np.array(human), video, caption, int(video.max()) + 1
  )


class CorrelationTest(parameterized.TestCase):
  @parameterized.product(
    seed=(0, 1), levels=(2, 3, 10), is_discrete=(False, True)
  )
  def test_scipy(self, seed, levels, is_discrete):
    reward_n, human_n = _scales(seed, levels=levels, is_discrete=is_discrete)
    ones = np.ones((1, len(human_n)))
    np.testing.assert_allclose(
      ranking.spearman(reward_n, human_n, ones)[0],
      scipy.stats.spearmanr(reward_n, human_n).statistic,
      rtol=1e-12,
    )
    np.testing.assert_allclose(
      ranking.kendall(reward_n, human_n, ones)[0],
      scipy.stats.kendalltau(reward_n, human_n, variant='b').statistic,
      rtol=1e-12,
    )

  @parameterized.parameters(False, True)
  def test_weights_are_repetitions(self, is_discrete):
    reward_n, human_n = _scales(2, is_discrete=is_discrete)
    weights_dn = np.random.default_rng(3).integers(0, 4, (5, len(human_n)))
    spearman_d = ranking.spearman(reward_n, human_n, weights_dn.astype(float))
    kendall_d = ranking.kendall(reward_n, human_n, weights_dn.astype(float))
    for weights_n, spearman, kendall in zip(
      weights_dn, spearman_d, kendall_d, strict=True
    ):
      scales = [np.repeat(scale, weights_n) for scale in (reward_n, human_n)]
      np.testing.assert_allclose(
        spearman, scipy.stats.spearmanr(*scales).statistic, rtol=1e-12
      )
      np.testing.assert_allclose(
        kendall, scipy.stats.kendalltau(*scales).statistic, rtol=1e-12
      )

  def test_constant(self):
    ones = np.ones((1, 4))
    for correlation in (ranking.spearman, ranking.kendall):
      self.assertTrue(np.isnan(correlation(np.ones(4), np.arange(4), ones)[0]))

  def test_rounding_makes_no_order(self):
    """0.1 + 0.2 and 0.3 are one reward."""
    ranked = _ranked([0.1 + 0.2, 0.3], [0, 1])
    pairs = ranking.choose_pairs(ranked, 10, 0)
    numbers = ranking.pairwise(ranked, pairs, None, CONFIG)
    self.assertEqual(numbers['without_ties'].value, 0)


class ChoosePairsTest(parameterized.TestCase):
  def test_same_prompt(self):
    ranked = _ranked(np.zeros(7), np.zeros(7), caption=[5, 2, 5, 1, 5, 2, 0])
    pairs = ranking.choose_pairs(ranked, 100, 0)
    self.assertTrue(pairs.same_prompt)
    self.assertEqual(_found(pairs), _unordered((0, 2), (0, 4), (2, 4), (1, 5)))
    self.assertEqual((len(pairs.first_p), pairs.num_all), (4, 4))

  def test_all_if_no_prompt_has_two(self):
    ranked = _ranked(np.zeros(6), np.zeros(6), caption=range(6))
    pairs = ranking.choose_pairs(ranked, 100, 0)
    self.assertFalse(pairs.same_prompt)
    self.assertEqual(
      _found(pairs), _unordered(*itertools.combinations(range(6), 2))
    )

  def test_never_a_video_with_itself(self):
    ranked = _ranked(
      np.zeros(3), np.zeros(3), caption=[0, 1, 2], video=[0, 0, 1]
    )
    pairs = ranking.choose_pairs(ranked, 9, 0)
    self.assertEqual(_found(pairs), _unordered((0, 2), (1, 2)))

  def test_sampled(self):
    """Of too many pairs a choice without repetition, the same each time."""
    ranked = _ranked(np.zeros(300), np.zeros(300), caption=np.arange(300) % 2)
    pairs = ranking.choose_pairs(ranked, 500, 7)
    self.assertEqual(pairs.num_all, 2 * 150 * 149 // 2)
    found = list(zip(*_sides(pairs), strict=True))
    self.assertLen(set(map(frozenset, found)), 500)
    self.assertTrue(all(first % 2 == second % 2 for first, second in found))
    self.assertTrue(all(first != second for first, second in found))
    self.assertGreater(len({index for pair in found for index in pair}), 250)
    again = ranking.choose_pairs(ranked, 500, 7)
    np.testing.assert_array_equal(pairs.first_p, again.first_p)
    other = ranking.choose_pairs(ranked, 500, 8)
    self.assertTrue((pairs.first_p != other.first_p).any())

  def test_one_clip(self):
    pairs = ranking.choose_pairs(_ranked([0.5], [1]), 10, 0)
    self.assertEqual((len(pairs.first_p), pairs.num_all), (0, 0))


def _sides(pairs: Pairs):
  return pairs.first_p.tolist(), pairs.second_p.tolist()


def _found(pairs: Pairs):
  return _unordered(*zip(*_sides(pairs), strict=True))


def _unordered(*pairs):
  return {frozenset(pair) for pair in pairs}


def _agreement(ranked, pairs, threshold):
  """Three-class accuracy by the definition; None calls no ties."""
  right = 0
  for first, second in zip(*_sides(pairs), strict=True):
    human = np.sign(ranked.human_n[first] - ranked.human_n[second])
    difference = round(ranked.reward_n[first] - ranked.reward_n[second], 9)
    if threshold is None:
      right += human != 0 and np.sign(difference) == human
    else:
      said = 0 if abs(difference) <= threshold else np.sign(difference)
      right += said == human
  return right / len(pairs.first_p)


class PairwiseTest(parameterized.TestCase):
  def test_by_hand(self):
    # Pairs: 0-1 wrong, 0-2 right, 1-2 right by far, 0-3 and others below.
    ranked = _ranked([0.5, 0.6, 0.1, 0.5], [2, 1, 0, 2])
    pairs = ranking.choose_pairs(ranked, 100, 0)
    numbers = ranking.pairwise(ranked, pairs, 0.2, CONFIG)
    # People order five pairs; 0-1 and 3-1 are wrong.
    self.assertAlmostEqual(numbers['without_ties'].value, 3 / 5)
    self.assertAlmostEqual(numbers['human_ties'].value, 1 / 6)
    # 0.2 makes ties of 0-1, 1-3 (wrong) and 0-3 (right); 1-2, 0-2, 3-2 stay.
    self.assertAlmostEqual(numbers['with_ties'].value, 4 / 6)

  def test_no_difference_is_wrong(self):
    """As in the published script, where the human ratings differ."""
    ranked = _ranked([0.5, 0.5], [0, 1])
    pairs = ranking.choose_pairs(ranked, 1, 0)
    numbers = ranking.pairwise(ranked, pairs, None, CONFIG)
    self.assertEqual(numbers['without_ties'].value, 0)

  @parameterized.product(seed=(0, 1, 2), is_discrete=(False, True))
  def test_threshold(self, seed, is_discrete):
    reward_n, human_n = _scales(seed, num=25, is_discrete=is_discrete)
    ranked = _ranked(reward_n, human_n)
    pairs = ranking.choose_pairs(ranked, 10_000, 0)
    threshold, share = ranking.fit_tie_threshold(ranked, pairs)
    sizes = {
      round(abs(ranked.reward_n[first] - ranked.reward_n[second]), 9)
      for first, second in zip(*_sides(pairs), strict=True)
    }
    best = max(
      _agreement(ranked, pairs, candidate) for candidate in (None, *sizes)
    )
    self.assertAlmostEqual(share, best, places=12)
    self.assertAlmostEqual(
      _agreement(ranked, pairs, threshold), best, places=12
    )
    numbers = ranking.pairwise(ranked, pairs, threshold, CONFIG)
    self.assertAlmostEqual(numbers['with_ties'].value, best, places=12)

  def test_no_cut_through_equal_differences(self):
    """One tie and two right answers at one difference: no ties is best.

    The published script may count the tie alone and give 3 of 3.
    """
    ranked = _ranked(
      [0.0, 0.5, 0.0, 0.5, 0.0, 0.5], [0, 0, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2]
    )
    pairs = ranking.choose_pairs(ranked, 10, 0)
    self.assertLen(pairs.first_p, 3)
    threshold, share = ranking.fit_tie_threshold(ranked, pairs)
    self.assertIsNone(threshold)
    self.assertAlmostEqual(share, 2 / 3)

  def test_intervals_resample_videos(self):
    """A pair counts as often as both of its videos were drawn."""
    reward_n, human_n = _scales(4, num=12)
    ranked = _ranked(reward_n, human_n)
    pairs = ranking.choose_pairs(ranked, 100, 0)
    config = BootstrapConfig(draws=1, coverage=0.9, seed=5)
    number = ranking.pairwise(ranked, pairs, None, config)['without_ties']
    drawn = np.random.default_rng(5).integers(12, size=(1, 12))
    count_n = np.bincount(drawn[0], minlength=12)
    right = total = 0
    for first, second in zip(*_sides(pairs), strict=True):
      human = np.sign(human_n[first] - human_n[second])
      weight = count_n[first] * count_n[second] * (human != 0)
      said = np.sign(reward_n[first] - reward_n[second])
      right, total = right + weight * (said == human), total + weight
    self.assertAlmostEqual(number.low, right / total, places=12)
    self.assertAlmostEqual(number.high, right / total, places=12)

  def test_no_pairs(self):
    ranked = _ranked([0.5], [1])
    pairs = ranking.choose_pairs(ranked, 10, 0)
    threshold, share = ranking.fit_tie_threshold(ranked, pairs)
    self.assertIsNone(threshold)
    self.assertTrue(np.isnan(share))
    numbers = ranking.pairwise(ranked, pairs, threshold, CONFIG)
    self.assertIsNone(numbers['without_ties'].value)
