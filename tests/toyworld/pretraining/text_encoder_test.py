"""Pretraining of the toy world's text encoder."""

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


class AttributeClassesTest(absltest.TestCase):
  def test_round_trip(self):
    known = tuple(scenes.all_scenes())
    classes_ba = text_encoder.attribute_classes(known)
    self.assertEqual(classes_ba.shape, (len(known), len(scenes.ATTRIBUTES)))
    for scene, row in list(zip(known, classes_ba, strict=True))[::97]:
      again = scenes.Scene(
        **{
          name: scenes.values_of(name)[number]
          for name, number in zip(scenes.ATTRIBUTES, row, strict=True)
        }
      )
      self.assertEqual(again, scene)


def accuracy_a(text_bsd: np.ndarray, classes_ba: np.ndarray) -> np.ndarray:
  """[A]: accuracy of one linear head for all positions.

  The head is fitted to every second caption and evaluated on the others.
  """
  x_bsd = np.pad(text_bsd, ((0, 0), (0, 0), (0, 1)), constant_values=1.0)
  accuracies = []
  for words_b in classes_ba.T:
    targets_bk = np.eye(words_b.max() + 1)[words_b]
    targets_bsk = np.repeat(targets_bk[:, None], x_bsd.shape[1], axis=1)
    weights_dk, *_ = np.linalg.lstsq(
      x_bsd[::2].reshape(-1, x_bsd.shape[-1]),
      targets_bsk[::2].reshape(-1, targets_bk.shape[-1]),
    )
    found_bs = (x_bsd[1::2] @ weights_dk).argmax(axis=-1)
    accuracies.append((found_bs == words_b[1::2, None]).mean())
  return np.array(accuracies)


class TrainTest(absltest.TestCase):
  def test_learns(self):
    """Every attribute of a caption, from each position."""
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
      tokenizer.vocabulary_size(),
    )
    first = jax.jit(network.init)(jax.random.key(0))
    stage = loop.StageConfig(500, 32, config.reading.optimizer)
    trained = text_encoder.train_text_encoder(
      network, jax.tree.map(jnp.copy, first), known, tokens_bs, stage,
      loop.Pretraining(folder / 'checkpoints', 0, _LOGGER),
    )  # fmt: skip
    encode = jax.jit(network)
    classes_ba = text_encoder.attribute_classes(known)
    before_a, after_a = (
      accuracy_a(np.asarray(encode(params, tokens_bs)), classes_ba)
      for params in (first, trained)
    )
    self.assertLess(before_a.mean(), 0.85, before_a)
    self.assertGreater(after_a.min(), 0.95, after_a)


if __name__ == '__main__':
  absltest.main()
