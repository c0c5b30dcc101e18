"""Verdicts of the checkers on flaws, encoded clips and degenerate clips."""

import dataclasses

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data.hra import DIMENSIONS, LABELS
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from lift_jax.toyworld import checkers, flaws, measures
from lift_jax.toyworld.flaws import Flaw
from lift_jax.toyworld.pretraining import validate
from lift_jax.toyworld.scenes import Scene

SCENE = Scene('large', 'red', 'square', 'from left to right', 'white')
SCENES = (
  SCENE,
  Scene('small', 'purple', 'cross', 'diagonally up to the left', 'grey'),
  Scene('small', 'yellow', 'triangle', 'downwards', 'black'),
  Scene('large', 'cyan', 'circle', 'upwards', 'pink'),
)


def _frames(seed=0, asked=SCENE, fidelity=None, motion=None, **kwargs):
  rng = np.random.default_rng(seed)
  clip = flaws.make_clip(asked, asked, fidelity, motion, rng, **kwargs)
  return clip.frames_thw3


def _labels(frames, asked=SCENE):
  verdicts = checkers.check(asked.caption, frames)
  return [verdicts[dimension].label for dimension in DIMENSIONS]


class FlawsTest(parameterized.TestCase):
  @parameterized.product(
    kind=flaws.FIDELITY_KINDS + flaws.MOTION_KINDS,
    label=('Normal', 'Bad'),
    mp4=(False, True),
  )
  def test_named(self, kind, label, mp4):
    dimension = 'fidelity' if kind in flaws.FIDELITY_KINDS else 'motion'
    for seed, asked in enumerate(SCENES):
      flaw = {dimension: Flaw(kind, label)}
      frames = _frames(seed, asked, **flaw)
      if mp4:
        frames = validate.round_trip(frames)
      verdicts = checkers.check(asked.caption, frames)
      self.assertEqual(list(verdicts), list(DIMENSIONS))
      for name, verdict in verdicts.items():
        expected = (label, (kind,)) if name == dimension else ('Good', ())
        self.assertEqual((verdict.label, verdict.kinds), expected, name)

  @parameterized.named_parameters(
    (
      'colour',
      {'colour': 'blue'},
      'Bad',
      'The colour is blue, not red.',
    ),
    (
      'direction',
      {'motion': 'from right to left'},
      'Bad',
      'The shape moves from right to left, not from left to right.',
    ),
    (
      'minor',
      {'background': 'grey'},
      'Normal',
      'The background is grey, not white.',
    ),
    (
      'two',
      {'background': 'grey', 'size': 'small'},
      'Bad',
      'The size is small, not large and the background is grey, not white.',
    ),
  )
  def test_semantic(self, changes, label, rationale):
    shown = dataclasses.replace(SCENE, **changes)
    verdicts = checkers.check(SCENE.caption, _frames(asked=shown))
    self.assertEqual(
      verdicts['semantic'],
      checkers.Verdict(label, rationale, tuple(sorted(changes)[::-1])),
    )
    self.assertEqual(verdicts['motion'].label, 'Good')

  @parameterized.parameters((48, 64, 9), (64, 64, 13), (32, 32, 17))
  def test_sizes(self, height, width, num_frames):
    sizes = dict(height=height, width=width, num_frames=num_frames)
    self.assertEqual(_labels(_frames(**sizes)), ['Good'] * 3)
    frames = _frames(
      fidelity=Flaw('blur', 'Bad'), motion=Flaw('freeze', 'Normal'), **sizes
    )
    self.assertEqual(_labels(frames), ['Good', 'Normal', 'Bad'])

  def test_other_input(self):
    with self.assertRaisesRegex(UserError, 'not of the toy world'):
      checkers.check('A cat.', _frames())


class VideoTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.path = tmp_path / 'x.mp4'

  def check(self, frames, caption=SCENE.caption):
    write_mp4(self.path, frames, flaws.FPS)
    return checkers.check_video(self.path, caption, 'list.json record 3')

  def test_as_decoded(self):
    frames = _frames(motion=Flaw('freeze', 'Bad'))
    verdicts, measured = self.check(frames)
    decoded = validate.round_trip(frames)
    self.assertEqual(verdicts, checkers.check(SCENE.caption, decoded))
    self.assertEqual(measured.motion, measures.measure(decoded).motion)

  def test_bad_input(self):
    with self.assertRaisesRegex(
      UserError, '^list.json record 3: the caption .A cat.. is not of the toy'
    ):
      self.check(_frames(), 'A cat.')
    with self.assertRaisesRegex(
      UserError, '^list.json record 3: .*x.mp4 has 1 frames; give .* least 5$'
    ):
      self.check(_frames()[:4])
    self.path.unlink()
    with self.assertRaisesRegex(UserError, '^list.json record 3: .* not exist'):
      checkers.check_video(self.path, SCENE.caption, 'list.json record 3')


