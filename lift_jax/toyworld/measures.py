"""Measures what a clip of the toy world shows, and how strong its flaws are.

The background is the median of the border; the shape is what differs from it. A
template bank of shapes of all sizes, sharp and blurred, identifies the shape by
correlation, and the offset of the best match locates it in each frame to a
fraction of a pixel. The caption is not used, and nothing is judged.

Shape suffixes: T frames, S steps between them, H height, W width, P pixels, K
entries of the bank; the last axis of 2 is (y, x), of 3 RGB.
"""

from collections.abc import Mapping
import dataclasses
import functools
import itertools
from typing import NamedTuple

import numpy as np

from lift_jax.toyworld import flaws, paths, scenes
from lift_jax.toyworld.flaws import Flaw
from lift_jax.toyworld.render import blurred, coverage
from lift_jax.toyworld.scenes import Scene

MIN_FRAMES = 5  # fewer have no middle part in which to detect a halt or a jump

# Deformations up to this, in the unit of `flaws.STRENGTHS`, are measurement
# error, which is about 0.03 in clean clips.
DEFORMED = 0.09

# Below these a clip shows no recognisable shape.
_MIN_CONTRAST = 45.0  # levels; the palest shape has 110
_MIN_CORRELATION = 0.72  # with the best template
# Largest distance to a colour of the palette, in levels; half of the distance
# of 85 between these.
_COLOUR_TOLERANCE = 42.0
# x264 stores colours at half resolution, which washes out small or thin shapes.
# Twice the distance is accepted if all other colours are much further away.
_WASHED_TOLERANCE = 90.0
_WASHED_RATIO = 0.6
# A shape with less than half of its contrast in a frame has vanished there.
_MIN_STRENGTH = 0.5
# Range of the brightness, a bit wider than in `flaws`.
_LIGHT = (0.9, 1.05)
# A pixel with a lower share of the shape is considered noise.
_MIN_ALPHA = 0.3
# Frames without a shape that differ by less, root mean square of levels, are
# equal. Noise of 2 levels on stills makes 2.9; the smallest, palest shape at
# half of the usual speed makes 4.2, and 3.1 after x264.
_MIN_CHANGE = 3.0


@dataclasses.dataclass(frozen=True)
class Measured:
  """Measures of a clip.

  Attributes:
    shown: attributes of the scene; None if no word fits.
    fidelity: strength of each flaw, in the units of `flaws.STRENGTHS`, and
      'vanishing', a share of the frames; empty if there is no shape.
    motion: likewise.
    is_static: whether nothing moves from the first frame to the last.
    path_t2: [T, 2], positions of the shape in shorter sides; NaN in frames from
      which it has vanished. None if there is no shape.
  """

  shown: Mapping[str, str | None]
  fidelity: dict[str, float]
  motion: dict[str, float]
  is_static: bool
  path_t2: np.ndarray | None = None


def truth_of(
  shown: Scene, fidelity: Flaw | None, motion: Flaw | None
) -> Measured:
  """What `measure` would find in a clip with these flaws, were it exact."""
  fidelity_measures = dict.fromkeys(flaws.FIDELITY_KINDS, 0.0)
  motion_measures = dict.fromkeys(flaws.MOTION_KINDS, 0.0)
  if fidelity is not None:
    fidelity_measures[fidelity.kind] = fidelity.strength
  if motion is not None:
    motion_measures[motion.kind] = motion.strength
  return Measured(
    dataclasses.asdict(shown),
    fidelity_measures,
    motion_measures,
    is_static=False,
  )


