"""Means over an interval, and the files they go to."""

import json
from unittest import mock

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.training import metrics


class SummarizeTest(parameterized.TestCase):
  def test_means(self):
    steps = [
      {'loss': 1.0, 'error_sum/real': 6.0, 'error_count/real': 3,
       'error_sum/reward_to_0.1': 0.0, 'error_count/reward_to_0.1': 0},
      {'loss': 2.0, 'error_sum/real': 2.0, 'error_count/real': 1,
       'error_sum/reward_to_0.1': 0.0, 'error_count/reward_to_0.1': 0},
    ]  # fmt: skip
    # Over samples, not over steps; and nothing of a kind that did not occur.
    self.assertEqual(metrics.summarize(steps), {'loss': 1.5, 'loss/real': 2.0})

  @parameterized.parameters(
    ('cpu', None),
    ('TPU v5 lite', 197e12),
    ('TPU v5', 459e12),
    ('TPU v6 lite', 918e12),
    ('NVIDIA H100 80GB HBM3', 989e12),
    ('NVIDIA H200', 989e12),
    ('NVIDIA A100-SXM4-40GB', 312e12),
  )
  def test_peak(self, kind, peak):
    device = mock.Mock(device_kind=kind)
    self.assertEqual(metrics.peak_flops(device), peak)


class WriterTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path
    self.path = tmp_path / 'metrics.jsonl'

  def writer(self, resume_step=0, enabled=True):
    return metrics.MetricWriter(
      self.folder, enabled=enabled, wandb_project='', resume_step=resume_step
    )

  def lines(self):
    return [json.loads(line) for line in self.path.read_text().splitlines()]

  def test_lines(self):
    with self.writer() as writer:
      for step in (1, 2):
        writer.write(step, {'loss': step / 2})
        self.assertLen(self.lines(), step)  # a killed run leaves whole lines
    self.assertEqual(
      self.lines(), [{'step': 1, 'loss': 0.5}, {'step': 2, 'loss': 1.0}]
    )
    self.assertLen(list((self.folder / 'tensorboard').iterdir()), 1)

  def test_resumed(self):
    """Lines after the checkpoint go; so does a torn one."""
    with self.writer() as writer:
      for step in range(1, 6):
        writer.write(step, {'loss': np.float32(step).item()})
    with self.path.open('a') as file:
      file.write('{"step": 2, "lo')
    with self.writer(resume_step=3) as writer:
      writer.write(4, {'loss': 0.0})
    self.assertEqual([line['step'] for line in self.lines()], [1, 2, 3, 4])
    self.assertEqual(self.lines()[-1]['loss'], 0.0)

  def test_killed_while_resuming(self):
    with self.writer() as writer:
      writer.write(1, {'loss': 1.0})
    before = self.path.read_text()
    with (
      mock.patch('os.replace', side_effect=KeyboardInterrupt),
      self.assertRaises(KeyboardInterrupt),
    ):
      self.writer(resume_step=1)
    self.assertEqual(self.path.read_text(), before)

  def test_other_hosts_write_nothing(self):
    with self.writer(enabled=False) as writer:
      writer.write(1, {'loss': 1.0})
    self.assertEqual(list(self.folder.iterdir()), [])
