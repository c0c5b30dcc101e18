"""Roofline estimate of the time of a step, from the peak rates of the chip.

Four things take time: computing, reading and writing memory (HBM), sending
within a slice or host (ICI), and sending between them (DCN). If they overlap
fully, a step takes as long as the longest; without overlap, as long as all
together. Both are given: a program at peak rates is between them. Real programs
are slower than the first, as they do not sustain peak rates.

Collectives within a slice or host run one after the other, each over the links
of its mesh axes.
"""

from collections.abc import Mapping
import dataclasses

from lift_jax.chips import Chip


@dataclasses.dataclass(frozen=True)
class Work:
  """The work of one device in one step.

  Attributes:
    model_flops: FLOPs of the model, without recomputation.
    flops: FLOPs of the program, with recomputation.
    hbm_bytes: read and written.
    ici_bytes: sent within its slice or host, by mesh axes.
    dcn_bytes: sent to other slices or hosts.
    videos: batch size / number of devices.
  """

  model_flops: float
  flops: float
  hbm_bytes: float
  ici_bytes: Mapping[tuple[str, ...], float]
  dcn_bytes: float
  videos: float


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Time and throughput of a step.

  Attributes:
    seconds: of the step.
    videos_per_second_per_chip: a chip may be several devices.
    mfu: model FLOPs / (seconds x peak FLOP/s).
  """

  seconds: float
  videos_per_second_per_chip: float
  mfu: float


@dataclasses.dataclass(frozen=True)
class TimeEstimate:
  """Bounds of the time of a step.

  Attributes:
    seconds: of 'compute', 'hbm', 'ici' and 'dcn', each alone.
    bound: the longest of them.
    overlapped: with full overlap.
    in_turn: without overlap.
  """

  seconds: Mapping[str, float]
  bound: str
  overlapped: Outcome
  in_turn: Outcome


def estimate(
  work: Work, chip: Chip, axis_links: Mapping[str, int]
) -> TimeEstimate | None:
  """Estimates the time of a step; None for a chip of unknown peak rates.

  Args:
    work: of one device.
    chip: the type of device.
    axis_links: links of each mesh axis (`topology.axis_links`).
  """
  flops, hbm, dcn = chip.flops, chip.hbm_bandwidth, chip.dcn_bandwidth
  link = chip.link_bandwidth
  if flops is None or hbm is None or link is None or dcn is None:
    return None
  seconds = {
    'compute': work.flops / flops,
    'hbm': work.hbm_bytes / hbm,
    'ici': sum(
      sent / (link * _links(axes, chip, axis_links))
      for axes, sent in work.ici_bytes.items()
    ),
    'dcn': work.dcn_bytes / dcn,
  }

  def outcome(total: float) -> Outcome:
    return Outcome(
      seconds=total,
      videos_per_second_per_chip=work.videos * chip.devices_per_chip / total,
      mfu=work.model_flops / (total * flops),
    )

  return TimeEstimate(
    seconds=seconds,
    bound=max(seconds, key=lambda name: seconds[name]),
    overlapped=outcome(max(seconds.values())),
    in_turn=outcome(sum(seconds.values())),
  )


def _links(
  axes: tuple[str, ...], chip: Chip, axis_links: Mapping[str, int]
) -> int:
  return min(chip.links, sum(axis_links[axis] for axis in axes))
