"""How long a step takes at least, by what the chip can do at most.

Four things take time: computing, reading and writing memory (HBM), sending
within a slice or host (ICI), and sending between them (DCN). If they overlap
fully, a step takes as long as the longest; if not at all, as long as all of
them together. Both are given: a program that runs at full speed lies between.
Real ones are slower than the first, as nothing reaches its peak all the time.

Collectives within a slice or host are counted one after the other, each over
the links that its mesh axes have.
"""

from collections.abc import Mapping
import dataclasses

from lift_jax.chips import Chip


@dataclasses.dataclass(frozen=True)
class Work:
  """What one device does in one step.

  Attributes:
    model_flops: FLOPs that the arithmetic of the model needs.
    flops: FLOPs that are done, with what is computed twice to save memory.
    hbm_bytes: read and written.
    ici_bytes: sent within its slice or host, by the mesh axes along which.
    dcn_bytes: sent to other slices or hosts.
    videos: of the batch, a share of it: batch size / devices.
  """

  model_flops: float
  flops: float
  hbm_bytes: float
  ici_bytes: Mapping[tuple[str, ...], float]
  dcn_bytes: float
  videos: float


@dataclasses.dataclass(frozen=True)
class Outcome:
  """A step of some length.

  Attributes:
    seconds: of the step.
    videos_per_second_per_chip: as a chip may be several devices.
    mfu: model FLOPs over those that the chip could do meanwhile.
  """

  seconds: float
  videos_per_second_per_chip: float
  mfu: float


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What a step takes.

  Attributes:
    seconds: by 'compute', 'hbm', 'ici' and 'dcn', each alone.
    bound: the longest of them.
    overlapped: if all overlap.
    in_turn: if none do.
  """

  seconds: Mapping[str, float]
  bound: str
  overlapped: Outcome
  in_turn: Outcome


def estimate(
  work: Work, chip: Chip, axis_links: Mapping[str, int]
) -> Estimate | None:
  """The time of a step, or None for a chip of which nothing is known.

  Args:
    work: of one device.
    chip: what it is.
    axis_links: links of each mesh axis (`topology.axis_links`).
  """
  if chip.flops is None:
    return None
  seconds = {
    'compute': work.flops / chip.flops,
    'hbm': work.hbm_bytes / chip.hbm_bandwidth,
    'ici': sum(
      sent / (chip.link_bandwidth * _links(axes, chip, axis_links))
      for axes, sent in work.ici_bytes.items()
    ),
    'dcn': work.dcn_bytes / chip.dcn_bandwidth,
  }
  return Estimate(
    seconds=seconds,
    bound=max(seconds, key=seconds.get),
    overlapped=_outcome(work, chip, max(seconds.values())),
    in_turn=_outcome(work, chip, sum(seconds.values())),
  )


def _links(
  axes: tuple[str, ...], chip: Chip, axis_links: Mapping[str, int]
) -> int:
  return min(chip.links, sum(axis_links[axis] for axis in axes))


def _outcome(work: Work, chip: Chip, seconds: float) -> Outcome:
  return Outcome(
    seconds=seconds,
    videos_per_second_per_chip=work.videos * chip.devices_per_chip / seconds,
    mfu=work.model_flops / (seconds * chip.flops),
  )
