"""Pictures of a clip: how they are shown, their size and their colours.

libavfilter's `scale` scales and converts to RGB in one step, with the matrix
and the range of colours that the clip states; where it states none, those are
ITU-R BT.601 and limited. With the bilinear filter this is, bit for bit, what
decord returns, which the reference decodes with.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

from collections.abc import Sequence
import dataclasses
import fractions
import math
import struct

import av
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorPrimaries, ColorTrc
import numpy as np


class PictureError(ValueError):
  """A picture that cannot be shown; the message says what it is or has."""


@dataclasses.dataclass(frozen=True)
class Resize:
  """How a picture gets another size.

  Attributes:
    crops: whether it is scaled by one factor until it covers the target, of
      which the centre is kept; else height and width are scaled independently,
      which distorts.
    filter: name of the filter in libavfilter. All widen with the reduction,
      which avoids aliasing.
  """

  crops: bool
  filter: str


# 'stretch' is what the reference does.
RESIZES = {
  'crop': Resize(crops=True, filter='bicubic'),
  'crop_bilinear': Resize(crops=True, filter='bilinear'),
  'stretch': Resize(crops=False, filter='bilinear'),
  'stretch_bicubic': Resize(crops=False, filter='bicubic'),
}


@dataclasses.dataclass(frozen=True)
class Geometry:
  """How the stored picture is shown: its pixels widened, then turned.

  Attributes:
    pixel_aspect: width of a stored pixel divided by its height.
    is_transposed: whether rows become columns.
    flips_y: whether the result is then turned upside down.
    flips_x: whether it is then mirrored.
  """

  pixel_aspect: fractions.Fraction = fractions.Fraction(1)
  is_transposed: bool = False
  flips_y: bool = False
  flips_x: bool = False

  def shown_size(
    self, height: int, width: int
  ) -> tuple[fractions.Fraction, fractions.Fraction]:
    """Exact (height, width) as shown of a stored picture, in pixels."""
    size = fractions.Fraction(height), width * self.pixel_aspect
    return size[::-1] if self.is_transposed else size

  def shown_pixels(self, height: int, width: int) -> tuple[int, int]:
    """The same in whole pixels."""
    shown_height, shown_width = self.shown_size(height, width)
    return max(1, _round(shown_height)), max(1, _round(shown_width))

  def upright(self, image_hw3: np.ndarray) -> np.ndarray:
    """A view of a picture as it is shown."""
    if self.is_transposed:
      image_hw3 = image_hw3.swapaxes(0, 1)
    return image_hw3[:: -1 if self.flips_y else 1, :: -1 if self.flips_x else 1]


def read_geometry(
  frame: av.VideoFrame, pixel_aspect: fractions.Fraction | None
) -> Geometry:
  """The geometry of a decoded frame.

  Args:
    frame: with the display matrix of its file, if there is one.
    pixel_aspect: what the file states, None or 0 if nothing.

  Raises:
    PictureError: it is turned by an angle that is no multiple of 90 degrees.
  """
  matrix = (1, 0, 0, 1)
  # pyrefly: ignore[no-matching-overload]  # the stubs know one key only
  data = frame.side_data.get(Type.DISPLAYMATRIX)
  if data is not None:
    # Rows (a, b, u), (c, d, v), (x, y, w) of 32-bit numbers: what is stored at
    # column p and row q is shown at column a p + c q and row b p + d q.
    a, b, _, c, d, *_ = struct.unpack('=9i', bytes(data))
    matrix = (a, b, c, d)
  match tuple(bool(number) for number in matrix):
    case (True, False, False, True):
      is_transposed, (x_sign, _, _, y_sign) = False, matrix
    case (False, True, True, False):
      is_transposed, (_, y_sign, x_sign, _) = True, matrix
    case _:
      raise PictureError('is turned by an angle that is no multiple of 90°')
  return Geometry(
    pixel_aspect or fractions.Fraction(1), is_transposed, y_sign < 0, x_sign < 0
  )


class Fitter:
  """Turns decoded frames into RGB pictures of one size.

  Args:
    geometry: of the frames.
    policy: a name of `RESIZES`.
    size: (height, width) of the results; None for the size as shown.
  """

  def __init__(
    self, geometry: Geometry, policy: str, size: tuple[int, int] | None = None
  ):
    self._geometry, self._size = geometry, size
    self._resize = RESIZES[policy]
    self._scalers = {}

  def __call__(self, frame: av.VideoFrame) -> np.ndarray:
    """The picture [H, W, 3], uint8.

    Raises:
      PictureError: its colours cannot be converted.
    """
    shown = self._geometry.shown_size(frame.height, frame.width)
    height, width = self._size or self._geometry.shown_pixels(
      frame.height, frame.width
    )
    scaled = [height, width]
    if self._resize.crops and self._size:
      # One side is exact; the other is rounded half up.
      if height * shown[1] >= width * shown[0]:
        scaled[1] = _round(shown[1] * height / shown[0])
      else:
        scaled[0] = _round(shown[0] * width / shown[1])
    stored = scaled[::-1] if self._geometry.is_transposed else scaled
    image_hw3 = self._geometry.upright(self._scale(frame, *stored))
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
    # A copy, so that the cropped part is not kept in memory.
    return image_hw3[top : top + height, left : left + width].copy()

  def _scale(self, frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    key = frame.height, frame.width, frame.format.name, height, width
    if key not in self._scalers:
      self._scalers[key] = _scaler(frame, height, width, self._resize.filter)
    graph = self._scalers[key]
    # Only matrix and range matter; of the others libavfilter rejects some.
    frame.color_trc = ColorTrc.UNSPECIFIED
    frame.color_primaries = ColorPrimaries.UNSPECIFIED
    try:
      graph.push(frame)
      return graph.pull().to_ndarray()
    except OSError as error:
      raise PictureError(
        f'has colours (matrix {frame.colorspace}, {frame.format.name}) that '
        f'cannot be converted ({error.strerror})'
      ) from None


def _scaler(
  frame: av.VideoFrame, height: int, width: int, filter: str
) -> av.filter.Graph:
  """Scales frames like `frame` to RGB of another size."""
  # More than 8 bits are converted with fewer roundings.
  is_deep = max(component.bits for component in frame.format.components) > 8
  flags = f'{filter}+full_chroma_int' if is_deep else filter
  graph = av.filter.Graph()
  graph.threads = 1  # clips are read in parallel already
  graph.link_nodes(
    graph.add_buffer(
      width=frame.width,
      height=frame.height,
      format=frame.format,
      time_base=fractions.Fraction(1, 1000),  # of no use here
    ),
    graph.add('scale', f'{width}:{height}:flags={flags}'),
    graph.add('format', 'rgb24'),
    graph.add('buffersink'),
  ).configure()
  return graph


def _round(number: fractions.Fraction) -> int:
  """The nearest integer, halves up."""
  return math.floor(number + fractions.Fraction(1, 2))


def resize(
  frames_thw3: np.ndarray, height: int, width: int, policy: str
) -> np.ndarray:
  """Frames at another size.

  Args:
    frames_thw3: uint8 [T, H, W, 3].
    height: of the result, in pixels.
    width: of the result, in pixels.
    policy: a name of `RESIZES`.

  Returns:
    uint8 [T, height, width, 3].
  """
  fit = Fitter(Geometry(), policy, (height, width))
  return np.stack(
    [
      fit(av.VideoFrame.from_ndarray(np.ascontiguousarray(image_hw3), 'rgb24'))
      for image_hw3 in frames_thw3
    ]
  )


def nearest_size(
  height: float, width: float, sizes: Sequence[tuple[int, int]]
) -> tuple[int, int]:
  """The (height, width) of `sizes` nearest in aspect ratio, on a log scale.

  Of equally near ones the first wins.
  """
  aspect = math.log(height / width)
  return min(sizes, key=lambda size: abs(math.log(size[0] / size[1]) - aspect))
