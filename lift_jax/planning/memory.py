"""Memory of compiled programs, and out-of-memory errors of the compiler."""

import dataclasses
import re
from typing import Any, Self

_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_AMOUNT = r'([\d.]+)([KMGT]?)'
# Errors of libtpu for programs that do not fit, before and after scheduling.
_OUT_OF_MEMORY = (
  re.compile(rf'\({_AMOUNT}\) exceeds available HBM \({_AMOUNT}\)'),
  re.compile(rf'Used {_AMOUNT} of {_AMOUNT} hbm'),
)


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of a device's main memory that a program uses.

  Attributes:
    arguments: of its arguments.
    outputs: of its results.
    aliased: the part of the outputs that reuses donated arguments.
    temporaries: of intermediate values.
    peak: maximum at one time as reported by the compiler, 0 if it reports none.
  """

  arguments: int
  outputs: int
  aliased: int
  temporaries: int
  peak: int

  @classmethod
  def of(cls, compiled: Any) -> Self:
    """Reads the analysis of `jax.jit(f).lower(...).compile()`."""
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
    """Memory that is allocated for the program, without its code."""
    return self.arguments + self.outputs - self.aliased + self.temporaries


def out_of_memory(message: str) -> tuple[float, float] | None:
  """(needed, available) bytes if an error message is about memory, else None.

  Only the compiler for TPUs rejects programs that do not fit; those for GPUs
  and CPUs do not check.
  """
  for pattern in _OUT_OF_MEMORY:
    match = pattern.search(message)
    if match:
      return (
        float(match[1]) * _UNITS[match[2]],
        float(match[3]) * _UNITS[match[4]],
      )
  return None
