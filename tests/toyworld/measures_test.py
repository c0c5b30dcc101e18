"""Measures of clips: attributes of a scene, paths, and static clips."""

import dataclasses

from absl.testing import parameterized
import numpy as np

from lift_jax.toyworld import flaws, measures, scenes
from lift_jax.toyworld.flaws import Flaw
from lift_jax.toyworld.pretraining import validate
from lift_jax.toyworld.scenes import Scene

SCENE = Scene('large', 'red', 'square', 'from left to right', 'white')


def _frames(seed=0, asked=SCENE, fidelity=None, motion=None, **kwargs):
  rng = np.random.default_rng(seed)
  clip = flaws.make_clip(asked, asked, fidelity, motion, rng, **kwargs)
  return clip.frames_thw3


class SceneTest(parameterized.TestCase):
  def test_every_word_is_read(self):
    for seed, scene in enumerate(list(scenes.all_scenes())[::47]):
      measured = measures.measure(_frames(seed, scene))
      self.assertEqual(measured.shown, dataclasses.asdict(scene))

  def test_few_frames(self):
    with self.assertRaisesRegex(ValueError, 'T >= 5'):
      measures.measure(_frames()[:4])


class PathTest(parameterized.TestCase):
  @parameterized.parameters((32, 32), (48, 64))
  def test_even(self, height, width):
    path_t2 = measures.measure(_frames(height=height, width=width)).path_t2
    self.assertEqual(path_t2.shape, (9, 2))
    np.testing.assert_allclose(
      path_t2.mean(0), np.array((height, width)) / min(height, width) / 2,
      atol=1 / 32,
    )  # fmt: skip
    steps_s2 = np.diff(path_t2, axis=0)
    # To the right, a third of the image in eight steps, all alike.
    self.assertBetween(path_t2[-1, 1] - path_t2[0, 1], 10.2 / 32, 12.3 / 32)
    np.testing.assert_allclose(
      steps_s2 - steps_s2.mean(0), np.zeros_like(steps_s2), atol=0.15 / 32
    )

  def test_vanished(self):
    frames = _frames().copy()
    frames[2:4] = frames[0, 0, 0]
    path_t2 = measures.measure(frames).path_t2
    np.testing.assert_array_equal(
      np.isnan(path_t2).all(1), [False, False, True, True] + [False] * 5
    )
    whole_t2 = measures.measure(_frames()).path_t2
    np.testing.assert_allclose(path_t2[4:], whole_t2[4:], atol=0.3 / 32)

  def test_nothing(self):
    frames = np.full((9, 32, 32, 3), 238, np.uint8)
    self.assertIsNone(measures.measure(frames).path_t2)


class StillnessTest(parameterized.TestCase):
  def is_static(self, frames):
    both = {
      measures.measure(frames).is_static,
      measures.measure(validate.round_trip(frames)).is_static,
    }
    self.assertLen(both, 1)
    return both.pop()

  @parameterized.parameters(None, 'noise', 'blur', 'deformation')
  def test_shape(self, kind):
    flaw = kind and Flaw(kind, 'Bad')
    for seed, scene in enumerate(list(scenes.all_scenes())[::397]):
      frames = _frames(seed, scene, fidelity=flaw)
      self.assertFalse(self.is_static(frames))
      self.assertTrue(self.is_static(np.repeat(frames[3:4], 9, 0)))

  @parameterized.parameters('jitter', 'teleport', 'freeze', 'drop')
  def test_flawed_motion_is_motion(self, kind):
    self.assertFalse(self.is_static(_frames(motion=Flaw(kind, 'Bad'))))

  def test_jitter_without_travel(self):
    frames = np.concatenate([_frames()[3:6]] * 3)
    self.assertFalse(self.is_static(frames))

  def test_without_shape(self):
    rng = np.random.default_rng(0)
    for level in (20, 128, 250):
      blank = np.full((9, 32, 32, 3), float(level))
      self.assertTrue(self.is_static(blank.astype(np.uint8)))
      noisy = np.clip(blank + rng.normal(0, 2, blank.shape), 0, 255)
      self.assertTrue(self.is_static(noisy.astype(np.uint8)))
    noise = rng.integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)
    self.assertFalse(self.is_static(noise))
    self.assertTrue(self.is_static(np.repeat(noise[:1], 9, 0)))
