"""The benchmark of critics on a CPU, at a size that says nothing of speed."""

import pathlib
import sys

from absl.testing import parameterized
import numpy as np
import pytest

for package in ('torch', 'transformers', 'peft'):
  pytest.importorskip(package)

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks'
sys.path.insert(0, str(BENCHMARKS))  # as Python does for a script there

import critic_cpu  # noqa: E402


# PEFT's, with the transformers that is installed.
@pytest.mark.filterwarnings('ignore:.*is_gradient_checkpointing:FutureWarning')
def test_both_sides_compute_the_same(tmp_path):
  """Labels, losses and gradients of a second step too, and a table of it."""
  measured = critic_cpu.measure(critic_cpu.TINY, 1, 1, tmp_path, True)
  table = critic_cpu.markdown(measured)
  for name, line in zip(critic_cpu.GOALS, table[2:4], strict=True):
    (found,) = measured[name]
    assert all(side['seconds'] > 0 for side in found.values())
    assert line.startswith(f'| {name} |')
    for side in ('ours', 'theirs'):
      assert f'| {name}, {side} | s | % |' in table


class OneRoundTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'loss': 2.0}, {'loss': 2.1}, 'loss differ: 2.0 here, 2.1'),
    ({'loss': float('nan')}, {'loss': 2.0}, 'loss differ: nan here'),
    ({'probabilities': np.array([0.1])}, {'probabilities': np.array([0.2])},
     'probabilities differ'),
  )  # fmt: skip
  def test_different_results(self, ours, theirs, message):
    with self.assertRaisesRegex(SystemExit, f'training, round 3: {message}'):
      critic_cpu.one_round('training', 3, lambda: ours, lambda: theirs)
