"""Sampling, sizes and patches of clips, against the published rules."""

import dataclasses

import numpy as np
import pytest

from lift_jax.data.video import ClipInfo
from lift_jax.errors import UserError
from lift_jax.models.frames import resize_bicubic
from lift_jax.models.qwen3vl import video
from lift_jax.models.qwen3vl.config import QwenVideoConfig
from tests.optional import torch, transformers

pytestmark = pytest.mark.fast

BY_RATE = QwenVideoConfig()


def by_count(num_frames: int) -> QwenVideoConfig:
  return QwenVideoConfig(fps=None, num_frames=num_frames)


def processor():
  """The module of transformers' processor, where torchvision is installed."""
  pytest.importorskip('torchvision')
  assert transformers.__version__
  from transformers.models.qwen3_vl import video_processing_qwen3_vl

  return video_processing_qwen3_vl


@pytest.mark.parametrize(
  ('num_frames', 'fps', 'config', 'indices'),
  [
    (49, 8, by_count(8), [0, 7, 14, 21, 27, 34, 41, 48]),
    (49, 8, BY_RATE, [0, 4, 9, 13, 17, 22, 26, 31, 35, 39, 44, 48]),
    (
      49,
      8,
      by_count(16),
      [0, 3, 6, 10, 13, 16, 19, 22, 26, 29, 32, 35, 38, 42, 45, 48],
    ),
    (81, 16, by_count(8), [0, 11, 23, 34, 46, 57, 69, 80]),
    # Without a rate, 24 frames per second are assumed.
    (49, 0, BY_RATE, [0, 16, 32, 48]),
    # At least 4 frames, and no more than there are.
    (10, 24, BY_RATE, [0, 3, 6, 9]),
    (3, 24, BY_RATE, [0, 1, 2]),
    # Frames of a shorter clip are repeated.
    (3, 8, by_count(4), [0, 1, 1, 2]),
  ],
)
def test_sampling(num_frames, fps, config, indices):
  assert video.sample_frames(config, num_frames, fps) == indices


def test_at_most_max_frames():
  found = video.sample_frames(BY_RATE, 24 * 1000, 24)
  assert len(found) == 768
  assert found[-1] == 24 * 1000 - 1


@pytest.mark.parametrize(
  ('indices', 'expected'),
  [
    ([0, 7, 14, 21, 27, 34, 41, 48], '0.4 2.2 3.8 5.6'),
    (
      [0, 4, 9, 13, 17, 22, 26, 31, 35, 39, 44, 48],
      '0.2 1.4 2.4 3.6 4.6 5.8',
    ),
    # An odd last frame is a pair by itself.
    ([0, 8, 16], '0.5 2.0'),
    ([4], '0.5'),
  ],
)
def test_timestamps(indices, expected):
  found = video.timestamps(indices, fps=8)
  assert ' '.join(f'{time:.1f}' for time in found) == expected


@pytest.mark.parametrize(
  ('num_frames', 'height', 'width', 'size'),
  [
    (8, 480, 720, (480, 704)),  # 22.5 is rounded to 22
    (16, 480, 720, (480, 704)),
    (49, 480, 720, (480, 704)),
    (8, 512, 512, (512, 512)),
    (16, 480, 832, (480, 832)),
    (8, 720, 1280, (704, 1280)),
    (8, 768, 1360, (768, 1344)),
  ],
)
def test_sizes(num_frames, height, width, size):
  assert video.resized(num_frames, height, width, BY_RATE) == size


@pytest.mark.parametrize(
  ('num_frames', 'height', 'width', 'size'),
  [
    # Sides are divided by sqrt(8 * 480 * 720 / 2^20) = 1.62, and cut.
    (8, 480, 720, (288, 416)),
    # Multiplied by sqrt(2), and filled up.
    (2, 32, 32, (64, 64)),
    # First made as large as a token.
    (2, 20, 30, (32, 64)),
  ],
)
def test_limits(num_frames, height, width, size):
  limits = QwenVideoConfig(min_pixels=4096, max_pixels=2**20)
  assert video.resized(num_frames, height, width, limits) == size


def test_sizes_are_those_of_transformers():
  rng = np.random.default_rng(0)
  limits = QwenVideoConfig(min_pixels=128 * 32 * 32, max_pixels=768 * 32 * 32)
  for _ in range(200):
    height, width = (int(side) for side in rng.integers(10, 1500, 2))
    num_frames = int(rng.integers(2, 60))
    expected = processor().smart_resize(
      num_frames,
      height,
      width,
      factor=32,
      min_pixels=limits.min_pixels,
      max_pixels=limits.max_pixels,
    )
    assert video.resized(num_frames, height, width, limits) == expected


def test_aspect_ratio():
  with pytest.raises(UserError, match='64 x 12832 pixels: one side is more'):
    video.resized(8, 64, 12832, BY_RATE)


@pytest.mark.parametrize(
  ('config', 'grid', 'num_tokens'),
  [
    (by_count(8), (30, 44), 1320),
    (BY_RATE, (30, 44), 1980),
    (by_count(49), (30, 44), 8250),
  ],
)
def test_tokens(config, grid, num_tokens):
  clip = ClipInfo(num_frames=49, fps=8.0, height=480, width=720)
  selection = video.QwenFrames(config).select(clip)
  assert selection.grid == grid
  pairs = len(selection.timestamps)
  assert pairs * selection.tokens_per_patch == num_tokens
  assert selection.num_positions == num_tokens + 10 * pairs + 2
  assert not selection.is_short


