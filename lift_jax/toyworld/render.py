"""Renders clips of a moving shape with antialiased edges.

A pixel's coverage follows from the distance of its centre to the outline: full
at half a pixel inside, none at half a pixel outside. So positions matter to a
fraction of a pixel, and motion is smooth at 32 x 32.

Shape suffixes: T frames, H height, W width; the last axis of 2 is (y, x), of 3
RGB.
"""

import dataclasses

import numpy as np

# Outlines have the area of a circle of the given radius, pi radius^2.
_SQUARE_HALF = np.sqrt(np.pi) / 2
_TRIANGLE_INRADIUS = np.sqrt(np.pi / (3 * np.sqrt(3)))  # equilateral
_CROSS_HALF = np.sqrt(np.pi / 5) / 2  # five squares of this half side
_DIAMOND_HALF = np.sqrt(np.pi / 2)  # half a diagonal
_BAR_HALF = np.sqrt(np.pi / 12)  # half the width, a third of half the length
_RING_OUTER, _RING_INNER = 1.25, 0.75  # outer^2 - inner^2 = 1


@dataclasses.dataclass(frozen=True)
class Drawing:
  """All that determines the pixels of a clip, except the sampled noise.

  Attributes:
    shape: one of `scenes.SHAPES` or `filmed.SHAPES`.
    centres_t2: [T, 2], centre of the bounding box in pixels.
    radius: of the circle of the same area, in pixels.
    colour: of the shape, RGB from 0 to 255.
    background: RGB from 0 to 255, [3] or [H, W, 3].
    stretch_t22: [T, 2, 2], symmetric matrices that deform the shape; or None.
    hole: area of a hole in the middle, as a share of the shape's.
    hole_offset_2: [2], offset of the hole from the centre of mass, in radii.
    blur: standard deviation in pixels.
    noise: standard deviation in levels of 255.
  """

  shape: str
  centres_t2: np.ndarray
  radius: float
  colour: np.ndarray
  background: np.ndarray
  stretch_t22: np.ndarray | None = None
  hole: float = 0.0
  hole_offset_2: tuple[float, float] = (0.0, 0.0)
  blur: float = 0.0
  noise: float = 0.0


def render(
  drawing: Drawing, height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
  """The clip, uint8 [T, H, W, 3]; `rng` samples the noise."""
  centres_t2 = drawing.centres_t2 + box_offset(drawing.shape, drawing.radius)
  alpha_thw = coverage(
    drawing.shape,
    centres_t2,
    drawing.radius,
    height,
    width,
    drawing.stretch_t22,
  )
  if drawing.hole:
    hole_t2 = centres_t2 + np.array(drawing.hole_offset_2) * drawing.radius
    radius = drawing.radius * np.sqrt(drawing.hole)
    alpha_thw = alpha_thw * (
      1 - coverage('circle', hole_t2, radius, height, width)
    )
  alpha_thw1 = blurred(alpha_thw, drawing.blur)[..., None]
  frames_thw3 = (
    drawing.background + (drawing.colour - drawing.background) * alpha_thw1
  )
  if drawing.noise:
    frames_thw3 = frames_thw3 + rng.normal(0, drawing.noise, frames_thw3.shape)
  return np.clip(np.rint(frames_thw3), 0, 255).astype(np.uint8)


def box_offset(shape: str, radius: float) -> tuple[float, float]:
  """Offset of the centre of mass from that of the bounding box, (y, x)."""
  # The tip of a triangle is twice as far from its centre as its base.
  down = _TRIANGLE_INRADIUS * radius / 2 if shape == 'triangle' else 0.0
  return down, 0.0


def coverage(
  shape: str,
  centres_t2: np.ndarray,
  radius: float,
  height: int,
  width: int,
  stretch_t22: np.ndarray | None = None,
) -> np.ndarray:
  """The share of each pixel that the shape covers, [T, H, W] from 0 to 1.

  Args:
    shape: one of `scenes.SHAPES` or `filmed.SHAPES`.
    centres_t2: [T, 2], centre of mass in pixels.
    radius: of the circle of the same area, in pixels.
    height: in pixels.
    width: in pixels.
    stretch_t22: [T, 2, 2], deforms the shape about its centre.
  """
  y_th1 = (np.arange(height) + 0.5 - centres_t2[:, :1])[:, :, None]
  x_t1w = (np.arange(width) + 0.5 - centres_t2[:, 1:])[:, None, :]
  y_thw, x_thw = np.broadcast_arrays(y_th1, x_t1w)
  if stretch_t22 is not None:
    back_t22 = np.linalg.inv(stretch_t22)[:, :, :, None, None]
    y_thw, x_thw = (
      back_t22[:, row, 0] * y_thw + back_t22[:, row, 1] * x_thw
      for row in (0, 1)
    )
  distance_thw = _distance(shape, y_thw, x_thw, radius)
  return np.clip(0.5 - distance_thw, 0, 1)


def _distance(
  shape: str, y: np.ndarray, x: np.ndarray, radius: float
) -> np.ndarray:
  """Distance to the outline in pixels, negative inside."""
  match shape:
    case 'circle':
      return np.hypot(y, x) - radius
    case 'square':
      return np.maximum(np.abs(y), np.abs(x)) - _SQUARE_HALF * radius
    case 'triangle':  # its tip points up
      sides = np.sqrt(0.75) * np.abs(x) - 0.5 * y
      return np.maximum(sides, y) - _TRIANGLE_INRADIUS * radius
    case 'cross':
      half = _CROSS_HALF * radius
      y, x = np.abs(y), np.abs(x)
      return np.minimum(
        np.maximum(y - half, x - 3 * half), np.maximum(y - 3 * half, x - half)
      )
    case 'diamond':
      half = _DIAMOND_HALF * radius
      return np.sqrt(0.5) * (np.abs(y) + np.abs(x) - half)
    case 'bar':
      half = _BAR_HALF * radius
      return np.maximum(np.abs(y) - half, np.abs(x) - 3 * half)
    case 'ring':
      r = np.hypot(y, x)
      return np.maximum(r - _RING_OUTER * radius, _RING_INNER * radius - r)
  raise ValueError(f'no outline for {shape!r}')


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
  """Images [..., H, W] after a Gaussian blur of `sigma` pixels."""
  if not sigma:
    return images
  height, width = images.shape[-2:]
  return _gaussian(height, sigma) @ images @ _gaussian(width, sigma).T


def _gaussian(size: int, sigma: float) -> np.ndarray:
  """[size, size], a normalised Gaussian about each pixel, cut at the edges."""
  steps = np.arange(size)[:, None] - np.arange(size)[None, :]
  weights = np.exp(-0.5 * (steps / sigma) ** 2)
  return weights / weights.sum(1, keepdims=True)
