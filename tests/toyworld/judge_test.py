"""Verdicts on generated clips, and the metrics made of them."""

import json
import pathlib

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.comparison import metric_files, metrics
from lift_jax.data.hra import DIMENSIONS
from lift_jax.data.prompts import Prompt
from lift_jax.data.rubric import Scale
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from lift_jax.rewards.weights import video_reward
from lift_jax.sampling.clips import make_clips
from lift_jax.sampling.manifest import VIDEOS, Manifest
from lift_jax.toyworld import flaws, judge, scenes
from lift_jax.toyworld.checkers import Verdict
from lift_jax.toyworld.judge import JudgedClip
from tests.comparison import sets

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
    video=f'videos/{prompt}-{index}.mp4',
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


class MetricsTest(parameterized.TestCase):
  clips = [
    _clip('a', 'GGG', 0, speed=0.04),
    _clip('a', 'BGN', 1, (('colour',), (), ('blur',)), speed=0.02),
    _clip('b', 'BBB', 0, (('nothing',),) * 3, speed=None, is_static=True),
    _clip('b', 'GNG', 1, ((), ('freeze',), ()), speed=0.03),
  ]

  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def test_by_hand(self):
    """What `lift compare` reads of them."""
    found = sets.clip_set('m', 'ab', num_clips=2)
    path = self.folder / 'checkers.json'
    path.write_text(json.dumps(judge.metric_file(self.clips)))
    (file,) = metric_files.read_metric_files([path], [found])
    self.assertEqual(file.decisive, 'checkers_all')
    values = {
      name.removeprefix('checkers_'): list(by_key.values())
      for name, by_key in file.values.items()
    }
    self.assertEqual(
      values,
      {
        'semantic': [1, 0, 0, 1],
        'motion': [1, 1, 0, 0],
        'fidelity': [1, 0, 0, 1],
        'all': [1, 0, 0, 0],
        'reward': [clip.reward for clip in self.clips],
        'speed': [0.04, 0.02, 0.03],
        'static': [0, 0, 1, 0],
      },
    )
    self.assertNotIn(('b', 0), file.values['checkers_speed'])
    better = {name: metric.better for name, metric in file.metrics.items()}
    self.assertEqual(better['checkers_all'], metrics.HIGHER)
    self.assertEqual(better['checkers_static'], metrics.LOWER)
    self.assertEqual(better['checkers_speed'], metrics.NEITHER)

  def test_shares(self):
    self.assertEqual(
      judge.label_shares(self.clips),
      {
        'semantic': {'Good': 0.5, 'Normal': 0.0, 'Bad': 0.5},
        'motion': {'Good': 0.5, 'Normal': 0.25, 'Bad': 0.25},
        'fidelity': {'Good': 0.5, 'Normal': 0.25, 'Bad': 0.25},
      },
    )
    named = judge.flaw_shares(self.clips)
    self.assertEqual(list(named), list(judge.KINDS))
    self.assertEqual(
      {k: v for k, v in named.items() if v},
      {'colour': 0.25, 'blur': 0.25, 'nothing': 0.25, 'freeze': 0.25},
    )