def test_clips_of_one_shape_have_arrays_of_one_shape():
  """Upright clips share batches with wide ones, but clips of as many tokens in
  another number of frames do not."""
  frames = video.QwenFrames(by_count(4))
  wide = ClipInfo(num_frames=9, fps=8.0, height=64, width=96)
  upright = dataclasses.replace(wide, height=96, width=64)
  shapes = [frames.select(clip).shape for clip in (wide, upright)]
  assert shapes[0] == shapes[1] == (2, 24)
  longer = video.QwenFrames(by_count(8)).select(
    dataclasses.replace(wide, height=32, width=96)
  )
  assert longer.shape == (4, 12)


def test_arrays_of_a_clip():
  frames = video.QwenFrames(by_count(4))
  clip = ClipInfo(num_frames=9, fps=8.0, height=70, width=100)
  selection = frames.select(clip)
  pixels = np.random.default_rng(0).integers(0, 256, (4, 70, 100, 3), np.uint8)
  arrays = frames.preprocess(pixels, selection)
  shapes = frames.shapes(selection)
  assert arrays.keys() == shapes.keys()
  for name, shape in shapes.items():
    assert (arrays[name].shape, arrays[name].dtype) == (
      shape.shape,
      shape.dtype,
    )


def test_order_of_patches():
  """Blocks of 2 x 2 patches are together; an odd last frame is repeated."""
  row_hw, column_hw = np.mgrid[:4, :6].repeat(16, axis=1).repeat(16, axis=2)
  frames = [
    np.stack([row_hw, column_hw, np.full_like(row_hw, number)], axis=-1)
    for number in range(3)
  ]
  patches = video.to_patches(np.stack(frames).astype(np.uint8))
  # One pixel of each patch: its row, column, and both frames.
  pixels = patches.reshape(2, 24, 2, 16, 16, 3)[:, :, :, 3, 5]
  expected = [
    (2 * block_row + row, 2 * block_column + column)
    for block_row in range(2)
    for block_column in range(3)
    for row in range(2)
    for column in range(2)
  ]
  assert [tuple(p) for p in pixels[0, :, 0, :2].tolist()] == expected
  np.testing.assert_array_equal(pixels[:, 0, :, 2], [[0, 1], [2, 2]])


def test_order_of_pixels_is_that_of_the_kernel():
  """Frame, row, column, colour: as the axes of the patch embedding's kernel."""
  pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
  patches = video.to_patches(pixels).reshape(4, 2, 16, 16, 3)
  np.testing.assert_array_equal(patches[2], pixels[:, 16:, :16])


@pytest.mark.parametrize('size', [(64, 96), (128, 160)])
def test_resizing_is_that_of_torch(size):
  """Pillow and torchvision, which calls this function, differ by rounding."""
  pixels = np.random.default_rng(0).integers(0, 256, (1, 90, 130, 3), np.uint8)
  expected = torch.nn.functional.interpolate(
    torch.from_numpy(pixels).permute(0, 3, 1, 2),
    size=size,
    mode='bicubic',
    antialias=True,
    align_corners=False,
  ).permute(0, 2, 3, 1)
  ours = resize_bicubic(pixels, *size)
  assert np.abs(ours.astype(int) - expected.numpy().astype(int)).max() <= 1


@pytest.mark.parametrize('num_frames', [1, 3])
def test_fewer_frames_than_patches_take(num_frames):
  """One frame, or an odd last one, is repeated."""
  frames = video.QwenFrames(BY_RATE)
  clip = ClipInfo(num_frames=num_frames, fps=8.0, height=64, width=64)
  selection = frames.select(clip)
  assert selection.is_short
  assert selection.indices == tuple(range(num_frames))
  pixels = np.full((num_frames, 64, 64, 3), 7, np.uint8)
  pixels[-1] = 9
  arrays = frames.preprocess(pixels, selection)
  assert arrays['patches'].shape == frames.shapes(selection)['patches'].shape
  np.testing.assert_array_equal(arrays['patches'][-1], 9)


def test_with_the_processor_of_transformers():
  """From frames to patches."""
  pixels = np.random.default_rng(0).integers(0, 256, (4, 70, 100, 3), np.uint8)
  config = by_count(4)
  found = processor().Qwen3VLVideoProcessor(
    size={'longest_edge': config.max_pixels, 'shortest_edge': config.min_pixels}
  )(
    [torch.from_numpy(pixels).permute(0, 3, 1, 2)],
    do_sample_frames=False,
    return_tensors='pt',
  )
  frames = video.QwenFrames(config)
  clip = ClipInfo(num_frames=4, fps=8.0, height=70, width=100)
  selection = frames.select(clip)
  assert found['video_grid_thw'].tolist() == [[2, *selection.grid]]
  ours = frames.preprocess(pixels, selection)['patches'].astype(np.float32)
  ours = (ours / 127.5 - 1).reshape(-1, 2, 16, 16, 3).transpose(0, 4, 1, 2, 3)
  expected = found['pixel_values_videos'].numpy().reshape(ours.shape)
  np.testing.assert_allclose(ours, expected, atol=1.01 / 127.5)
