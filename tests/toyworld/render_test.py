"""Areas, positions and antialiasing of rendered shapes."""

from absl.testing import parameterized
import numpy as np

from lift_jax.toyworld import filmed, scenes
from lift_jax.toyworld.render import (
  Drawing,
  blurred,
  box_offset,
  coverage,
  render,
)

CENTRE = np.array([[15.3, 16.6]])


class CoverageTest(parameterized.TestCase):
  @parameterized.product(
    shape=(*scenes.SHAPES, *filmed.SHAPES), radius=(3.6, 5.4, 7.0)
  )
  def test_area_and_centre(self, shape, radius):
    alpha_hw = coverage(shape, CENTRE, radius, 32, 32)[0]
    self.assertAlmostEqual(alpha_hw.sum() / (np.pi * radius**2), 1, delta=0.03)
    y_hw, x_hw = np.indices((32, 32)) + 0.5
    centre = [(alpha_hw * at).sum() / alpha_hw.sum() for at in (y_hw, x_hw)]
    np.testing.assert_allclose(centre, CENTRE[0], atol=0.06)

  def test_shapes_differ(self):
    images = [
      coverage(shape, CENTRE, 5.4, 32, 32)[0] > 0.5
      for shape in (*scenes.SHAPES, *filmed.SHAPES)
    ]
    for index, image in enumerate(images):
      for other in images[:index]:
        self.assertGreater((image != other).sum(), 8)

  def test_triangle_points_up(self):
    rows, _ = np.nonzero(coverage('triangle', CENTRE, 5.4, 32, 32)[0] > 0.5)
    self.assertGreater((rows > rows.mean()).sum(), (rows < rows.mean()).sum())
    down, aside = box_offset('triangle', 5.4)
    middle = (rows.min() + rows.max() + 1) / 2
    self.assertAlmostEqual(CENTRE[0, 0] - down, middle, delta=0.5)
    self.assertEqual(aside, 0)
    self.assertEqual(box_offset('cross', 5.4), (0, 0))

  def test_stretch(self):
    stretch_122 = np.diag([2.0, 0.5])[None]
    alpha_hw = coverage('square', CENTRE, 4.0, 32, 32, stretch_122)[0]
    rows, columns = np.nonzero(alpha_hw > 0.5)
    # A square of side 4 sqrt(pi) = 7.1, twice as high and half as wide.
    self.assertEqual(np.ptp(rows) + 1, 14)
    self.assertLessEqual(np.ptp(columns) + 1, 4)

  def test_unknown(self):
    with self.assertRaisesRegex(ValueError, 'star'):
      coverage('star', CENTRE, 4.0, 32, 32)


class RenderTest(parameterized.TestCase):
  def draw(self, **changes):
    drawing = Drawing(
      'circle',
      np.repeat(CENTRE, 3, 0),
      5.4,
      np.array((200, 0, 0)),
      np.array((100, 100, 100)),
      **changes,
    )
    return render(drawing, 24, 32, np.random.default_rng(0))

  def test_colours(self):
    frames = self.draw()
    self.assertEqual((frames.shape, frames.dtype), ((3, 24, 32, 3), np.uint8))
    np.testing.assert_array_equal(frames[0, 15, 16], (200, 0, 0))
    np.testing.assert_array_equal(frames[0, 0, 0], (100, 100, 100))

  def test_hole(self):
    missing = (self.draw(hole=0.4)[0] - self.draw()[0].astype(int))[..., 0]
    share = -missing.sum() / 100 / (np.pi * 5.4**2)
    self.assertAlmostEqual(share, 0.4, delta=0.02)

  def test_noise(self):
    frames = self.draw(noise=20.0)
    self.assertAlmostEqual(frames[:, :6].std(), 20, delta=1.5)
    self.assertTrue((frames[0] != frames[1]).any())

  def test_blur(self):
    rng = np.random.default_rng(0)
    image = np.zeros((32, 32))
    image[16, 16] = 1.0
    soft = blurred(image, 2.0)
    self.assertAlmostEqual(soft.sum(), 1, delta=1e-3)
    spread = (soft.sum(1) * (np.arange(32) - 16) ** 2).sum()
    self.assertAlmostEqual(spread, 4, delta=0.01)
    self.assertAlmostEqual(blurred(np.ones((4, 4)), 3.0).min(), 1)
    noise = rng.normal(size=(2, 4, 4))
    self.assertIs(blurred(noise, 0.0), noise)
