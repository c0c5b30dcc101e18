"""Filmed clips: contrast, steps, camera, and captions that fit the model."""

import numpy as np
import pytest

from lift_jax.toyworld import filmed, scenes
from lift_jax.toyworld.pretraining import tokenizer

pytestmark = pytest.mark.fast


def test_contrast():
  for colour in filmed.COLOURS.values():
    for background in filmed.BACKGROUNDS.values():
      assert np.linalg.norm(np.subtract(colour, background)) > 80


def test_nothing_that_prompts_ask_for():
  for ours, asked in (
    (filmed.SHAPES, scenes.SHAPES),
    (filmed.COLOURS, scenes.COLOURS),
    (filmed.BACKGROUNDS, scenes.BACKGROUNDS),
  ):
    assert not set(ours) & set(asked)
  for colour in filmed.COLOURS.values():
    for asked in scenes.COLOURS.values():
      assert np.linalg.norm(np.subtract(colour, asked)) > 60


def test_clip():
  for seed in range(20):
    clip = filmed.draw_clip(np.random.default_rng(seed))
    assert clip.frames_thw3.shape == (9, 32, 32, 3)
    # With its end token; words of the caption have a space before, the dot not.
    assert len(clip.caption.split()) + 2 <= tokenizer.MAX_LENGTH
    # The sensor's noise; the rest of a corner is a smooth texture.
    change = np.diff(clip.frames_thw3[:, :3, :3].astype(float), axis=0)
    assert 2 < change.std() < 8
    # The shape moves smoothly and stays inside.
    moved = np.abs(np.diff(clip.frames_thw3.astype(float), axis=0)) > 40
    assert moved.any((1, 2, 3)).all()
    assert not moved[:, 0].any() and not moved[:, :, 0].any()


def test_equal_seeds():
  one, same, other = (
    filmed.draw_clip(np.random.default_rng(seed)).frames_thw3
    for seed in (1, 1, 2)
  )
  assert np.array_equal(one, same)
  assert not np.array_equal(one, other)
