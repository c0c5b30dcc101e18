"""Resizing along one axis as a matrix, as torch.nn.functional.interpolate does.

Without antialiasing, a value is a weighted mean of 2 (linear) or 4 (cubic)
neighbours, whatever the ratio of the sizes; neighbours beyond an edge are the
value at that edge. The centres of the first and last value keep their distance
to the edges in proportion (align_corners=False).
"""

import math

import numpy as np

LINEAR, CUBIC = 'linear', 'cubic'

# Keys' cubic convolution kernel has this free parameter; -0.5 is as usual.
_TORCH_CUBIC = -0.75


def _linear(distance: np.ndarray) -> np.ndarray:
  return np.maximum(0, 1 - distance)


def _cubic(distance: np.ndarray) -> np.ndarray:
  a, x = _TORCH_CUBIC, distance
  near = (a + 2) * x**3 - (a + 3) * x**2 + 1
  far = a * (x**3 - 5 * x**2 + 8 * x - 4)
  return np.where(x <= 1, near, np.where(x < 2, far, 0))


_KERNELS = {LINEAR: (_linear, 1), CUBIC: (_cubic, 2)}


def resize_matrix(
  old: int, new: int, kind: str, ratio: float | None = None
) -> np.ndarray:
  """The matrix that resizes an axis, fp32 [new, old].

  Args:
    old: number of values before.
    new: likewise, after.
    kind: `LINEAR` or `CUBIC`.
    ratio: by which positions are scaled, like `scale_factor` of torch; None is
      new / old.
  """
  kernel, reach = _KERNELS[kind]
  centres = (np.arange(new) + 0.5) / (ratio or new / old) - 0.5
  matrix = np.zeros((new, old))
  for offset in range(1 - reach, reach + 1):
    neighbours = np.floor(centres).astype(int) + offset
    weights = kernel(np.abs(centres - neighbours))
    np.add.at(
      matrix, (np.arange(new), np.clip(neighbours, 0, old - 1)), weights
    )
  return matrix.astype(np.float32)


def shorter_side(height: int, width: int, size: int) -> tuple[int, int]:
  """(height, width) with `size` as the shorter, as torchvision's Resize."""
  longer = math.floor(size * max(height, width) / min(height, width))
  return (size, longer) if height <= width else (longer, size)


def central(old: int, new: int) -> slice:
  """The `new` values in the middle of `old`, as torchvision's CenterCrop."""
  start = round((old - new) / 2)
  return slice(start, start + new)
