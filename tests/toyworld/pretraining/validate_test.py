"""The tables that `validate` prints."""

import sys
from unittest import mock

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data.hra import DIMENSIONS
from lift_jax.toyworld.pretraining import validate


class ValidateTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _capsys(self, capsys):
    self.capsys = capsys

  def test_agreement(self):
    confusion = np.stack([np.diag((3, 2, 1)), np.ones((3, 3)), np.eye(3)])
    result = validate.Result(confusion.astype(int))
    self.assertEqual(
      result.agreement(),
      dict(zip(DIMENSIONS, (1.0, 1 / 3, 1.0), strict=True)),
    )

  def test_blank_clips_are_bad(self):
    clips = [validate.draw(index, 0) for index in range(10)]
    result = validate.validate(clips, lambda _, frames: np.zeros_like(frames))
    np.testing.assert_array_equal(result.confusion_dll[..., :2], 0)
    self.assertEqual(result.num_named, 0)

  def test_printed(self):
    with mock.patch.object(sys, 'argv', ['validate', '--num_clips=4']):
      validate.main()
    text = self.capsys.readouterr().out
    for part in ('as rendered', 'after mp4', 'softened', '3 annotators'):
      self.assertIn(part, text)
    self.assertEqual(text.count('right\n'), 9)
