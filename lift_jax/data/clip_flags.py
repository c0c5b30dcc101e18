"""Flags of clips that are not what most are, and what a job does with them.

A flag is one of `NAMES`, possibly with a detail: 'undecodable frames: 3'.
"""

import collections
from collections.abc import Iterable, Sequence
import dataclasses

from lift_jax.errors import UserError

VARIABLE_RATE = 'variable frame rate'
INTERLACED = 'interlaced'
HDR = 'HDR'
UNDECODABLE = 'undecodable frames'
NAMES = (VARIABLE_RATE, INTERLACED, HDR, UNDECODABLE)


def name_of(flag: str) -> str:
  """The flag without its detail."""
  return flag.partition(':')[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipRules:
  """Which unusual clips a job uses; a base of sections of configs.

  Attributes:
    skip_flagged: names of flags; clips that have one are left out, whatever
      happens to bad records. Others are used, counted and listed.
    max_undecodable: largest share of frames at the start of a clip that may
      not be decodable, as they refer to frames that were cut off. Such a clip
      begins with its first decodable frame; beyond that it is damaged.
  """

  skip_flagged: tuple[str, ...] = ()
  max_undecodable: float = 0.2

  def __post_init__(self):
    for name in self.skip_flagged:
      if name not in NAMES:
        raise UserError(
          f'skip_flagged lists {name!r}, which is no flag of a clip; choose '
          f'among {list(NAMES)}'
        )
    # In this form it rejects NaN too.
    if not 0 <= self.max_undecodable <= 1:
      raise UserError(
        f'max_undecodable is {self.max_undecodable:g}; give a share of frames '
        'from 0 to 1'
      )

  def why_skipped(self, flags: Iterable[str]) -> str:
    """Why a clip with these flags is left out; '' if it is used."""
    found = [flag for flag in flags if name_of(flag) in self.skip_flagged]
    return f'flagged {", ".join(found)}; see skip_flagged' if found else ''


def count(flags: Iterable[Sequence[str]]) -> str:
  """'3 interlaced, 2 HDR': how many clips have each flag; '' if none has any.

  Args:
    flags: of each clip.
  """
  names = collections.Counter(
    name for of_clip in flags for name in {name_of(flag) for flag in of_clip}
  )
  numbers = sorted(names.items(), key=lambda item: (-item[1], item[0]))
  return ', '.join(f'{number} {name}' for name, number in numbers)
