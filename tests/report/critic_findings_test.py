"""Findings of a critic's evaluation, in sentences."""

import dataclasses

from absl.testing import parameterized

from lift_jax.report import critic_findings
from tests.evaluation.ratings import ratings
from tests.report.evaluation_results import result_of


class FindingsTest(parameterized.TestCase):
  def _findings(self, *args, **kind):
    result = result_of(ratings(0, 300, **kind), *args)
    return ' '.join(critic_findings.findings(result))

  def test_good(self):
    text = self._findings(ratings(1, 300, noise=0, sharpness=3), noise=0,
                         sharpness=3)  # fmt: skip
    self.assertIn('the critic is better', text)
    self.assertIn('points above its accuracy', text)
    self.assertIn('Temperature scaling changes', text)
    self.assertNotIn('a limit of the search range', text)
    self.assertNotIn('chance', text)

  def test_guessing(self):
    text = self._findings(noise=1000, sharpness=0.001)
    self.assertIn('the difference is not significant', text)
    self.assertIn('not significantly different from chance', text)

  def test_temperature_at_a_limit(self):
    wrong = [
      dataclasses.replace(rating, human=(rating.answer.label + 1) % 3)
      for rating in ratings(1)
    ]
    self.assertIn(
      'The temperature of motion is 20.00, a limit of the search range',
      self._findings(wrong),
    )

  def test_underconfident(self):
    text = self._findings(noise=0, sharpness=0.3)
    self.assertIn('points below its accuracy', text)

  def test_errors(self):
    self.assertIn(
      'no answer for 90 of 900 ratings', self._findings(fail_every=10)
    )
