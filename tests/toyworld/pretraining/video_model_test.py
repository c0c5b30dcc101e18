"""Pretraining of the toy CogVideoX, at the smallest sizes.

`tests/jobs/demo_test.py` runs all of it.
"""

import logging

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from lift_jax import config_lib
from lift_jax.data.hra import DIMENSIONS
from lift_jax.models.t5.tokenizer import load_tokenizer, tokenize
from lift_jax.toyworld import checkers, scenes
from lift_jax.toyworld.pretraining import config as pretraining_config
from lift_jax.toyworld.pretraining import loop, tokenizer, video_model

_LOGGER = logging.getLogger('lift')


def _config(**changes):
  config = ml_collections.ConfigDict(
    pretraining_config.get_config(is_smoke=True)['model']
  )
  config.update_from_flattened_dict(changes)
  return config_lib.resolve(config, video_model.PretrainConfig)


class DrawTest(absltest.TestCase):
  def test_clips(self):
    """The fraction of flawed clips is as configured, and none is held out."""
    frames_bthw3, captions = video_model.draw_clips(120, 0.5, seed=3)
    self.assertEqual(frames_bthw3.shape, (120, 9, 32, 32, 3))
    self.assertFalse(any(map(scenes.is_held_out, captions)))
    is_good = [
      all(v.label == 'Good' for v in checkers.check(caption, frames).values())
      for caption, frames in zip(captions, frames_bthw3, strict=True)
    ]
    self.assertBetween(np.mean(is_good), 0.37, 0.63)

  def test_without_flaws(self):
    frames_bthw3, captions = video_model.draw_clips(20, 0.0, seed=3)
    for caption, frames in zip(captions, frames_bthw3, strict=True):
      labels = [v.label for v in checkers.check(caption, frames).values()]
      self.assertEqual(labels, ['Good'] * len(DIMENSIONS))

  def test_seed(self):
    one, other = (video_model.draw_clips(3, 0.5, seed)[0] for seed in (0, 1))
    np.testing.assert_array_equal(video_model.draw_clips(3, 0.5, 0)[0], one)
    self.assertFalse(np.array_equal(one, other))


class TrainTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.folder = tmp_path
    checkpoints = tmp_path / 'checkpoints'
    self.pretraining = loop.Pretraining(checkpoints, 0, _LOGGER)

  def test_learns(self):
    """The plain and the weighted error of the autoencoder decrease."""
    config = _config()
    frames_bthw3, _ = video_model.draw_clips(4, 0.5, seed=0)
    model = video_model.empty_model(self.folder, config)
    network = model.declare('vae')
    params = video_model.train_autoencoder(
      model, frames_bthw3, config, self.pretraining
    )
    again = jax.jit(
      lambda params, video: network(
        params, network(params, video, method='encode').mean, method='decode'
      )
    )
    video = (frames_bthw3 / 127.5 - 1).astype(np.float32)
    first = network.init(jax.random.key(config.sizes.seed))
    before, after = (
      np.mean(np.abs(again(of, video) - video)) for of in (first, params)
    )
    self.assertLess(after, 0.8 * before)

  @parameterized.parameters((0, 1), (500, 2), (999, 1000))
  def test_later(self, first: int, times: int):
    """All timesteps from the first, equally often."""
    moved = video_model.later(np.arange(1000), first, 1000)
    expected = np.repeat(np.arange(first, 1000), times)
    np.testing.assert_array_equal(moved, expected)

  def test_draft(self):
    """Predictions from noise have the colour in the caption."""
    config = _config(**{
      'draft.steps': 80, 'draft.optimizer.learning_rate': 5e-3,
      'caption_dropout': 0.0,
    })  # fmt: skip
    tokenizer.write(self.folder / 'tokenizer')
    model = video_model.empty_model(self.folder, config)
    text, params = (
      jax.jit(model.declare(component).init)(jax.random.key(0))
      for component in ('text_encoder', 'transformer')
    )
    captions = [
      'A small red circle moves upwards over a white background.',
      'A small blue circle moves upwards over a white background.',
    ] * 8
    tokens_bs, _ = tokenize(
      load_tokenizer(self.folder / 'tokenizer'), captions, 16, vocab_size=384
    )
    sign = np.tile([1.0, -1.0], 8).astype(np.float32)
    mean_b = np.broadcast_to(sign[:, None, None, None, None], (16, 5, 8, 8, 16))
    logvar_b = np.full_like(mean_b, -20.0)
    params = video_model.train_transformer(
      model, params, text, (mean_b, logvar_b, tokens_bs), config, 'draft', 999,
      self.pretraining,
    )  # fmt: skip
    text_bsd = model.declare('text_encoder')(text, tokens_bs[:2])
    noise = jax.random.normal(jax.random.key(1), mean_b[:1].shape)
    velocity = model.declare('transformer')(
      params, jnp.concatenate([noise, noise]), text_bsd, jnp.full(2, 999)
    )
    # At the last timestep the velocity is minus the clip.
    means = np.mean(-velocity, (1, 2, 3, 4))
    self.assertGreater(means[0], 0.5)
    self.assertLess(means[1], -0.5)


if __name__ == '__main__':
  absltest.main()
