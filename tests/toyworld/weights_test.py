"""The models that are shipped with the package."""

import dataclasses

from absl.testing import absltest

from lift_jax import config_lib
from lift_jax.models.critics import open_critic
from lift_jax.models.generators import open_model
from lift_jax.toyworld import weights
from lift_jax.toyworld.pretraining import config as pretraining_config
from lift_jax.toyworld.pretraining import critic_model, video_model


class ShippedTest(absltest.TestCase):
  def test_sizes(self):
    """The shipped models match their configs, and are small."""
    config = config_lib.resolve(
      pretraining_config.get_config(is_smoke=False)['model'],
      video_model.PretrainConfig,
    )
    model = open_model(weights.T2V)
    self.assertEqual(model.transformer, config.sizes.transformer)
    self.assertEqual(model.schedule, config.sizes.schedule)
    self.assertEqual(
      model.vae.block_out_channels, config.sizes.vae.block_out_channels
    )
    config = config_lib.resolve(
      pretraining_config.get_config(is_smoke=False)['critic'],
      critic_model.CriticPretrainConfig,
    )
    critic = open_critic(weights.CRITIC).config
    self.assertEqual(critic.vision_tower, config.vision_tower)
    self.assertEqual(critic.num_frames, critic_model.NUM_FRAMES)
    # The tokenizer, which is made with the critic, sets the vocabulary.
    vocabulary = critic.llm.vocab_size
    self.assertEqual(
      critic.llm, dataclasses.replace(config.llm, vocab_size=vocabulary)
    )
    files = weights.T2V.parent.rglob('*')
    total = sum(path.stat().st_size for path in files if path.is_file())
    self.assertLess(total, 10 * 2**20)


if __name__ == '__main__':
  absltest.main()
