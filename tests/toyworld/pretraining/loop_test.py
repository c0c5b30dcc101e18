"""Pretraining stages that are stopped and resumed."""

import logging
from unittest import mock

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.errors import UserError
from lift_jax.toyworld.pretraining import loop
from lift_jax.training.optimizer import OptimizerConfig

_LOGGER = logging.getLogger('lift')
_OPTIMIZER = OptimizerConfig(
  learning_rate=1e-2,
  warmup_steps=1,
  cycles=1,
  beta1=0.9,
  beta2=0.95,
  eps=1e-8,
  weight_decay=0.0,
  clip_norm=1.0,
)
_STAGE = loop.StageConfig(9, 4, _OPTIMIZER)
_CLIPS = np.arange(10, dtype=np.float32)


class _Stop(Exception):
  pass


def _loss(params, clips_b, step, key):
  noise = jax.random.normal(key, clips_b.shape)
  error = jnp.mean((params['weight'] * clips_b - step - noise) ** 2)
  return error, {'error': error}


class TrainTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.folder = tmp_path
    self.enter_context(mock.patch.object(loop, '_CHECKPOINT_STEPS', 4))

  def train(self, name, stop_at=None, stage=_STAGE):
    """The final weight, and the steps that were run."""
    steps = []

    def read(indices, step):
      if step == stop_at:
        raise _Stop
      steps.append(step)
      return _CLIPS[indices], np.float32(step)

    run = loop.Pretraining(self.folder / name, 0, _LOGGER)
    params = {'weight': jnp.ones(())}
    trained = loop.train(
      'some stage', params, _loss, read, len(_CLIPS), stage, run
    )
    return np.array(trained['weight']), steps

  def test_resumes(self):
    full, steps = self.train('full')
    self.assertEqual(steps, list(range(9)))
    self.assertTrue(np.all(full != 1))
    with self.assertRaises(_Stop):
      self.train('stopped', stop_at=6)
    stopped, steps = self.train('stopped')
    self.assertEqual(steps, list(range(4, 9)))
    np.testing.assert_array_equal(stopped, full)
    again, steps = self.train('stopped')
    self.assertEqual(steps, [])
    np.testing.assert_array_equal(again, full)

  def test_another_config(self):
    with self.assertRaises(_Stop):
      self.train('stopped', stop_at=6)
    longer = loop.StageConfig(12, 4, _OPTIMIZER)
    with self.assertRaisesRegex(UserError, 'some_stage/4 is of another run: c'):
      self.train('stopped', stage=longer)

  def test_shuffles_each_epoch(self):
    indices = np.concatenate(list(loop._batches(10, _STAGE, 0)))
    self.assertLen(indices, 36)
    for first in (0, 10, 20):
      self.assertCountEqual(indices[first : first + 10], range(10))
    self.assertFalse(np.array_equal(indices[:10], indices[10:20]))


class PretrainingTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.folder = tmp_path

  def test_checkpoints_are_deleted_at_the_end(self):
    target = self.folder / 'model'
    with (
      self.assertRaises(_Stop),
      loop.pretraining(target, 3, _LOGGER) as run,
    ):
      run.checkpoints.mkdir()
      raise _Stop
    self.assertTrue(run.checkpoints.is_dir())
    with loop.pretraining(target, 3, _LOGGER) as again:
      self.assertEqual(again, run)
    self.assertFalse(run.checkpoints.exists())
