"""The table of accelerators."""

import dataclasses

from absl.testing import parameterized

from lift_jax.planning import chips
from lift_jax.planning.chips import CHIPS
from lift_jax.training import metrics


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
    ('v4', 'TPU v4'),
    ('v5e', 'TPU v5 lite'),
    ('v5p', 'TPU v5'),
    ('v6e', 'TPU v6 lite'),
    ('a100', 'NVIDIA A100'),
    ('h100', 'NVIDIA H100'),
    ('h200', 'NVIDIA H200'),
  )
  def test_peaks_of_training(self, name, device_kind):
    self.assertEqual(CHIPS[name].flops, metrics.PEAK_FLOPS[device_kind])

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
