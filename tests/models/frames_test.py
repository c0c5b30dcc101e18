"""Frame sampling and resizing for critics."""

import pathlib
import tempfile

from absl.testing import parameterized
import numpy as np
from PIL import Image

from lift_jax.data import video
from lift_jax.data.video_write import write_mp4
from lift_jax.models import frames


class ChooseTest(parameterized.TestCase):
  @parameterized.parameters(
    (49, [0, 6, 13, 20, 27, 34, 41, 48]),
    (8, [0, 1, 2, 3, 4, 5, 6, 7]),
    (9, [0, 1, 2, 3, 4, 5, 6, 8]),
    (7, [0, 1, 2, 3, 4, 5, 6]),
    (1, [0]),
    (100, [0, 14, 28, 42, 56, 70, 84, 99]),
  )
  def test_by_hand(self, num_frames, expected):
    self.assertEqual(frames.evenly_spaced_frames(num_frames), expected)

  def test_formula(self):
    """int(linspace(0, n - 1, 8)), in integers."""
    for num_frames in range(8, 3000):
      self.assertEqual(
        frames.evenly_spaced_frames(num_frames),
        [k * (num_frames - 1) // 7 for k in range(8)],
      )

  @parameterized.parameters((49, 1, [0]), (49, 2, [0, 48]), (3, 2, [0, 2]))
  def test_other_numbers(self, num_frames, max_frames, expected):
    self.assertEqual(
      frames.evenly_spaced_frames(num_frames, max_frames), expected
    )

  def test_no_frame(self):
    with self.assertRaisesRegex(ValueError, 'of 0 frames'):
      frames.evenly_spaced_frames(0)

  def test_decodes(self):
    """A clip whose frames are identified by their brightness."""
    folder = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(folder) / 'clip.mp4'
    levels = np.arange(49, dtype=np.uint8) * 5
    write_mp4(
      path,
      np.broadcast_to(levels[:, None, None, None], (49, 16, 16, 3)),
      crf=0,
    )
    clip = video.decode(
      path, 8, where='record 1', choose=frames.evenly_spaced_frames
    )
    chosen = np.rint(clip.frames.mean(axis=(1, 2, 3)) / 5).astype(int)
    self.assertEqual(chosen.tolist(), [0, 6, 13, 20, 27, 34, 41, 48])


def _images(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _cubic(x):
  """Keys' kernel with a = -1/2."""
  x = np.abs(x)
  near = 1.5 * x**3 - 2.5 * x**2 + 1
  far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0))


def _scale_rows(image, size):
  """Rows scaled to `size`: a kernel as wide as four of the coarser pixels."""
  scale = max(image.shape[0] / size, 1)
  centres = (np.arange(size) + 0.5) * image.shape[0] / size
  weights = _cubic(
    (np.arange(image.shape[0])[None] + 0.5 - centres[:, None]) / scale
  )
  weights /= weights.sum(axis=1, keepdims=True)
  return np.clip(np.rint(np.tensordot(weights, image, axes=1)), 0, 255)


class ResizeTest(parameterized.TestCase):
  # Smaller, larger, another aspect ratio, and the same size.
  @parameterized.parameters(
    (48, 72, 14), (9, 7, 14), (40, 10, 14), (14, 14, 14)
  )
  def test_pillow(self, height, width, size):
    images = _images(3, height, width, 3)
    actual = frames.resize_bicubic(images, size)
    self.assertEqual(actual.dtype, np.uint8)
    expected = [
      np.asarray(Image.fromarray(x).resize((size, size), Image.BICUBIC))
      for x in images
    ]
    np.testing.assert_array_equal(actual, np.stack(expected))

  @parameterized.parameters((48, 72, 14), (9, 7, 14), (17, 40, 14))
  def test_formula(self, height, width, size):
    """The mathematics of the filter, to one step of fixed-point rounding."""
    [image] = _images(1, height, width, 3)
    [actual] = frames.resize_bicubic(image[None], size)
    wide = _scale_rows(image.swapaxes(0, 1).astype(float), size).swapaxes(0, 1)
    np.testing.assert_allclose(actual, _scale_rows(wide, size), atol=1)

  def test_same_size_is_identity(self):
    images = _images(2, 14, 14, 3)
    np.testing.assert_array_equal(frames.resize_bicubic(images, 14), images)

  def test_any_layout_in_memory(self):
    images = _images(2, 20, 30, 3)
    flipped = np.ascontiguousarray(images[:, ::-1, :, ::-1])
    np.testing.assert_array_equal(
      frames.resize_bicubic(images[:, ::-1, :, ::-1], 14),
      frames.resize_bicubic(flipped, 14),
    )

  def test_no_frames(self):
    self.assertEqual(
      frames.resize_bicubic(_images(0, 20, 30, 3), 14).shape, (0, 14, 14, 3)
    )
