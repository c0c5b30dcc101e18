"""Roofline estimates, against values computed by hand."""

import dataclasses

from absl.testing import parameterized
import pytest

from lift_jax.chips import CHIPS
from lift_jax.planning import roofline

pytestmark = pytest.mark.fast

WORK = roofline.Work(
  model_flops=3 * 459e12,
  flops=4 * 459e12,
  hbm_bytes=2765e9,
  ici_bytes={('fsdp',): 400e9, ('data', 'fsdp'): 600e9},
  dcn_bytes=0.5 * 6.25e9,
  videos=2.0,
)
LINKS = {'data': 4, 'fsdp': 2}


class EstimateTest(parameterized.TestCase):
  def test_v5p(self):
    found = roofline.estimate(WORK, CHIPS['v5p'], LINKS)
    # Links with 100 GB/s: two carry 400 GB, six 600 GB.
    self.assertEqual(
      found.seconds, {'compute': 4.0, 'hbm': 1.0, 'ici': 3.0, 'dcn': 0.5}
    )
    self.assertEqual(found.bound, 'compute')
    self.assertEqual(found.overlapped, roofline.Outcome(4.0, 0.5, 0.75))
    self.assertEqual(found.in_turn, roofline.Outcome(8.5, 2 / 8.5, 3 / 8.5))

  @parameterized.parameters(
    ('hbm', {'hbm_bytes': 10 * 2765e9}),
    ('ici', {'ici_bytes': {('fsdp',): 10 * 200e9}}),
    ('dcn', {'dcn_bytes': 10 * 6.25e9}),
  )
  def test_bound(self, bound, change):
    work = dataclasses.replace(WORK, **change)
    found = roofline.estimate(work, CHIPS['v5p'], LINKS)
    self.assertEqual(found.bound, bound)
    self.assertAlmostEqual(found.overlapped.seconds, 10.0)

  def test_links_of_a_chip_at_most(self):
    work = dataclasses.replace(WORK, ici_bytes={('data', 'fsdp'): 600e9})
    found = roofline.estimate(work, CHIPS['v5p'], {'data': 6, 'fsdp': 6})
    self.assertEqual(found.seconds['ici'], 1.0)

  def test_two_devices_a_chip(self):
    work = dataclasses.replace(
      WORK, flops=2307e12 / 2, hbm_bytes=0.0, ici_bytes={}, dcn_bytes=0.0
    )
    found = roofline.estimate(work, CHIPS['tpu7x'], {})
    self.assertEqual(found.in_turn.videos_per_second_per_chip, 4.0)

  def test_switch(self):
    work = dataclasses.replace(WORK, ici_bytes={('data', 'fsdp'): 900e9})
    found = roofline.estimate(work, CHIPS['h100'], {'data': 1, 'fsdp': 1})
    self.assertEqual(found.seconds['ici'], 2.0)

  def test_unknown(self):
    self.assertIsNone(roofline.estimate(WORK, CHIPS['cpu'], LINKS))