class AgreementTest(parameterized.TestCase):
  """A small sample; `toyworld.pretraining.validate` prints a large one."""

  def agreement(self, num_clips, seed, change):
    clips = [validate.draw(index, seed) for index in range(num_clips)]
    result = validate.validate(clips, change)
    self.assertEqual(result.confusion_dll.sum(), 3 * num_clips)
    # All labels turn up, or there would be nothing to agree about.
    self.assertGreater(result.confusion_dll.sum(2).min(), num_clips // 10)
    return min(result.agreement().values())

  def test_as_drawn(self):
    self.assertGreaterEqual(
      self.agreement(100, 11, lambda _, frames: frames), 0.98
    )

  def test_after_mp4(self):
    self.assertGreaterEqual(
      self.agreement(50, 12, lambda _, frames: validate.round_trip(frames)),
      0.97,
    )

  def test_softened(self):
    def change(index, frames):
      return validate.soften(frames, np.random.default_rng(index))

    self.assertGreaterEqual(self.agreement(50, 13, change), 0.97)


class CheatingTest(parameterized.TestCase):
  """Degenerate clips with which a model might exploit a judge."""

  def check(self, frames):
    frames = np.ascontiguousarray(frames, np.uint8)
    return dict(zip(DIMENSIONS, _labels(frames), strict=True))

  @parameterized.parameters(0, 100, 238, 255)
  def test_blank(self, level):
    self.assertEqual(
      set(self.check(np.full((9, 32, 32, 3), level)).values()), {'Bad'}
    )

  def test_plain_colour_of_the_shape(self):
    frames = np.broadcast_to((220, 40, 45), (9, 32, 32, 3))
    self.assertEqual(set(self.check(frames).values()), {'Bad'})

  @parameterized.parameters(True, False)
  def test_noise(self, is_static):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (1 if is_static else 9, 32, 32, 3))
    frames = np.broadcast_to(frames, (9, 32, 32, 3)).astype(np.uint8)
    for verdict in checkers.check(SCENE.caption, frames).values():
      self.assertEqual((verdict.label, verdict.kinds), ('Bad', ('nothing',)))

  def test_still(self):
    # The right shape, but it does not move: a flaw of motion, and not what the
    # caption says.
    frames = np.repeat(_frames()[4:5], 9, 0)
    self.assertEqual(
      self.check(frames),
      {'semantic': 'Bad', 'motion': 'Bad', 'fidelity': 'Good'},
    )

  def test_still_but_for_the_last_frame(self):
    frames = _frames()[[0] * 8 + [8]]
    self.assertEqual(self.check(frames)['motion'], 'Bad')

  def test_mean_of_all_frames(self):
    frames = np.repeat(_frames().mean(0, keepdims=True), 9, 0)
    labels = self.check(frames)
    self.assertEqual((labels['semantic'], labels['motion']), ('Bad', 'Bad'))

  def test_vanishing(self):
    frames = _frames().copy()
    frames[5:] = frames[0, 0, 0]
    labels = self.check(frames)
    self.assertEqual((labels['motion'], labels['fidelity']), ('Bad', 'Bad'))

  def test_shuffled(self):
    frames = _frames()[[3, 7, 1, 0, 8, 5, 2, 6, 4]]
    self.assertEqual(self.check(frames)['motion'], 'Bad')

  def test_backwards(self):
    labels = self.check(_frames()[::-1])
    self.assertEqual(
      labels, {'semantic': 'Bad', 'motion': 'Good', 'fidelity': 'Good'}
    )

  def test_without_colour(self):
    frames = np.repeat(_frames().mean(-1, keepdims=True), 3, -1)
    self.assertEqual(self.check(frames)['semantic'], 'Bad')

  def test_two_shapes(self):
    frames = _frames()
    labels = self.check(np.minimum(frames, frames.swapaxes(1, 2)))
    self.assertNotEqual(set(labels.values()), {'Good'})

  def test_flicker(self):
    frames = _frames()
    is_odd_t111 = (np.arange(9) % 2 == 1)[:, None, None, None]
    labels = self.check(np.where(is_odd_t111, 255 - frames, frames))
    self.assertEqual(labels['fidelity'], 'Bad')


class ToleranceTest(parameterized.TestCase):
  def test_between_strengths(self):
    for kind, strengths in flaws.STRENGTHS.items():
      tolerance = checkers.TOLERANCES[kind]
      self.assertEqual(tolerance.label(0), 'Good')
      for label in LABELS[1:]:
        self.assertEqual(tolerance.label(strengths[label]), label)

  def test_no_number(self):
    self.assertEqual(checkers.Tolerance(1.0, 2.0).label(float('nan')), 'Bad')