def measure(frames_thw3: np.ndarray) -> Measured:
  """Measures a clip, uint8 [T, H, W, 3]."""
  if frames_thw3.ndim != 4 or len(frames_thw3) < MIN_FRAMES:
    raise ValueError(
      f'frames {frames_thw3.shape}; give [T >= {MIN_FRAMES}, H, W, 3]'
    )
  frames_thw3 = frames_thw3.astype(np.float64)
  side = min(frames_thw3.shape[1:3])
  background_3 = _background(frames_thw3)
  shown = dict.fromkeys(scenes.ATTRIBUTES)
  shown['background'] = _nearest_background(background_3)
  is_static = _change(frames_thw3) < _MIN_CHANGE
  nothing = Measured(shown, {}, {}, is_static)
  difference_thw3 = frames_thw3 - background_3
  colour_3 = _shape_colour(difference_thw3)
  if colour_3 is None:
    return nothing
  shown['colour'], full_3 = _nearest_colour(colour_3, background_3)
  alpha_thw = difference_thw3 @ full_3 / (full_3 @ full_3)
  found = _find_shape(alpha_thw)
  if found is None:
    return nothing
  shown['shape'] = found.shape
  middle = np.sqrt(scenes.SIZES['small'] * scenes.SIZES['large'])
  shown['size'] = 'small' if found.radius < middle * side else 'large'
  path_t2 = found.centres_t2 / side
  motion, step_2 = paths.measure_motion(path_t2)
  shown['motion'] = paths.direction(step_2)
  is_visible_t = _is_visible(found)
  fidelity = _measure_fidelity(difference_thw3, alpha_thw, found, is_visible_t)
  return Measured(
    shown,
    fidelity,
    motion,
    is_static=paths.is_stationary(path_t2),
    path_t2=np.where(is_visible_t[:, None], path_t2, np.nan),
  )


def _change(frames_thw3: np.ndarray) -> float:
  """The largest root-mean-square difference between consecutive frames."""
  changes_s = np.mean(np.diff(frames_thw3, axis=0) ** 2, axis=(1, 2, 3))
  return float(np.sqrt(changes_s.max()))


