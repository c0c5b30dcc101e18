"""Settings of `lift score`."""

import dataclasses
import pathlib

import pytest

from lift_jax.data.video import ClipInfo
from lift_jax.errors import UserError
from lift_jax.models.qwen3vl.backbone import Qwen3VLCritic
from lift_jax.models.qwen3vl.config import PUBLISHED as QWENS
from lift_jax.models.vila.backbone import VilaCritic
from lift_jax.models.vila.config import PUBLISHED as VILAS
from lift_jax.scoring.config import FramesConfig

pytestmark = pytest.mark.fast

QWEN = Qwen3VLCritic(pathlib.Path(), QWENS['Qwen3-VL-4B'])
VILA = VilaCritic(pathlib.Path(), VILAS['VILA1.5-13b'])
CLIP = ClipInfo(num_frames=49, fps=8.0, height=480, width=720)


@pytest.mark.parametrize(
  'settings, num_frames, grid',
  [
    ({}, 12, (30, 44)),
    ({'num_frames': 8}, 8, (30, 44)),
    ({'fps': 4.0}, 24, (30, 44)),
    ({'num_frames': 8, 'max_pixels': 8 * 320 * 480}, 8, (20, 30)),
    ({'num_frames': 8, 'min_pixels': 8 * 960 * 1440}, 8, (60, 90)),
  ],
)
def test_frames_of_qwen(settings, num_frames, grid):
  critic = FramesConfig(**settings).of(QWEN)
  selection = critic.frames.select(CLIP)
  assert (len(selection.indices), selection.grid) == (num_frames, grid)
  assert critic.config.llm is QWEN.config.llm


def test_rate_of_a_critic_with_a_number():
  """The setting that is not given is none, whatever the folder says."""
  video = dataclasses.replace(QWEN.config.video, fps=None, num_frames=8)
  config = dataclasses.replace(QWEN.config, video=video)
  critic = dataclasses.replace(QWEN, config=config)
  changed = FramesConfig(fps=2.0).of(critic).config.video
  assert (changed.fps, changed.num_frames) == (2.0, None)


def test_frames_of_vila():
  critic = FramesConfig(num_frames=16).of(VILA)
  selection = critic.frames.select(CLIP)
  assert len(selection.indices) == 16
  assert critic.frames.shapes(selection).shape == (16, 384, 384, 3)
  assert FramesConfig().of(VILA) is VILA
  with pytest.raises(UserError, match='frames.max_pixels: VILA takes evenly'):
    FramesConfig(num_frames=8, max_pixels=100).of(VILA)


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'num_frames': 0}, 'frames.num_frames is 0'),
    ({'fps': -1.0}, 'frames.fps is -1'),
    ({'num_frames': 8, 'fps': 2.0}, 'give one of them'),
  ],
)
def test_refused(settings, message):
  with pytest.raises(UserError, match=message):
    FramesConfig(**settings)


def test_limits_that_contradict():
  with pytest.raises(UserError, match='at least 4096 and at most 1000 pixels'):
    FramesConfig(max_pixels=1000).of(QWEN)
