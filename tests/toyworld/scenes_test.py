"""The grammar of captions, and held-out prompts."""

import dataclasses

from absl.testing import parameterized
import pytest

from lift_jax.errors import UserError
from lift_jax.toyworld import scenes
from lift_jax.toyworld.scenes import Scene

pytestmark = pytest.mark.fast

SCENE = Scene('small', 'red', 'cross', 'upwards', 'grey')


class CaptionTest(parameterized.TestCase):
  def test_there_and_back(self):
    every = list(scenes.all_scenes())
    self.assertLen(every, 2 * 6 * 4 * 8 * 4)
    self.assertLen({scene.caption for scene in every}, len(every))
    for scene in every:
      self.assertEqual(Scene.from_caption(scene.caption), scene)

  def test_words(self):
    self.assertEqual(
      SCENE.caption,
      'A small red cross moves upwards over a grey background.',
    )

  @parameterized.parameters(
    'A cat.',
    'A small red cross moves upwards over a grey background',
    'A small red cross moves upwards over a grey background. Nice.',
    'A small mauve cross moves upwards over a grey background.',
  )
  def test_other_captions(self, caption):
    with self.assertRaisesRegex(UserError, 'not of the toy world; write it'):
      Scene.from_caption(caption)

  def test_other_words(self):
    with self.assertRaisesRegex(UserError, "colour 'mauve' .* one of red"):
      dataclasses.replace(SCENE, colour='mauve')


class HeldOutTest(parameterized.TestCase):
  def test_two_sides(self):
    train, held_out = scenes.training_scenes(), scenes.held_out_scenes()
    self.assertFalse(set(train) & set(held_out))
    self.assertLen(train + held_out, len(list(scenes.all_scenes())))
    self.assertBetween(len(held_out) / len(train + held_out), 0.1, 0.15)
    for side in (train, held_out):
      for name in scenes.ATTRIBUTES:
        self.assertEqual(
          {getattr(scene, name) for scene in side},
          set(scenes.values_of(name)),
        )

  def test_fixed(self):
    # Another rule would put prompts of earlier runs on the other side.
    first = [scene.caption for scene in scenes.held_out_scenes()[:2]]
    self.assertEqual(
      first,
      [
        'A small red circle moves from right to left over a pink background.',
        'A small red circle moves upwards over a white background.',
      ],
    )
    self.assertTrue(scenes.is_held_out(f' {first[0]}\n'))
