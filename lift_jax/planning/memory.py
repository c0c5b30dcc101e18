"""Whether a compiled program fits."""

import dataclasses
import re
from typing import Any, Self

_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_AMOUNT = r'([\d.]+)([KMGT]?)'
# What libtpu says of programs that it cannot place, before and after it has
# tried to order their instructions.
_REFUSALS = (
  re.compile(rf'\({_AMOUNT}\) exceeds available HBM \({_AMOUNT}\)'),
  re.compile(rf'Used {_AMOUNT} of {_AMOUNT} hbm'),
)


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of a device's main memory.

  Attributes:
    arguments: what the program is given.
    outputs: what it returns.
    aliased: of these, what takes the place of arguments (donated ones).
    temporaries: what it needs meanwhile.
    peak: most of all this at one time, as the compiler tells; 0 where it does
      not.
  """

  arguments: int
  outputs: int
  aliased: int
  temporaries: int
  peak: int

  @classmethod
  def of(cls, compiled: Any) -> Self:
    """Of `jax.jit(f).lower(...).compile()`."""
    stats = compiled.memory_analysis()
    return cls(
      arguments=stats.argument_size_in_bytes,
      outputs=stats.output_size_in_bytes,
      aliased=stats.alias_size_in_bytes,
      temporaries=stats.temp_size_in_bytes,
      peak=getattr(stats, 'peak_memory_in_bytes', 0),
    )

  @property
  def total(self) -> int:
    """What is set aside for the program, its own code left out."""
    return self.arguments + self.outputs - self.aliased + self.temporaries


def refused(message: str) -> tuple[float, float] | None:
  """(needed, available) bytes, if a TPU compiler's error is about memory.

  The compiler for TPUs refuses what does not fit; those for GPUs and CPUs do
  not look.
  """
  for pattern in _REFUSALS:
    match = pattern.search(message)
    if match:
      return (
        float(match[1]) * _UNITS[match[2]],
        float(match[3]) * _UNITS[match[4]],
      )
  return None
