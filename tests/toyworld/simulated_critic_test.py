"""The simulated critic has the intended errors and is overconfident."""

from absl.testing import absltest
import numpy as np

from lift_jax.data.hra import DIMENSIONS, LABELS
from lift_jax.scoring.output import PUBLISHED_KEYS
from lift_jax.toyworld import simulated_critic
from lift_jax.toyworld.checkers import Verdict


def _scores(label: str, count: int = 400):
  verdict = Verdict(label, 'It is so.', ())
  return [
    simulated_critic.score(
      'x.mp4',
      'A clip.',
      dict.fromkeys(DIMENSIONS, verdict),
      np.random.default_rng(seed),
    )
    for seed in range(count)
  ]


class SimulatedCriticTest(absltest.TestCase):
  def test_errs(self):
    """Mostly right, most often in the easiest dimension, and overconfident."""
    for label in LABELS:
      records = [record for record in _scores(label) if 'error' not in record]
      right, sure = {}, {}
      for name in DIMENSIONS:
        right[name] = np.mean([r['labels'][name] == label for r in records])
        sure[name] = np.mean(
          [max(r['probabilities'][name].values()) for r in records]
        )
        self.assertBetween(right[name], 0.4, 0.9)
        if label == 'Normal':  # where errors go both ways
          self.assertGreater(sure[name], right[name] + 0.03)
      self.assertGreater(right['semantic'], right['motion'])

  def test_answers(self):
    """Right labels have the true rationale, wrong ones another."""
    for record in _scores('Bad', 50):
      for name, label in record.get('labels', {}).items():
        answer = record[PUBLISHED_KEYS[name]]
        self.assertStartsWith(answer, f'{label}. ')
        self.assertEqual(label == 'Bad', answer.endswith('It is so.'))
        self.assertAlmostEqual(
          sum(record['probabilities'][name].values()), 1, delta=1e-5
        )

  def test_failures(self):
    """A few clips have an error, and no score."""
    failed = [record for record in _scores('Good') if 'error' in record]
    self.assertBetween(len(failed), 1, 20)
    for record in failed:
      self.assertNotIn('score', record)


if __name__ == '__main__':
  absltest.main()
