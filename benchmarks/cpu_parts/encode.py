"""The autoencoder's moments of a clip, as `lift prepare` computes them.

In the folder: model/, and for each round NUMBER.npy with frames.
"""

from collections.abc import Callable
import pathlib

from cpu_parts import networks
from cpu_parts.rows import Results
import numpy as np

from lift_jax.models.generators import open_model
from lift_jax.training.encoding import ClipEncoder


def write(folder: pathlib.Path, tiny: bool, rounds: int) -> dict[str, float]:
  """Makes a model, and frames of noise."""
  networks.write(folder / 'model', tiny)
  shape = (1, 9, 48, 64, 3) if tiny else (1, 17, 128, 192, 3)
  rng = np.random.default_rng(0)
  for number in range(rounds):
    np.save(folder / f'{number}.npy', rng.integers(0, 256, shape, np.uint8))
  return {}


class Ours:
  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._encoder = ClipEncoder(
      open_model(folder / 'model'),
      batch_per_device=1,
      dtype='float32',
      keep_dtype='float32',
      tiling=False,
    )

  def __call__(self, number: int) -> Callable[[], Results]:
    frames_bthw3 = np.load(self._folder / f'{number}.npy')

    def encode() -> Results:
      mean, logvar = self._encoder.videos(frames_bthw3)
      return {'mean': mean, 'logvar': logvar}

    return encode
