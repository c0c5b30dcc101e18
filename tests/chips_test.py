"""The table of accelerators."""

import dataclasses

from absl.testing import parameterized
import pytest

from lift_jax import chips
from lift_jax.chips import CHIPS

pytestmark = pytest.mark.fast


class ChipsTest(parameterized.TestCase):
  @parameterized.parameters(*CHIPS.values())
  def test_complete(self, chip):
    known = {
      field.name: getattr(chip, field.name)
      for field in dataclasses.fields(chip)
      if field.default is None
    }
    missing = {name for name, value in known.items() if value is None}
    expected = {'tpu': set(), 'cuda': {'wrap'}, 'cpu': set(known)}
    self.assertEqual(missing, expected[chip.platform])

  @parameterized.parameters(
    ('cpu', None),
    ('TPU v4', 275e12),
    ('TPU v4 lite', None),
    ('TPU v5 lite', 197e12),
    ('TPU v5', 459e12),
    ('TPU v6 lite', 918e12),
    ('TPU7x', 1153.5e12),
    ('NVIDIA H100 80GB HBM3', 989e12),
    ('NVIDIA H100 PCIe', None),
    ('NVIDIA H200', 989e12),
    ('NVIDIA A100-SXM4-40GB', 312e12),
  )
  def test_peak(self, device_kind, flops):
    self.assertEqual(chips.peak_flops(device_kind), flops)

  def test_sums(self):
    """Per-chip totals as published: both directions of all links."""
    for name, published in (('v5e', 400e9), ('v5p', 1200e9), ('v6e', 800e9)):
      chip = CHIPS[name]
      self.assertEqual(2 * chip.links * chip.link_bandwidth, published)
    half = CHIPS['tpu7x']
    self.assertEqual(2 * 2 * half.links * half.link_bandwidth, 1200e9)
    self.assertEqual(CHIPS['v6e'].dcn_bandwidth, 12.5e9)  # 100 Gbit/s

  @parameterized.parameters(
    ('v5p', [(4, 4)], 2),
    ('v5p', [(8, 8), (4, 4)], 4),
    ('v5p', [(2, 4)], 1),
    ('v5p', [(2, 2), (4, 4)], 3),
    ('v5p', [(6, 6)], 1),
    ('v6e', [(4, 4)], 1),
    ('v6e', [(16, 16), (8, 8)], 3),
    ('v6e', [], 0),
  )
  def test_ring_links(self, name, sides, expected):
    self.assertEqual(chips.ring_links(CHIPS[name], sides), expected)
