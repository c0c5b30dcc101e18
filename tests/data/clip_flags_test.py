"""Flags of unusual clips, and the rules about them."""

from absl.testing import parameterized
import pytest

from lift_jax.data import clip_flags
from lift_jax.data.clip_flags import ClipRules
from lift_jax.errors import UserError

pytestmark = pytest.mark.fast


class RulesTest(parameterized.TestCase):
  def test_why_skipped(self):
    rules = ClipRules(skip_flagged=('HDR', 'undecodable frames'))
    self.assertEqual(
      rules.why_skipped(('interlaced', 'HDR: PQ', 'undecodable frames: 3')),
      'flagged HDR: PQ, undecodable frames: 3; see skip_flagged',
    )
    self.assertEqual(rules.why_skipped(('interlaced',)), '')
    self.assertEqual(ClipRules().why_skipped(('HDR: PQ',)), '')

  @parameterized.parameters('hdr', 'HDR: PQ', 'vfr', '')
  def test_unknown_flag(self, name):
    with self.assertRaisesRegex(UserError, f"'{name}'.*'interlaced'"):
      ClipRules(skip_flagged=('HDR', name))

  @parameterized.parameters(-0.1, 1.1, float('nan'))
  def test_no_share(self, share):
    with self.assertRaisesRegex(UserError, 'max_undecodable is'):
      ClipRules(max_undecodable=share)

  def test_count(self):
    flags = [('HDR: PQ',), ('interlaced', 'HDR: HLG'), (), ('black', 'black')]
    self.assertEqual(clip_flags.count(flags), '2 HDR, 1 black, 1 interlaced')
    self.assertEqual(clip_flags.count([(), ()]), '')
