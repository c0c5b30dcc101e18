"""Clips have the flaws that were asked for, and no others."""

import dataclasses

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data.hra import DIMENSIONS, LABELS
from lift_jax.toyworld import flaws, scenes
from lift_jax.toyworld.flaws import Flaw
from lift_jax.toyworld.scenes import Scene

pytestmark = pytest.mark.fast

SCENE = Scene('large', 'red', 'square', 'from left to right', 'white')


def _clip(seed=0, shown=SCENE, fidelity=None, motion=None, **kwargs):
  rng = np.random.default_rng(seed)
  return flaws.make_clip(SCENE, shown, fidelity, motion, rng, **kwargs)


def _centres(clip):
  """[T, 2], centres of mass in a clip without fidelity flaws."""
  frames = clip.frames_thw3.astype(float)
  weight_thw = np.abs(frames - frames[0, 0, 0]).sum(-1)
  y_hw, x_hw = np.indices(weight_thw.shape[1:]) + 0.5
  total_t = weight_thw.sum((1, 2))
  return np.stack(
    [(weight_thw * at_hw).sum((1, 2)) / total_t for at_hw in (y_hw, x_hw)], 1
  )


class SemanticLabelTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, 'Good'),
    ({'size': 'small'}, 'Normal'),
    ({'background': 'pink'}, 'Normal'),
    ({'motion': 'diagonally up to the right'}, 'Normal'),
    ({'motion': 'downwards'}, 'Bad'),
    ({'motion': 'from right to left'}, 'Bad'),
    ({'colour': 'purple'}, 'Bad'),
    ({'shape': 'circle'}, 'Bad'),
    ({'size': 'small', 'background': 'grey'}, 'Bad'),
    ({'colour': 'cyan', 'shape': 'cross', 'size': 'small'}, 'Bad'),
  )
  def test_label(self, changes, label):
    shown = dataclasses.replace(SCENE, **changes)
    self.assertEqual(flaws.semantic_label(SCENE, shown), label)
    self.assertEqual(flaws.semantic_label(shown, SCENE), label)

  def test_nothing_found(self):
    shown = dataclasses.asdict(SCENE) | {'background': None}
    points = flaws.mismatches(dataclasses.asdict(SCENE), shown)
    self.assertEqual(flaws.label_of_mismatches(points), 'Bad')

  @parameterized.parameters(*LABELS)
  def test_draw(self, label):
    rng = np.random.default_rng(0)
    wrong = set()
    for _ in range(100):
      shown = flaws.draw_mismatch(SCENE, label, rng)
      self.assertEqual(flaws.semantic_label(SCENE, shown), label)
      wrong |= {
        name
        for name, value in dataclasses.asdict(SCENE).items()
        if getattr(shown, name) != value
      }
    expected = {
      'Good': set(),
      'Normal': {'size', 'motion', 'background'},
      'Bad': set(scenes.ATTRIBUTES),
    }
    self.assertEqual(wrong, expected[label])


class ClipTest(parameterized.TestCase):
  def test_truth_is_what_was_asked_for(self):
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(30):
      drawn = rng.choice(LABELS, len(DIMENSIONS)).tolist()
      labels = dict(zip(DIMENSIONS, drawn, strict=True))
      clip = flaws.draw_clip(SCENE, rng, labels)
      self.assertEqual(clip.labels, labels)
      self.assertEqual(clip.caption, SCENE.caption)
      kinds |= {flaw.kind for flaw in (clip.fidelity, clip.motion) if flaw}
    self.assertEqual(kinds, {*flaws.FIDELITY_KINDS, *flaws.MOTION_KINDS})

  def test_deterministic(self):
    clips = [
      flaws.draw_clip(SCENE, np.random.default_rng(seed)) for seed in (3, 3, 4)
    ]
    self.assertEqual(clips[0].labels, clips[1].labels)
    np.testing.assert_array_equal(clips[0].frames_thw3, clips[1].frames_thw3)
    self.assertTrue((clips[0].frames_thw3 != clips[2].frames_thw3).any())

  @parameterized.product(motion=tuple(scenes.MOTIONS), shape=scenes.SHAPES)
  def test_stays_inside(self, motion, shape):
    shown = dataclasses.replace(SCENE, motion=motion, shape=shape)
    for seed in range(5):
      frames = _clip(seed, shown).frames_thw3
      corner = frames[0, 0, 0]
      for edge in (frames[:, 0], frames[:, -1], frames[:, :, 0]):
        np.testing.assert_array_equal(edge, np.broadcast_to(corner, edge.shape))

  @parameterized.parameters(*scenes.MOTIONS.items())
  def test_direction(self, motion, degrees):
    centres = _centres(_clip(shown=dataclasses.replace(SCENE, motion=motion)))
    down, right = centres[-1] - centres[0]
    angle = np.rad2deg(np.arctan2(down, right))
    self.assertLess(abs((angle - degrees + 180) % 360 - 180), 6)
    steps = np.diff(centres, axis=0)
    np.testing.assert_allclose(steps, np.tile(steps.mean(0), (8, 1)), atol=0.1)

  def test_size(self):
    clip = _clip(num_frames=13, height=48, width=64)
    self.assertEqual(clip.frames_thw3.shape, (13, 48, 64, 3))
    with self.assertRaisesRegex(ValueError, 'at least 5'):
      _clip(num_frames=4)


class MotionFlawTest(parameterized.TestCase):
  def steps(self, kind, label, seed=0):
    return np.diff(_centres(_clip(seed, motion=Flaw(kind, label))), axis=0)

  @parameterized.parameters(('Normal', 2), ('Bad', 4))
  def test_freeze(self, label, count):
    for seed in range(5):
      lengths = np.linalg.norm(self.steps('freeze', label, seed), axis=1)
      self.assertEqual((lengths < 0.05).sum(), count)
      self.assertGreater(lengths[0], 1)

  @parameterized.parameters(('Normal', 2), ('Bad', 5))
  def test_drop(self, label, count):
    for seed in range(5):
      lengths = np.linalg.norm(self.steps('drop', label, seed), axis=1)
      ratio = lengths.max() / np.median(lengths)
      self.assertAlmostEqual(ratio, 1 + count, delta=0.4)

  @parameterized.parameters(('Normal', 3.0), ('Bad', 7.0))
  def test_teleport(self, label, length):
    for seed in range(5):
      steps = self.steps('teleport', label, seed)
      aside = steps - np.median(steps, 0)
      lengths = np.linalg.norm(aside, axis=1)
      self.assertAlmostEqual(lengths.max(), length, delta=0.15)
      self.assertLess(abs(aside[lengths.argmax()] @ np.median(steps, 0)), 1.5)

  @parameterized.parameters(('Normal', 0.9), ('Bad', 2.4))
  def test_jitter(self, label, strength):
    for seed in range(5):
      centres = _centres(_clip(seed, motion=Flaw('jitter', label)))
      time = np.arange(9)
      line = np.polynomial.polynomial.polyfit(time, centres, 1)
      aside = centres - np.polynomial.polynomial.polyval(time, line).T
      rms = np.sqrt((aside**2).sum(1).mean())
      # Large shapes that tremble much may touch the border.
      self.assertAlmostEqual(rms, strength, delta=0.1 * strength)
