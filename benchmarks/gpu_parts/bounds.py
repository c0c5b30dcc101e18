"""What `lift plan` says of a program that was compiled for this very device."""

import traceback
from typing import Any

from lift_jax import chips
from lift_jax.planning import report
from lift_jax.planning.report import Program
from lift_jax.planning.topology import Topology

# Best and worst of 'mfu' and 'seconds_per_video', or the 'reason' why they are
# not known.
Bounds = dict[str, Any]


def of(program: Program, compiled: Any) -> Bounds:
  """The bounds of a program on one device."""
  kind = program.mesh.devices.flat[0].device_kind
  chip = chips.of_kind(kind)
  if chip is None or chip.flops is None:
    return {'reason': f'peak rates of {kind} are unknown'}
  try:
    found = report.describe(program, compiled, 0.0, Topology(chip, (1, 1)))
  except Exception as error:  # of a new version's programs; the times are good
    traceback.print_exc()
    return {'reason': f'{type(error).__name__}: {error}'}
  estimate = found.estimate
  assert estimate is not None  # as the peak rates are known
  ends = (estimate.overlapped, estimate.in_turn)
  return {
    'mfu': [end.mfu for end in ends],
    'seconds_per_video': [end.seconds / program.num_videos for end in ends],
    'limited_by': estimate.bound,
  }


def in_sequence(first: Bounds, second: Bounds) -> Bounds:
  """Those of two programs that run one after the other; MFU of the first."""
  for bounds in (first, second):
    if 'reason' in bounds:
      return bounds
  both = zip(
    first['seconds_per_video'], second['seconds_per_video'], strict=True
  )
  return first | {'seconds_per_video': [sum(ends) for ends in both]}
