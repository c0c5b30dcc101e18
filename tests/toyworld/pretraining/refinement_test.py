"""Refinement of the toy critic: clips, questions, and its two stages."""

import collections
import dataclasses
import logging
import pathlib
import tempfile

from absl.testing import parameterized
import jax
import numpy as np
import pytest

from lift_jax import config_lib
from lift_jax.data.hra import LABELS, read_questions
from lift_jax.models.functional import functional
from lift_jax.models.vila.tokenizer import IMAGE_TOKEN
from lift_jax.toyworld import checkers, feedback, flaws, measures, scenes
from lift_jax.toyworld.flaws import Flaw
from lift_jax.toyworld.pretraining import config as pretraining_config
from lift_jax.toyworld.pretraining import critic_model, generated, refinement
from lift_jax.toyworld.pretraining.generated import MeasuredClip
from lift_jax.toyworld.pretraining.loop import Pretraining
from tests.toyworld.pretraining.critic_model_test import tiny_config

_LOGGER = logging.getLogger(__name__)


def _clip(scene, fidelity=None, motion=None):
  rng = np.random.default_rng(0)
  frames_thw3 = flaws.make_clip(scene, scene, fidelity, motion, rng).frames_thw3
  return MeasuredClip(scene, frames_thw3, measures.measure(frames_thw3))


