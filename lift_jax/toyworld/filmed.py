"""Real clips of the toy world, as if filmed: another domain than the prompts.

At full size, real videos are not of what the prompts ask for, were captioned by
others in other words, and come from another camera. Likewise here: shapes,
colours, backgrounds and motions are not those of `scenes`, the light is uneven
and the sensor noisy. Such clips can teach smooth motion and sharp edges, but
not what a prompt asks for. A tokenizer of the toy world's words reads most of
their captions as unknown words.

Shape suffixes: T frames, H height, W width; the last axis of 2 is (y, x), of 3
RGB.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

from lift_jax.toyworld.render import Drawing, render

SHAPES = ('ring', 'bar', 'diamond')
# sRGB. Any colour differs from any background by at least 80 levels.
COLOURS = {
  'orange': (245, 130, 30),
  'brown': (110, 62, 30),
  'navy': (16, 26, 120),
  'teal': (0, 120, 115),
  'lime': (165, 230, 50),
}
BACKGROUNDS = {
  'beige': (225, 205, 165),
  'lavender': (190, 180, 225),
  'mint': (180, 225, 200),
  'slate': (80, 95, 115),
}

# Nuisance parameters: ranges of uniform distributions.
_RADIUS = (3.4 / 32, 5.6 / 32)
_RELIEF = (10.0, 22.0)  # of a texture, in levels
_PERIOD = (5.0 / 32, 11.0 / 32)  # of a texture
_GAIN = (0.75, 1.05)
_VIGNETTE = (0.0, 0.3)  # share of light that is missing in the corners
_NOISE = (2.0, 5.0)  # of the sensor, standard deviation in levels of 255


def _circle(time_t: np.ndarray) -> np.ndarray:
  angle_t = 1.5 * np.pi * time_t
  return 0.08 * np.stack((np.sin(angle_t), np.cos(angle_t)), 1)


def _swing(time_t: np.ndarray) -> np.ndarray:
  along_t = -0.12 * np.cos(2 * np.pi * time_t)
  return np.stack((np.zeros_like(along_t), along_t), 1)


def _arc(time_t: np.ndarray) -> np.ndarray:
  along_t = 2 * time_t - 1
  return np.stack((0.12 * along_t**2, 0.16 * along_t), 1)


# Captions' words for paths, which map times from 0 to 1 [T] to offsets [T, 2]
# in sides. Steps are about as long as those of the toy world.
_MOTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  'goes round and round': _circle,
  'swings to and fro': _swing,
  'flies in an arc': _arc,
}


def _stripes(y_hw: np.ndarray, x_hw: np.ndarray) -> np.ndarray:
  return np.sin(np.pi * (y_hw + x_hw))


def _checks(y_hw: np.ndarray, x_hw: np.ndarray) -> np.ndarray:
  return np.sin(np.pi * y_hw) * np.sin(np.pi * x_hw)


# Captions' words for textures, from -1 to 1; coordinates are in half periods.
_TEXTURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  'stripes': _stripes,
  'checks': _checks,
}


@dataclasses.dataclass(frozen=True)
class FilmedClip:
  """A clip of another domain.

  Attributes:
    caption: not in the grammar of the toy world.
    frames_thw3: uint8 [T, H, W, 3].
  """

  caption: str
  frames_thw3: np.ndarray


def draw_clip(
  rng: np.random.Generator,
  num_frames: int = 9,
  height: int = 32,
  width: int = 32,
) -> FilmedClip:
  """A random clip.

  Args:
    rng: equal states give equal pixels.
    num_frames: 2 or more.
    height: in pixels.
    width: in pixels.
  """
  colour, background, shape, motion, texture = (
    str(rng.choice(list(words)))
    for words in (COLOURS, BACKGROUNDS, SHAPES, _MOTIONS, _TEXTURES)
  )
  side = min(height, width)
  path_t2 = _MOTIONS[motion](np.linspace(0, 1, num_frames))
  path_t2 = side * (path_t2 - path_t2.mean(0)) @ _turn(rng)
  y_hw, x_hw = np.indices((height, width)) / (side * rng.uniform(*_PERIOD) / 2)
  relief_hw = rng.uniform(*_RELIEF) * _TEXTURES[texture](y_hw, x_hw)
  drawing = Drawing(
    shape=shape,
    centres_t2=(height / 2, width / 2) + path_t2,
    radius=side * rng.uniform(*_RADIUS),
    colour=np.array(COLOURS[colour]),
    background=np.array(BACKGROUNDS[background]) + relief_hw[..., None],
  )
  frames_thw3 = _film(render(drawing, height, width, rng), rng)
  article = 'An' if colour[0] in 'aeiou' else 'A'
  caption = (
    f'{article} {colour} {shape} {motion} in front of {background} {texture}.'
  )
  return FilmedClip(caption, frames_thw3)


def _turn(rng: np.random.Generator) -> np.ndarray:
  """A random rotation or reflection [2, 2]."""
  angle, flip = rng.uniform(0, 2 * np.pi), rng.choice((-1, 1))
  sin, cos = np.sin(angle), np.cos(angle)
  return np.array(((cos, -sin), (flip * sin, flip * cos)))


def _film(frames_thw3: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The frames through a camera with a vignette and a noisy sensor."""
  height, width = frames_thw3.shape[1:3]
  y_h1 = np.linspace(-1, 1, height)[:, None]
  x_1w = np.linspace(-1, 1, width)
  shade_hw = 1 - rng.uniform(*_VIGNETTE) * (y_h1**2 + x_1w**2) / 2
  light_hw1 = rng.uniform(*_GAIN) * shade_hw[..., None]
  noise_thw3 = rng.normal(0, rng.uniform(*_NOISE), frames_thw3.shape)
  filmed_thw3 = light_hw1 * frames_thw3 + noise_thw3
  return np.clip(np.rint(filmed_thw3), 0, 255).astype(np.uint8)
