"""Comparisons of two models, counted by hand."""

import dataclasses
import json
import pathlib

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data.hra import DIMENSIONS
from lift_jax.data.prompts import Prompt
from lift_jax.data.rubric import Scale
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.rewards.weights import video_reward
from lift_jax.sampling.clips import make_clips
from lift_jax.sampling.manifest import VIDEOS, Manifest
from lift_jax.toyworld import flaws, judge, scenes
from lift_jax.toyworld.checkers import Verdict
from lift_jax.toyworld.judge import JudgedClip

DRAWS = BootstrapConfig(draws=1000, coverage=0.95, seed=0)
LETTERS = {'G': 'Good', 'N': 'Normal', 'B': 'Bad'}
NO_KINDS = ((), (), ())


def _clip(
  prompt, letters, index=0, kinds=NO_KINDS, speed: float | None = 0.04,
  is_static=False,
):  # fmt: skip
  """A clip with labels such as 'GNB', in the order of `DIMENSIONS`."""
  labels = dict(zip(DIMENSIONS, (LETTERS[one] for one in letters), strict=True))
  return JudgedClip(
    key=(prompt, index),
    caption=f'What {prompt} says.',
    path=pathlib.Path(f'{prompt}-{index}.mp4'),
    verdicts={
      name: Verdict(label, 'Said.', of)
      for (name, label), of in zip(labels.items(), kinds, strict=True)
    },
    reward=video_reward(labels, Scale()),
    speed=speed,
    is_static=is_static,
  )


class JudgeVideosTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.workdir = tmp_path
    (tmp_path / 'videos').mkdir()

  def write(self, frames_by_scene, clips_per_prompt=1):
    """Writes a `lift sample` workdir; returns the clips in its order."""
    prompts = [
      Prompt(f'p{index}', scene.caption, f'n{index}', 'x')
      for index, (scene, _) in enumerate(frames_by_scene)
    ]
    clips, _ = make_clips(prompts, clips_per_prompt, 0, '{id}-{index}')
    with Manifest(self.workdir, {'sampler': 'ddim'}) as manifest:
      for clip in clips[::-1]:
        scene_frames = frames_by_scene[int(clip.prompt.id[1:])][1]
        write_mp4(manifest.file(clip, VIDEOS), scene_frames, flaws.FPS)
        manifest.add(clip)
    manifest.gather(clips)
    return clips

  def test_flawless(self):
    made = []
    for index, scene in enumerate(scenes.held_out_scenes()[::6]):
      clip = flaws.draw_clip(
        scene, np.random.default_rng(index), dict.fromkeys(DIMENSIONS, 'Good')
      )
      made.append((scene, clip.frames_thw3))
    clips = self.write(made)
    judged = judge.judge_videos(self.workdir)
    self.assertEqual(
      [(one.key, one.caption) for one in judged],
      [((clip.prompt.id, clip.index), clip.prompt.text) for clip in clips],
    )
    is_good = [
      all(verdict.label == 'Good' for verdict in one.verdicts.values())
      for one in judged
    ]
    self.assertGreaterEqual(np.mean(is_good), 0.95)
    for one, good in zip(judged, is_good, strict=True):
      self.assertTrue(one.path.is_file())
      self.assertFalse(one.is_static)
      # From 10.5 to 12 of 32 pixels in eight steps.
      self.assertBetween(one.speed, 10.3 / 8 / 32, 12.4 / 8 / 32)
      if good:
        self.assertAlmostEqual(one.reward, 0.9)

  def test_cheats(self):
    scene = scenes.Scene('large', 'red', 'square', 'upwards', 'white')
    good = flaws.make_clip(
      scene, scene, None, None, np.random.default_rng(0)
    ).frames_thw3
    gone = good.copy()
    gone[1::2] = gone[0, 0, 0]  # no two consecutive frames with a shape
    made = [
      (scene, good),
      (scene, np.repeat(good[4:5], 9, 0)),
      (scene, np.full_like(good, 238)),
      (scene, gone),
    ]
    self.write(made)
    moving, still, blank, flicker = judge.judge_videos(self.workdir)
    self.assertEqual(
      [one.is_static for one in (moving, still, blank, flicker)],
      [False, True, True, False],
    )
    self.assertLess(still.speed, 0.1 / 32)
    self.assertIsNone(blank.speed)
    self.assertAlmostEqual(blank.reward, 0.05)
    self.assertEqual(blank.verdicts['motion'].kinds, ('nothing',))
    self.assertIsNone(flicker.speed)

  def test_bad_input(self):
    with self.assertRaisesRegex(UserError, 'manifest.jsonl: lists no clip'):
      judge.judge_videos(self.workdir)
    scene = scenes.held_out_scenes()[0]
    frames = np.zeros((9, 32, 32, 3), np.uint8)
    self.write([(scene, frames), (scene, frames)])
    (self.workdir / 'videos/p1-0.mp4').unlink()
    with self.assertRaisesRegex(
      UserError, r'manifest.jsonl \(videos/p1-0.mp4\): .* does not exist'
    ):
      judge.judge_videos(self.workdir)


