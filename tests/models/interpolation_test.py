"""Resizing against torch.nn.functional.interpolate; sizes and crops."""

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.models import interpolation
from tests.optional import torch

pytestmark = pytest.mark.fast


class ResizeTest(parameterized.TestCase):
  @parameterized.product(
    kind=(interpolation.LINEAR, interpolation.CUBIC),
    sizes=((48, 22), (7, 20), (5, 5), (3, 1), (1, 4)),
  )
  def test_torch(self, kind, sizes):
    old, new = sizes
    values = np.random.default_rng(0).uniform(0, 255, (old, 2))
    mode = {'linear': 'bilinear', 'cubic': 'bicubic'}[kind]
    expected = torch.nn.functional.interpolate(
      torch.tensor(values.astype(np.float32))[None, None],
      size=(new, 2),
      mode=mode,
    )
    actual = interpolation.resize_matrix(old, new, kind) @ values
    np.testing.assert_allclose(actual, expected[0, 0], atol=1e-3)

  def test_ratio(self):
    values = np.random.default_rng(0).normal(size=(14, 14)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
      torch.tensor(values)[None, None],
      scale_factor=(10.1 / 14, 21.1 / 14),
      mode='bicubic',
    )
    rows, columns = (
      interpolation.resize_matrix(
        14, size, interpolation.CUBIC, (size + 0.1) / 14
      )
      for size in (10, 21)
    )
    np.testing.assert_allclose(
      rows @ values @ columns.T, expected[0, 0], atol=1e-5
    )

  @parameterized.parameters(
    ((480, 720), (224, 336)),
    ((720, 480), (336, 224)),
    ((480, 721), (224, 336)),  # 336.47, rounded down
    ((100, 100), (224, 224)),
  )
  def test_shorter_side(self, old, new):
    self.assertEqual(interpolation.shorter_side(*old, 224), new)

  @parameterized.parameters(
    (336, 224, 56), (337, 224, 56), (339, 224, 58), (224, 224, 0)
  )
  def test_central(self, old, new, start):
    """Halves are rounded to even, as Python does."""
    self.assertEqual(interpolation.central(old, new), slice(start, start + new))
