"""The text encoder of the toy world learns to read."""

import logging
import pathlib
import tempfile

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import config_lib
from lift_jax.models.t5.tokenizer import load_tokenizer, tokenize
from lift_jax.toyworld import scenes
from lift_jax.toyworld.pretraining import config as pretraining_config
from lift_jax.toyworld.pretraining import (
  loop,
  text_encoder,
  tokenizer,
  video_model,
)

_LOGGER = logging.getLogger(__name__)


class WordsTest(absltest.TestCase):
  def test_words(self):
    known = tuple(scenes.all_scenes())
    words_ba = text_encoder.words_of(known)
    self.assertEqual(words_ba.shape, (len(known), len(scenes.ATTRIBUTES)))
    for scene, row in list(zip(known, words_ba, strict=True))[::97]:
      again = scenes.Scene(
        **{
          name: scenes.values_of(name)[number]
          for name, number in zip(scenes.ATTRIBUTES, row, strict=True)
        }
      )
      self.assertEqual(again, scene)


class TrainTest(absltest.TestCase):
  def test_learns_to_read(self):
    """Every word of a caption, from each place of it."""
    config = config_lib.resolve(
      pretraining_config.get_config(is_smoke=False)['model'],
      video_model.PretrainConfig,
    )
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    tokenizer.write(folder / 'tokenizer')
    network = video_model.empty_model(folder, config).declare('text_encoder')
    known = scenes.training_scenes()
    tokens_bs, _ = tokenize(
      load_tokenizer(folder / 'tokenizer'),
      [scene.caption for scene in known],
      tokenizer.MAX_LENGTH,
    )
    first = jax.jit(network.init)(jax.random.key(0))
    stage = loop.StageConfig(500, 32, config.reading.optimizer)
    with self.assertLogs(_LOGGER) as logs:
      trained = text_encoder.train_text_encoder(
        network, jax.tree.map(jnp.copy, first), known, tokens_bs, stage,
        loop.Pretraining(folder / 'checkpoints', 0, _LOGGER),
      )  # fmt: skip
    changes = jax.tree.map(
      lambda new, old: float(np.abs(new - old).max()), trained, first
    )
    self.assertGreater(min(jax.tree.leaves(changes)), 0)
    said = dict(
      pair.rsplit(' ', 1)
      for pair in logs.output[-1].split(': ')[-1].split(', ')
    )
    for name in scenes.ATTRIBUTES:
      self.assertGreater(float(said[name]), 0.95, said)


if __name__ == '__main__':
  absltest.main()
