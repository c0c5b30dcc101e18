"""GIFs, read back by Pillow: frames, colours, time."""

import io

from absl.testing import parameterized
import numpy as np
from PIL import Image, ImageSequence

from lift_jax.data import gif
from tests.data import clips


def decode(data):
  """Frames uint8 [T, H, W, 3], their durations in ms, and the loop count."""
  with Image.open(io.BytesIO(data)) as image:
    frames, durations = [], []
    for frame in ImageSequence.Iterator(image):
      frames.append(np.asarray(frame.convert('RGB')))
      durations.append(frame.info['duration'])
    return np.stack(frames), durations, image.info.get('loop')


class GifTest(parameterized.TestCase):
  @parameterized.parameters((2, 16, 20), (13, 33, 47), (49, 48, 64))
  def test_frames(self, num_frames, height, width):
    frames = clips.moving_square(num_frames, height, width)
    decoded, _, loop = decode(gif.encode_gif(frames, 8))
    self.assertEqual(decoded.shape, frames.shape)
    self.assertEqual(loop, 0)
    # Fewer than 256 colours each: nothing but rounding of the palette.
    error = np.abs(decoded.astype(int) - frames)
    self.assertLessEqual(error.max(), 2)

  def test_many_colours(self):
    """More than fit a palette; one for the entire clip would be far off."""
    t, y, x = np.mgrid[:5, :64, :64]
    frames = np.stack([4 * x, 4 * y, 50 * t + x // 2], -1).astype(np.uint8)
    decoded, _, _ = decode(gif.encode_gif(frames, 8))
    error = np.abs(decoded.astype(int) - frames)
    self.assertLess(error.mean(), 6)

  @parameterized.parameters(
    (8, [130, 120, 130, 120]),  # ends at 12.5, 25, 37.5 and 50 ticks
    (10, [100, 100, 100, 100]),
    (16, [60, 70, 60, 60]),
    (30, [30, 40, 30, 30]),
    (0.5, [2000, 2000, 2000, 2000]),
  )
  def test_durations(self, fps, durations):
    frames = clips.moving_square(4, 16, 20)
    self.assertEqual(decode(gif.encode_gif(frames, fps))[1], durations)

  def test_one_frame(self):
    frames = clips.moving_square(1, 16, 20)
    with Image.open(io.BytesIO(gif.encode_gif(frames, 8))) as image:
      self.assertEqual((image.n_frames, image.size), (1, (20, 16)))

  def test_equal_frames(self):
    """Equal frames only extend a duration, which must be kept."""
    frames = clips.moving_square(2, 16, 20)[[0, 0, 0, 1]]
    decoded, durations, _ = decode(gif.encode_gif(frames, 10))
    self.assertLen(decoded, 2)
    self.assertEqual(durations, [300, 100])

  @parameterized.parameters(((0, 8, 8, 3), np.uint8), ((2, 8, 8, 3), float))
  def test_bad_frames(self, shape, dtype):
    with self.assertRaisesRegex(ValueError, 'uint8 frames, at least one'):
      gif.encode_gif(np.zeros(shape, dtype), 8)
