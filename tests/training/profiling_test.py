"""The setting train.profile; `loop_test` has the traces."""

from absl.testing import parameterized

from lift_jax.errors import UserError
from lift_jax.training import profiling


class ParseStepsTest(parameterized.TestCase):
  @parameterized.parameters(
    ('', []), ('1:1', [1]), ('10:3', [10, 11, 12])
  )  # fmt: skip
  def test_steps(self, text, steps):
    self.assertEqual(list(profiling.parse_steps(text)), steps)

  @parameterized.parameters('3', '0:2', '3:0', '3:', ':3', '-1:2', '1:2:3', 'a')
  def test_refused(self, text):
    with self.assertRaisesRegex(UserError, 'train.profile is .*START:COUNT'):
      profiling.parse_steps(text)