def _background(frames_thw3: np.ndarray) -> np.ndarray:
  """[3], the median of the border, which a shape hardly covers."""
  width = max(1, min(frames_thw3.shape[1:3]) // 12)
  inner = np.ones(frames_thw3.shape[1:3], bool)
  inner[width:-width, width:-width] = False
  return np.median(frames_thw3[:, inner].reshape(-1, 3), axis=0)


def _nearest_background(background_3: np.ndarray) -> str | None:
  distances = {
    name: np.linalg.norm(background_3 - colour)
    for name, colour in scenes.BACKGROUNDS.items()
  }
  best = min(distances, key=lambda name: distances[name])
  return best if distances[best] <= _COLOUR_TOLERANCE else None


def _shape_colour(difference_thw3: np.ndarray) -> np.ndarray | None:
  """[3], the difference of the shape's middle from the background."""
  difference_3thw = np.moveaxis(difference_thw3, -1, 0)
  smooth_3thw = blurred(difference_3thw, _unit(difference_thw3[..., 0]))
  contrast_thw = np.linalg.norm(smooth_3thw, axis=0)
  # The smallest shape covers 4 % of the image; half of it is its middle.
  threshold = np.quantile(contrast_thw, 0.98)
  if threshold < _MIN_CONTRAST / 2:
    return None
  colour_3 = np.median(difference_thw3[contrast_thw >= threshold], axis=0)
  return colour_3 if np.linalg.norm(colour_3) >= _MIN_CONTRAST else None


def _unit(frames: np.ndarray) -> float:
  """The size of a pixel of a 32 x 32 image in pixels of these frames."""
  return min(frames.shape[1:3]) / 32


def _nearest_colour(
  colour_3: np.ndarray, background_3: np.ndarray
) -> tuple[str | None, np.ndarray]:
  """The name of a colour, and its full difference from the background [3].

  Blur mixes a small shape with its background, so that its colour may be
  anywhere on the line between the two.
  """
  distances, full_3s = {}, {}
  for name, rgb in scenes.COLOURS.items():
    full_3 = full_3s[name] = np.array(rgb) - background_3
    share = np.clip(colour_3 @ full_3 / (full_3 @ full_3), 0.4, 1.0)
    distances[name] = np.linalg.norm(colour_3 - share * full_3) / share
  first, second, *_ = sorted(distances, key=lambda name: distances[name])
  is_clear = distances[first] < _WASHED_RATIO * distances[second]
  tolerance = _WASHED_TOLERANCE if is_clear else _COLOUR_TOLERANCE
  if distances[first] > tolerance:
    return None, colour_3
  return first, full_3s[first]


class _Found(NamedTuple):
  """The shape in a clip.

  Attributes:
    shape: one of `scenes.SHAPES`.
    radius: in pixels.
    blur: standard deviation in pixels.
    correlation: with the best template.
    deformation: mean over frames of the log of the stretch.
    centres_t2: [T, 2], centre of mass in pixels.
    centred_thw: [T, H, W], frames with the shape in the middle.
    mean_hw: [H, W], their mean.
    model_hw: [H, W], the template that fits it best.
    whole_hw: [H, W], the same without its hole, if it has one.
  """

  shape: str
  radius: float
  blur: float
  correlation: float
  deformation: float
  centres_t2: np.ndarray
  centred_thw: np.ndarray
  mean_hw: np.ndarray
  model_hw: np.ndarray
  whole_hw: np.ndarray


class _Bank(NamedTuple):
  """Templates: shapes in the middle of an image, with a large hole or none.

  Attributes:
    shapes: K of `scenes.SHAPES`.
    radii: K, in pixels.
    blurs: K, in pixels.
    images_khw: [K, H, W].
    whole_khw: [K, H, W], the same without holes.
    unit_kp: float32 [K, P], the pixels of the window, scaled to norm 1.
  """

  shapes: list[str]
  radii: list[float]
  blurs: list[float]
  images_khw: np.ndarray
  whole_khw: np.ndarray
  unit_kp: np.ndarray


@functools.lru_cache(maxsize=4)
def _bank(height: int, width: int) -> _Bank:
  unit = min(height, width) / 32
  shapes, radii, blurs, images, wholes = [], [], [], [], []
  middle_12 = np.array([[height / 2, width / 2]])
  holes = (0.0, flaws.STRENGTHS['hole']['Bad'])
  for shape, radius, hole in itertools.product(
    scenes.SHAPES, np.arange(2.6, 7.01, 0.2) * unit, holes
  ):
    whole_hw, hole_hw = (
      coverage(outline, middle_12, size, height, width)[0]
      for outline, size in ((shape, radius), ('circle', radius * hole**0.5))
    )
    image_hw = whole_hw * (1 - hole_hw) if hole else whole_hw
    for blur in np.arange(0.0, 1.01 if hole else 3.01, 0.25) * unit:
      shapes.append(shape)
      radii.append(float(radius))
      blurs.append(float(blur))
      images.append(blurred(image_hw, blur))
      wholes.append(blurred(whole_hw, blur))
  images_khw = np.stack(images)
  images_kp = images_khw[:, _window(height, width) > 0]
  norms_k1 = np.linalg.norm(images_kp, axis=1, keepdims=True)
  unit_kp = (images_kp / norms_k1).astype(np.float32)
  return _Bank(shapes, radii, blurs, images_khw, np.stack(wholes), unit_kp)


def _find_shape(alpha_thw: np.ndarray) -> _Found | None:
  """The shape and its position in each frame; None if none is recognised."""
  _, height, width = alpha_thw.shape
  # Starts from a disc of medium size, and iterates with the best template.
  disc_hw = coverage(
    'circle',
    np.array([[height / 2, width / 2]]),
    4.5 * _unit(alpha_thw),
    height,
    width,
  )[0]
  template_hw = disc_hw
  for _ in range(3):
    centres_t2 = _locate(alpha_thw, template_hw)
    found = _best_of_bank(_centred(alpha_thw, centres_t2), centres_t2)
    if found is None:
      return None
    template_hw = found.model_hw
  if found.deformation > DEFORMED:
    # No template fits a deformed shape. But stretching preserves the centre of
    # mass, and can be undone.
    centres_t2 = centres_t2 + _moments(found.centred_thw)[0]
    centred_thw = _centred(alpha_thw, centres_t2)
    undone = _best_of_bank(_unstretched(centred_thw), centres_t2)
    if undone is None:
      return None
    found = undone._replace(deformation=_deformation(centred_thw))
  return found if found.correlation >= _MIN_CORRELATION else None


def _best_of_bank(
  centred_thw: np.ndarray, centres_t2: np.ndarray
) -> _Found | None:
  """The template that best matches the mean of frames with a centred shape.

  None if the middle of the frames is empty.
  """
  _, height, width = centred_thw.shape
  bank = _bank(height, width)
  mean_hw = centred_thw.mean(0) * _window(height, width)
  norm = np.linalg.norm(mean_hw)
  if not norm > 0:
    return None
  pixels_p = mean_hw[_window(height, width) > 0] / norm
  # Not `@`, which would start BLAS threads for a small product: many times
  # slower while other work occupies the cores.
  correlation_k = np.einsum(
    'kp,p->k', bank.unit_kp, pixels_p.astype(np.float32)
  )
  best = int(np.argmax(correlation_k))
  return _Found(
    shape=bank.shapes[best],
    radius=bank.radii[best],
    blur=bank.blurs[best],
    correlation=float(correlation_k[best]),
    deformation=_deformation(centred_thw),
    centres_t2=centres_t2,
    centred_thw=centred_thw,
    mean_hw=mean_hw,
    model_hw=bank.images_khw[best],
    whole_hw=bank.whole_khw[best],
  )


@functools.lru_cache(maxsize=4)
def _window(height: int, width: int) -> np.ndarray:
  """[H, W], 1 where a centred shape may be, 0 elsewhere."""
  reach = 10.5 * min(height, width) / 32
  return coverage(
    'circle', np.array([[height / 2, width / 2]]), reach, height, width
  )[0]


def _locate(alpha_thw: np.ndarray, template_hw: np.ndarray) -> np.ndarray:
  """[T, 2], the position at which a template fits each frame best."""
  num_frames, height, width = alpha_thw.shape
  # Padded to twice the size, so that the correlation does not wrap around.
  size = (2 * height, 2 * width)
  spectrum_thw = np.fft.rfft2(alpha_thw, size)
  spectrum_hw = np.fft.rfft2(template_hw, size)
  fit_thw = np.fft.irfft2(spectrum_thw * spectrum_hw.conj(), size)
  fit_thw = np.fft.fftshift(fit_thw, axes=(1, 2))
  top, left = height // 2, width // 2
  fit_thw = fit_thw[:, top : top + height + 1, left : left + width + 1]
  centres_t2 = np.empty((num_frames, 2))
  for index, fit_hw in enumerate(fit_thw):
    inner_hw = fit_hw[1:-1, 1:-1]
    y, x = np.unravel_index(np.argmax(inner_hw), inner_hw.shape)
    centres_t2[index] = (
      y + 1 + _peak(fit_hw[y : y + 3, x + 1]),
      x + 1 + _peak(fit_hw[y + 1, x : x + 3]),
    )
  return centres_t2


def _peak(values_3: np.ndarray) -> float:
  """The peak of a parabola through three values, relative to the middle one."""
  before, here, after = values_3
  curvature = before - 2 * here + after
  if not curvature:
    return 0.0
  return float(np.clip((before - after) / (2 * curvature), -0.5, 0.5))


def _centred(alpha_thw: np.ndarray, centres_t2: np.ndarray) -> np.ndarray:
  """Frames [T, H, W], shifted so that the shape is in the middle."""
  _, height, width = alpha_thw.shape
  shift_t2 = (height / 2, width / 2) - centres_t2
  y_th1 = np.fft.fftfreq(height)[:, None] * shift_t2[:, 0, None, None]
  x_t1w = np.fft.rfftfreq(width)[None, :] * shift_t2[:, 1, None, None]
  spectrum = np.fft.rfft2(alpha_thw) * np.exp(-2j * np.pi * (y_th1 + x_t1w))
  return np.fft.irfft2(spectrum, (height, width))


def _is_visible(found: _Found) -> np.ndarray:
  """[T], whether the shape is visible in a frame."""
  model_hw = found.model_hw
  strength_t = np.einsum('thw,hw->t', found.centred_thw, model_hw)
  return strength_t / np.sum(model_hw**2) >= _MIN_STRENGTH


def _measure_fidelity(
  difference_thw3: np.ndarray,
  alpha_thw: np.ndarray,
  found: _Found,
  is_visible_t: np.ndarray,
) -> dict[str, float]:
  """The strength of each flaw of the image, in units of `flaws.STRENGTHS`."""
  _, height, width = alpha_thw.shape
  unit = _unit(alpha_thw)
  # Noise is measured away from the shape, even if it is deformed or blurred.
  near_thw = coverage('circle', found.centres_t2, 10 * unit, height, width) > 0
  noise = np.sqrt(np.mean(difference_thw3[~near_thw] ** 2))
  # A hole is what is missing inside the outline, relative to a full shape.
  sharp_hw = coverage(
    found.shape,
    np.array([[height / 2, width / 2]]),
    found.radius,
    height,
    width,
  )[0]
  area = np.pi * found.radius**2
  # The brightness is unknown by some percent, so the brightest parts count as
  # full.
  inside = found.model_hw > 0.8 * found.model_hw.max()
  whole = np.quantile(found.mean_hw[inside] / found.model_hw[inside], 0.8)
  whole_hw = np.clip(whole, *_LIGHT) * found.whole_hw
  missing_hw = np.clip(whole_hw - found.mean_hw, 0, 1) * sharp_hw
  return {
    'noise': float(noise),
    'vanishing': float(np.mean(~is_visible_t)),
    'deformation': found.deformation,
    'hole': float(missing_hw.sum() / area),
    'blur': float(found.blur / min(height, width)),
  }


def _moments(centred_thw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Offset of the centre of mass [T, 2], and second moments [T, 2, 2]."""
  _, height, width = centred_thw.shape
  y_h1 = (np.arange(height) + 0.5 - height / 2)[:, None]
  x_1w = (np.arange(width) + 0.5 - width / 2)[None, :]
  weight_thw = np.clip(centred_thw, 0, 1) * _window(height, width)
  weight_thw = np.where(weight_thw > _MIN_ALPHA, weight_thw, 0)
  # A frame without any shape is treated as a round dot in the middle.
  weight_thw = weight_thw / np.maximum(weight_thw.sum((1, 2)), 1)[:, None, None]
  offset_2hw = np.stack(np.broadcast_arrays(y_h1, x_1w))
  centre_t2 = np.einsum('thw,ihw->ti', weight_thw, offset_2hw)
  moment_t22 = np.einsum(
    'thw,ihw,jhw->tij', weight_thw, offset_2hw, offset_2hw, optimize=True
  )
  moment_t22 -= centre_t2[:, :, None] * centre_t2[:, None, :]
  return centre_t2, moment_t22 + 1e-6 * np.eye(2)


def _deformation(centred_thw: np.ndarray) -> float:
  """Mean over frames of the log of the stretch.

  The second moments of all undeformed shapes are equal along all axes.
  Stretched by e^s along one axis and e^-s along the other, they have the ratio
  e^4s.
  """
  values_t2 = np.linalg.eigvalsh(_moments(centred_thw)[1])
  return float(np.mean(np.log(values_t2[:, 1] / values_t2[:, 0])) / 4)


def _unstretched(centred_thw: np.ndarray) -> np.ndarray:
  """Frames [T, H, W] with the shape's deformation undone."""
  num_frames, height, width = centred_thw.shape
  values_t2, axes_t22 = np.linalg.eigh(_moments(centred_thw)[1])
  scale_t2 = np.sqrt(values_t2 / np.sqrt(values_t2.prod(1, keepdims=True)))
  stretch_t22 = (axes_t22 * scale_t2[:, None, :]) @ axes_t22.swapaxes(1, 2)
  middle_2 = np.array((height, width)) / 2
  offset_hw2 = np.stack([*np.indices((height, width))], -1) + 0.5 - middle_2
  index_thw2 = np.einsum('tij,hwj->thwi', stretch_t22, offset_hw2)
  index_thw2 = np.clip(
    index_thw2 + middle_2 - 0.5, 0, (height - 1.001, width - 1.001)
  )
  # Bilinear interpolation.
  corner_thw2 = index_thw2.astype(int)
  part_thw2 = index_thw2 - corner_thw2
  frame_t11 = np.arange(num_frames)[:, None, None]
  result_thw = np.zeros_like(centred_thw)
  for down in (0, 1):
    for right in (0, 1):
      weight_thw2 = np.where((down, right), part_thw2, 1 - part_thw2)
      y_thw, x_thw = np.moveaxis(corner_thw2 + (down, right), -1, 0)
      result_thw += weight_thw2.prod(-1) * centred_thw[frame_t11, y_thw, x_thw]
  return result_thw
