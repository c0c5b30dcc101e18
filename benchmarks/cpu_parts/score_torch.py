"""The same of transformers. Its process holds JAX too, for the inputs."""

from collections.abc import Callable
import pathlib

from cpu_parts import score
from cpu_parts.rows import Results
import critic_cpu


class Torch:
  def __init__(self, folder: pathlib.Path):
    self._score = critic_cpu.TheirScoring(
      folder / 'critic', score.make_data(folder)
    )

  def __call__(self, number: int) -> Callable[[], Results]:
    return self._score