def _clips(count):
  """One of each kind of flaw, and others without."""
  found = [
    _clip(scenes.training_scenes()[100], Flaw(fidelity, 'Bad'), None)
    for fidelity in flaws.FIDELITY_KINDS
  ]
  found += [
    _clip(scene) for scene in scenes.training_scenes()[:: 1354 // count]
  ]
  return found[:count]


@pytest.mark.fast
class VariedTest(parameterized.TestCase):
  @parameterized.parameters('mirrored', 'backwards')
  def test_measures(self, change):
    """What is said of the changed clip is what is measured of it."""
    for motion in ('downwards', 'diagonally up to the left'):
      scene = scenes.Scene('large', 'red', 'square', motion, 'white')
      clip = _clip(scene, None, Flaw('freeze', 'Normal'))
      changed = getattr(generated, change)(clip)
      found = measures.measure(changed.frames_thw3)
      self.assertEqual(dict(found.shown), dict(changed.measured.shown))
      self.assertEqual(changed.asked.motion, found.shown['motion'])
      np.testing.assert_allclose(
        found.path_t2, changed.measured.path_t2, atol=0.1 / 32
      )
      self.assertAlmostEqual(found.motion['freeze'], 0.25)
      twice = getattr(generated, change)(changed)
      np.testing.assert_array_equal(twice.frames_thw3, clip.frames_thw3)
      self.assertEqual(twice.asked, clip.asked)


class SamplersTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    scratch = cls.enterClassContext(tempfile.TemporaryDirectory())
    critic = critic_model.write_draft(pathlib.Path(scratch), tiny_config())
    cls.tokenizer = critic.open_tokenizer(critic_model.TEMPLATE)
    cls.selection = critic.frames.select(critic_model.CLIP)
    cls.clips = _clips(12)

  def sampler(self):
    return refinement.RatingSampler(
      self.clips, self.tokenizer, self.selection, 68, seed=0
    )

  def test_ratings(self):
    """The checkers' answers to all questions, about training prompts."""
    sampler, rng = self.sampler(), np.random.default_rng(0)
    questions = read_questions(feedback.questions_path())
    asked = collections.Counter()
    labels = collections.Counter()
    for number in range(96):
      clip = self.clips[number % 12]
      frames, (tokens, is_target), values, weight_m = sampler.draw(clip, rng)
      answer = self.tokenizer.decode(
        [t for t, is_one in zip(tokens, is_target, strict=True) if is_one]
      )
      # From the last frame to the end of the user's message.
      first = max(i for i, t in enumerate(tokens) if t == IMAGE_TOKEN) + 1
      text = self.tokenizer.decode(tokens[first:])
      (dimension,) = (name for name in questions if questions[name] in text)
      asked[dimension] += 1
      (scene,) = (s for s in scenes.all_scenes() if s.caption in text)
      self.assertFalse(scenes.is_held_out(scene.caption))
      verdict = checkers.check(scene.caption, frames)[dimension]
      self.assertStartsWith(answer, f'{verdict.label}. {verdict.rationale}')
      labels[dimension, verdict.label] += 1
      # Of the head: wrong attributes, and flaws of motion and image.
      asked_m = {
        name: part.all()
        for name, part in zip(
          ('semantic', 'motion', 'fidelity'),
          np.split(weight_m, (5, 9)),
          strict=True,
        )
      }
      self.assertEqual(asked_m, {name: name == dimension for name in asked_m})
      if dimension == 'semantic':
        self.assertEqual(
          values[:5].sum() == 0, verdict.label == 'Good', verdict
        )
    self.assertGreater(min(asked.values()), 15)
    for label in LABELS:
      self.assertGreater(labels['semantic', label], 0)

  def test_batches(self):
    """The step seeds the sampling."""
    sampler, indices = self.sampler(), np.arange(4)
    one, same, other = (sampler(indices, step) for step in (1, 1, 2))
    frames, tokens_bn, is_target_bn, value_bm, weight_bm = one
    self.assertEqual(frames.shape, (4, 9, 32, 32, 3))
    self.assertEqual(tokens_bn.shape, (4, 36 + 68))
    self.assertEqual(is_target_bn.shape, tokens_bn.shape)
    self.assertEqual(value_bm.shape, (4, refinement.num_measures()))
    self.assertEqual(weight_bm.shape, value_bm.shape)
    for array, again in zip(one, same, strict=True):
      np.testing.assert_array_equal(array, again)
    self.assertTrue(np.any(other[1] != tokens_bn))

  def test_vision(self):
    """Positions are in pixels from the middle; unknown classes are -1."""
    sampler = refinement.VisionSampler(self.clips, seed=0)
    frames, position_bt2, has_path_b, classes_ba, flaws_bf = sampler(
      np.arange(12), 1
    )
    self.assertEqual(frames.shape, (12, 9, 32, 32, 3))
    self.assertLess(np.abs(position_bt2).max(), 16)
    self.assertGreater(np.abs(position_bt2).max(), 3)
    np.testing.assert_array_equal(has_path_b, 1)
    self.assertEqual(classes_ba.shape, (12, 5))
    # One of each kind, larger than in the other clips.
    np.testing.assert_array_equal(np.argmax(flaws_bf[:, :4], 0), range(4))
    nothing = MeasuredClip(
      self.clips[0].asked,
      self.clips[0].frames_thw3,
      measures.measure(np.zeros((9, 32, 32, 3), np.uint8)),
    )
    sampler = refinement.VisionSampler([nothing], seed=0)
    _, _, has_path_b, classes_ba, _ = sampler(np.arange(1), 1)
    self.assertEqual(has_path_b.tolist(), [0])
    self.assertEqual(classes_ba[0, 1:3].tolist(), [-1, -1])


class StagesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    scratch = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(scratch)

  def test_what_is_trained(self):
    """First the vision tower, then the language model, and no other part."""
    critic = critic_model.write_draft(self.folder / 'draft', tiny_config())
    model = functional(critic.build())
    config = config_lib.resolve(
      pretraining_config.get_config(is_smoke=True)['refinement'],
      refinement.RefinementConfig,
    )
    run = Pretraining(self.folder / 'checkpoints', 0, _LOGGER)
    clips = _clips(8)
    first = jax.jit(model.init)(jax.random.key(0))
    before = jax.tree.map(np.asarray, first)
    stage = dataclasses.replace(config.vision, batch_size=4)
    seen = refinement.refine_vision(model, first, clips, stage, run)
    middle = jax.tree.map(np.asarray, seen)
    self.assertChanged(before, middle, {'vision_tower', 'projector'})
    sampler = refinement.RatingSampler(
      clips,
      critic.open_tokenizer(critic_model.TEMPLATE),
      critic.frames.select(critic_model.CLIP),
      68,
      seed=0,
    )
    rated = refinement.refine_ratings(
      model, seen, sampler, len(clips), stage, run
    )
    self.assertChanged(middle, rated, {'llm'})

  def assertChanged(self, before, after, expected):
    changed = {
      part
      for part in before
      for one, other in zip(
        jax.tree.leaves(before[part]), jax.tree.leaves(after[part]), strict=True
      )
      if not np.array_equal(one, other)
    }
    self.assertEqual(changed, expected)
