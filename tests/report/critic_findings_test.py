"""What the evaluation of a critic comes to, in sentences."""

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
    self.assertIn('it is better than that', text)
    self.assertIn('points higher than the share that is right', text)
    self.assertIn('A temperature takes', text)
    self.assertNotIn('an end of the range', text)
    self.assertNotIn('coin', text)

  def test_guessing(self):
    text = self._findings(noise=1000, sharpness=0.001)
    self.assertIn('whether it is better than that is open', text)
    self.assertIn('a coin would do as well', text)

  def test_temperature_at_an_end(self):
    wrong = [
      dataclasses.replace(rating, human=(rating.answer.label + 1) % 3)
      for rating in ratings(1)
    ]
    self.assertIn(
      'The temperature of motion is 20.00, an end of the range',
      self._findings(wrong),
    )

  def test_modest(self):
    text = self._findings(noise=0, sharpness=0.3)
    self.assertIn('points lower than the share that is right', text)

  def test_errors(self):
    self.assertIn(
      'no answer to 90 of 900 ratings', self._findings(fail_every=10)
    )
