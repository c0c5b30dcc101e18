"""What is measured.

A row has a module of this package with `write`, which makes the weights and
inputs of both sides in a folder, and `Ours`; and one with `Torch`, named
MODULE_torch, which does not import JAX, for the sake of its memory. Both sides
are made from the folder alone.
`side(number)` prepares a round, outside of the clock, and returns the function
that is timed; that returns its results.
"""

from collections.abc import Callable, Mapping
import dataclasses
import importlib
import pathlib
from typing import Any

SIDES = ('ours', 'torch')
Results = dict[str, Any]
Side = Callable[[int], Callable[[], Results]]


@dataclasses.dataclass(frozen=True)
class Row:
  """A comparison.

  Attributes:
    name: what `--only` calls it.
    title: what the table calls it.
    module: of this package.
    goal: our time as a share of torch's, at most.
    tolerances: largest difference of each result, as a share of torch's
      largest value.
    settings: arguments of `write`.
  """

  name: str
  title: str
  module: str
  goal: float
  tolerances: Mapping[str, float]
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def write(
    self, folder: pathlib.Path, tiny: bool, rounds: int
  ) -> dict[str, float]:
    """Makes what both sides read; returns figures for the table.

    Args:
      folder: to write to.
      tiny: for sizes that say nothing about speed.
      rounds: that there will be, numbered from 0.
    """
    module = importlib.import_module(f'cpu_parts.{self.module}')
    return module.write(folder, tiny, rounds, **self.settings)

  def open_side(self, side: str, folder: pathlib.Path, threads: int) -> Side:
    """One of `SIDES`, from what `write` made."""
    if side == 'ours':
      return importlib.import_module(f'cpu_parts.{self.module}').Ours(folder)
    import torch

    torch.set_num_threads(threads)
    return importlib.import_module(f'cpu_parts.{self.module}_torch').Torch(
      folder
    )


ROWS = (
  Row(
    'train',
    'training step, fp32',
    'train',
    goal=1.0,
    # Rounding alone: of a tensor of 4 million numbers the norm of torch is 1e-4
    # below that in float64; ours is 1e-7 off.
    tolerances={'loss': 1e-4, 'grad_norm': 1e-3},
    settings={'dtype': 'float32'},
  ),
  Row(
    'train-bf16',
    'training step, bf16',
    'train',
    goal=1.5,
    tolerances={'loss': 1e-2, 'grad_norm': 5e-2},
    settings={'dtype': 'bfloat16'},
  ),
  Row(
    'sample',
    'guided sampling and decoding, fp32',
    'sample',
    goal=1.0,
    # Frames are rounded to one of 256 levels here and not in torch.
    tolerances={'latents': 1e-3, 'frames': 1e-2},
  ),
  Row(
    'encode',
    'VAE encoding, fp32',
    'encode',
    goal=1.0,
    tolerances={'mean': 1e-3, 'logvar': 1e-3},
  ),
  Row(
    'score',
    'three questions of a critic, fp32',
    'score',
    goal=0.5,
    tolerances={'probabilities': 2e-4},
  ),
  Row(
    'train-critic',
    'training step of a critic, fp32',
    'train_critic',
    goal=1.0,
    tolerances={'loss': 1e-4, 'grad_norm': 1e-3},
  ),
)


def choose(only: str) -> list[Row]:
  """The rows that are named, with commas between them.

  Raises:
    ValueError: an unknown name.
  """
  by_name = {row.name: row for row in ROWS}
  names = [name.strip() for name in only.split(',')]
  for name in names:
    if name not in by_name:
      raise ValueError(f'{name!r} is none of {", ".join(by_name)}')
  return [row for row in ROWS if row.name in names]