class CompareTest(parameterized.TestCase):
  def test_by_hand(self):
    before = [
      _clip('a', 'GGG', 0, speed=0.04),
      _clip('a', 'BGN', 1, (('colour',), (), ('blur',)), speed=0.02),
      _clip('b', 'BBB', 0, (('nothing',),) * 3, speed=None, is_static=True),
      _clip('b', 'GNG', 1, ((), ('freeze',), ()), speed=0.03),
    ]
    after = [
      _clip('a', 'GGG', 0, speed=0.05),
      _clip('a', 'GGG', 1, speed=0.05),
      _clip('b', 'GGN', 0, ((), (), ('blur',)), speed=0.02),
      _clip('b', 'NGG', 1, (('size',), (), ()), speed=0.04),
    ]
    found = judge.compare(before, after[::-1], DRAWS)
    self.assertEqual((found['num_videos'], found['num_prompts']), (4, 2))

    def values(number):
      return [number[key]['value'] for key in ('before', 'after', 'difference')]

    for name, expected in {
      'semantic': (0.5, 0.75, 0.25),
      'motion': (0.5, 1.0, 0.5),
      'fidelity': (0.5, 0.75, 0.25),
      'all': (0.25, 0.5, 0.25),
    }.items():
      np.testing.assert_allclose(values(found['rates'][name]), expected)
    rewards = (
      (0.9 + (0.05 + 0.9 + 0.2) / 3 + 0.05 + (0.9 + 0.2 + 0.9) / 3) / 4,
      (0.9 + 0.9 + 2 * (0.9 + 0.9 + 0.2) / 3) / 4,
    )
    np.testing.assert_allclose(
      values(found['reward']), (*rewards, rewards[1] - rewards[0])
    )
    np.testing.assert_allclose(values(found['speed']), (0.03, 0.04, 0.01))
    np.testing.assert_allclose(values(found['static_share']), (0.25, 0, -0.25))
    self.assertEqual(
      found['labels']['before'],
      {
        'semantic': {'Good': 0.5, 'Normal': 0.0, 'Bad': 0.5},
        'motion': {'Good': 0.5, 'Normal': 0.25, 'Bad': 0.25},
        'fidelity': {'Good': 0.5, 'Normal': 0.25, 'Bad': 0.25},
      },
    )
    self.assertEqual(found['labels']['after']['motion']['Good'], 1)
    for side, expected in {
      'before': {'colour': 0.25, 'blur': 0.25, 'nothing': 0.25, 'freeze': 0.25},
      'after': {'blur': 0.25, 'size': 0.25},
    }.items():
      named = found['flaws'][side]
      self.assertEqual(list(named), list(judge.KINDS))
      self.assertEqual({k: v for k, v in named.items() if v}, expected)
    # Two prompts have three different samples; the extremes have one prompt.
    self.assertEqual(
      found['rates']['all']['difference'],
      {'value': 0.25, 'low': 0.0, 'high': 0.5},
    )
    self.assertEqual(json.loads(json.dumps(found, allow_nan=False)), found)

  def _noisy(self, num_prompts=60, per_prompt=2):
    """Prompts that are hard or easy for both; some clips become Good."""
    rng = np.random.default_rng(0)
    before, after = [], []
    for number in range(num_prompts):
      is_easy = rng.random() < 0.5
      for index in range(per_prompt):
        is_mended = rng.random() < 0.15
        before.append(_clip(f'{number}', 'GGG' if is_easy else 'GGB', index))
        after.append(
          _clip(f'{number}', 'GGG' if is_easy or is_mended else 'GGB', index)
        )
    return before, after

  def test_pairing_narrows(self):
    found = judge.compare(*self._noisy(), DRAWS)['rates']['fidelity']

    def width(which):
      return found[which]['high'] - found[which]['low']

    # Independent samples would have the root of the sum of squares.
    unpaired = np.hypot(width('before'), width('after'))
    self.assertLess(width('difference'), 0.5 * unpaired)
    for number in found.values():
      self.assertBetween(number['value'], number['low'], number['high'])
    self.assertGreater(found['difference']['low'], 0)

  def test_clips_of_a_prompt_are_correlated(self):
    before, after = self._noisy(per_prompt=1)

    def repeated(clips):
      return [
        dataclasses.replace(clip, key=(clip.key[0], index))
        for clip in clips
        for index in range(4)
      ]

    once = judge.compare(before, after, DRAWS)
    four = judge.compare(repeated(before), repeated(after), DRAWS)
    self.assertEqual(four['num_videos'], 4 * once['num_videos'])
    for key, number in once['rates']['fidelity'].items():
      self.assertEqual(list(number), list(four['rates']['fidelity'][key]))
      np.testing.assert_allclose(
        list(number.values()), list(four['rates']['fidelity'][key].values())
      )

  def test_no_shape(self):
    before = [_clip('a', 'BBB', speed=None), _clip('b', 'BBB', speed=None)]
    after = [_clip('a', 'GGG'), _clip('b', 'GGG')]
    found = judge.compare(before, after, DRAWS)
    nothing = {'value': None, 'low': None, 'high': None}
    self.assertEqual(found['speed']['before'], nothing)
    self.assertEqual(found['speed']['difference'], nothing)
    (line,) = (row for row in judge.table_lines(found) if 'step' in row)
    self.assertEqual(line.split()[-3:], ['-', '4.0', '-'])

  @parameterized.named_parameters(
    ('index', [_clip('a', 'GGG', 1)], "'a' has a clip 0 before but none after"),
    (
      'more',
      [_clip('a', 'GGG'), _clip('b', 'GGG')],
      "'b' has a clip 0 after but none before",
    ),
    ('none', [], "'a' has a clip 0 before but none after"),
    ('twice', [_clip('a', 'GGG')] * 2, "'a' has two clips 0 after"),
    (
      'caption',
      [dataclasses.replace(_clip('a', 'GGG'), caption='Other.')],
      "'a' is 'What a says.' before and 'Other.' after",
    ),
  )
  def test_mismatch(self, after, message):
    with self.assertRaisesRegex(UserError, message):
      judge.compare([_clip('a', 'GGG')], after, DRAWS)

  def test_empty(self):
    with self.assertRaisesRegex(UserError, 'no clip before'):
      judge.compare([], [], DRAWS)


class TableTest(parameterized.TestCase):
  def test_lines(self):
    before = [_clip('a', 'GGG'), _clip('b', 'BGG', speed=0.02)]
    after = [_clip('a', 'GGG'), _clip('b', 'GGG', speed=0.02)]
    lines = judge.table_lines(judge.compare(before, after, DRAWS))
    self.assertLen(lines, 2 + len(DIMENSIONS) + 4)
    self.assertLessEqual(max(map(len, lines)), 80)
    self.assertIn('95 % interval', lines[1])
    self.assertEqual(
      lines[2].split(),
      ['semantic', 'Good,', '%', '50.0', '100.0', '+50.0', '[+0.0,', '+100.0]'],
    )
    self.assertEqual(
      lines[6].split(),
      ['mean', 'reward', '0.758', '0.900', '+0.142', '[+0.000,', '+0.283]'],
    )
    self.assertEqual(lines[7].split()[-5:-2], ['3.0', '3.0', '+0.0'])
