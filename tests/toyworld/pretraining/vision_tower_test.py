"""Targets of the vision tower's pretraining, and the training itself."""

import dataclasses
import logging
import pathlib
import tempfile

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import config_lib
from lift_jax.models.functional import functional
from lift_jax.toyworld import flaws, measures, scenes
from lift_jax.toyworld.flaws import Flaw
from lift_jax.toyworld.pretraining import config as pretraining_config
from lift_jax.toyworld.pretraining import critic_model, loop, vision_tower

_LOGGER = logging.getLogger(__name__)


def _scene(**changes):
  first = next(scenes.all_scenes())
  return dataclasses.replace(first, **changes)


class TargetsTest(absltest.TestCase):
  def test_classes(self):
    """Every attribute value and every flaw has its own class."""
    first = next(scenes.all_scenes())
    for index, name in enumerate(('size', 'colour', 'shape', 'background')):
      words = scenes.values_of(name)
      truths = [
        critic_model.truth_of(
          dataclasses.replace(first, **{name: word}), None, None
        )
        for word in words
      ]
      classes = vision_tower.classes_of(truths)
      self.assertEqual(classes[:, index].tolist(), list(range(len(words))))
      self.assertEqual(vision_tower.num_classes()[index], len(words))
    kinds = [None] + [
      Flaw(kind, label)
      for kind in flaws.FIDELITY_KINDS
      for label in ('Normal', 'Bad')
    ]
    truths = [critic_model.truth_of(first, kind, None) for kind in kinds]
    classes = vision_tower.classes_of(truths)
    self.assertEqual(classes[:, -1].tolist(), list(range(len(kinds))))
    self.assertEqual(vision_tower.num_classes()[-1], len(kinds))

  def test_shape_positions(self):
    """Of flawless clips they equal the measured ones."""
    rng = np.random.default_rng(0)
    for scene in list(scenes.all_scenes())[::150]:
      clip = flaws.draw_clip(
        scene, rng, dict.fromkeys(('semantic', 'motion', 'fidelity'), 'Good')
      )
      (positions_t2,) = vision_tower.shape_positions(clip.frames_thw3[None])
      path_t2 = measures.measure(clip.frames_thw3).path_t2
      # y and x in shorter sides, from the corner of the first pixel.
      np.testing.assert_allclose(
        (positions_t2[:, ::-1] + 1) / 2 * 31 / 32 + 0.5 / 32, path_t2, atol=0.03
      )

  def test_no_shape(self):
    blank = np.full((1, 2, 32, 32, 3), 126, np.uint8)
    np.testing.assert_array_equal(vision_tower.shape_positions(blank), 0)


class TrainTest(absltest.TestCase):
  def test_learns(self):
    """Tower and projector improve; the language model is unchanged."""
    config = config_lib.resolve(
      pretraining_config.get_config(is_smoke=True)['critic'],
      critic_model.CriticPretrainConfig,
    )
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    draft = critic_model.write_draft(folder / 'draft', config)
    model = functional(draft.build())
    params = jax.jit(model.init)(jax.random.key(0))
    frames, truths = critic_model.draw_clips(16, 0.5, seed=0)
    with self.assertLogs(_LOGGER) as logs:
      trained = vision_tower.train_vision(
        model,
        jax.tree.map(jnp.copy, params),
        frames,
        truths,
        config.vision,
        loop.Pretraining(folder / 'checkpoints', 0, _LOGGER),
      )
    self.assertEqual(
      jax.tree.map(np.shape, trained), jax.tree.map(np.shape, params)
    )
    jax.tree.map(np.testing.assert_array_equal, trained['llm'], params['llm'])
    for part in ('vision_tower', 'projector'):
      changes = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), trained[part], params[part]
      )
      self.assertGreater(max(jax.tree.leaves(changes)), 0)
    last = dict(
      pair.rsplit(' ', 1)
      for pair in logs.output[-1].split(': ')[-1].split(', ')
    )
    self.assertLess(float(last['position error']), 0.4)
    self.assertGreater(float(last['background']), 0.5)


if __name__ == '__main__':
  absltest.main()
