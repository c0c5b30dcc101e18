"""Compiles programs for possibly absent devices and reports their costs."""

from collections.abc import Callable, Sequence
import dataclasses
import time
from typing import Any

import jax

from lift_jax.planning import collectives as collectives_lib
from lift_jax.planning import costs, execution, hlo, roofline
from lift_jax.planning.memory import Memory, out_of_memory
from lift_jax.planning.replica_groups import MeshLayout
from lift_jax.planning.topology import Topology, axis_links, granules


@dataclasses.dataclass(frozen=True)
class Program:
  """One of the programs of a job.

  Attributes:
    name: for the report.
    mesh: that it runs on.
    lower: traces and lowers it.
    num_videos: videos per execution, over all devices.
    model_flops: matrix products of the model per execution, over all devices,
      without recomputation. None if unknown; the report then uses the FLOPs
      that are counted in the program.
    kernel_flops: FLOPs of attention if it is a custom kernel, which cannot be
      counted in the program; with recomputation.
  """

  name: str
  mesh: jax.sharding.Mesh
  lower: Callable[[], Any]
  num_videos: int
  model_flops: float | None
  kernel_flops: float


@dataclasses.dataclass(frozen=True)
class Report:
  """Costs of a program; bytes and FLOPs per device and execution.

  Attributes:
    name: of the program.
    num_videos: videos per execution, over all devices.
    compile_seconds: on this machine.
    available: bytes of memory that a program may use, or None.
    needed: bytes that it uses.
    memory: breakdown; None if the compiler rejected the program.
    model_flops: see `Program`.
    done_flops: counted in the program, plus `Program.kernel_flops`.
    kernels: number of calls by kernel, whose FLOPs were added.
    xla_flops: as counted by XLA, loops once; None if unknown.
    collectives: by kind and axes.
    estimate: of the time; None if the device is unknown or the program does
      not fit.
  """

  name: str
  num_videos: int
  compile_seconds: float
  available: float | None
  needed: float
  memory: Memory | None = None
  model_flops: float | None = None
  done_flops: float | None = None
  kernels: dict[str, int] = dataclasses.field(default_factory=dict)
  xla_flops: float | None = None
  collectives: tuple[collectives_lib.CollectiveTotals, ...] = ()
  estimate: roofline.TimeEstimate | None = None

  @property
  def fits(self) -> bool:
    return self.available is None or self.needed <= self.available


def make(program: Program, topology: Topology) -> Report:
  """Compiles a program and computes its costs.

  Raises:
    jax.errors.JaxRuntimeError: it does not compile, for another reason than
      memory.
  """
  lowered = program.lower()
  start = time.monotonic()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    amounts = out_of_memory(str(error))
    if amounts is None:
      raise
    seconds = time.monotonic() - start
    needed, available = amounts
    return Report(program.name, program.num_videos, seconds, available, needed)
  return describe(program, compiled, time.monotonic() - start, topology)


def describe(
  program: Program,
  compiled: Any,
  compile_seconds: float,
  topology: Topology,
) -> Report:
  """The costs of a compiled program, which runs on devices of `topology`."""
  mesh, chip = program.mesh, topology.chip
  memory = Memory.of(compiled)
  module = hlo.parse(compiled.as_text())
  runs = execution.count(module)
  layout = MeshLayout.of(mesh, granules(mesh, topology))
  totals = collectives_lib.sum_by_axes(
    collectives_lib.find(module, runs, layout)
  )
  kernels = costs.kernels(module, runs)
  done = costs.flops(module, runs)
  if kernels:
    done += program.kernel_flops / mesh.size
  model = done
  if program.model_flops is not None:
    model = program.model_flops / mesh.size
  counted = compiled.cost_analysis() or {}
  work = roofline.Work(
    model_flops=model,
    flops=done,
    hbm_bytes=costs.hbm_bytes(module, runs),
    ici_bytes=collectives_lib.ici_bytes_by_axes(totals),
    dcn_bytes=sum(total.dcn_bytes for total in totals),
    videos=program.num_videos / mesh.size,
  )
  return Report(
    name=program.name,
    num_videos=program.num_videos,
    compile_seconds=compile_seconds,
    available=chip.hbm_bytes,
    needed=memory.total,
    memory=memory,
    model_flops=model,
    done_flops=done,
    kernels=kernels,
    xla_flops=counted.get('flops'),
    collectives=tuple(totals),
    estimate=roofline.estimate(work, chip, axis_links(mesh, topology)),
  )


def lines(report: Report) -> list[str]:
  """The report as text, for people."""
  text = [
    f'{report.name}: {report.num_videos} videos, compiled in '
    f'{report.compile_seconds:.0f} s',
    f'  memory per device: {_memory(report)}',
  ]
  if report.memory is None or report.done_flops is None:
    return text
  parts = dataclasses.asdict(report.memory)
  text.append(
    '    ' + ', '.join(f'{name} {_size(size)}' for name, size in parts.items())
  )
  text.append(f'  FLOPs per device: {_flops(report, report.done_flops)}')
  text.append('  collectives per device:')
  for total in report.collectives:
    axes = ' x '.join(total.axes) or 'none'
    dcn = f' and {_size(total.dcn_bytes)} outside' if total.dcn_bytes else ''
    doubt = '' if total.is_certain else ', at least'
    text.append(
      f'    {total.kind:20}{axes:24}{total.count:6} times{doubt}, sends '
      f'{_size(total.ici_bytes)}{dcn}'
    )
  if not report.collectives:
    text[-1] += ' none'
  return text + _time(report)


def most_memory(reports: Sequence[Report]) -> str:
  """What a job needs that runs these programs one after the other."""
  most = max(reports, key=lambda report: report.needed)
  return f'most memory per device: {_memory(most)} ({most.name})'


def _memory(report: Report) -> str:
  needed = _size(report.needed)
  if report.available is None:
    return f'{needed}; the capacity is unknown'
  available = _size(report.available)
  if report.fits:
    return f'{needed} of {available}: it fits'
  over = _size(report.needed - report.available)
  return f'{needed} of {available}: {over} too much'


def _flops(report: Report, done: float) -> str:
  text = _count(done)
  if report.model_flops:
    ratio = done / report.model_flops
    text += f', {ratio:.2f} x the {_count(report.model_flops)} of the model'
  if report.kernels:
    named = ', '.join(f'{k} {n} times' for k, n in report.kernels.items())
    text += f'; attention added by formula ({named})'
  if report.xla_flops is not None:
    text += f'; XLA, which counts a loop once, {_count(report.xla_flops)}'
  return text


def _time(report: Report) -> list[str]:
  estimate = report.estimate
  if estimate is None:
    return ['  time: unknown for this device']
  each = ', '.join(
    f'{name} {value:.3g}' for name, value in estimate.seconds.items()
  )
  fast, slow = estimate.overlapped, estimate.in_turn
  return [
    f'  seconds of each alone: {each}; bound by {estimate.bound}',
    f'  step: {fast.seconds:.3g} s if all overlap, {slow.seconds:.3g} s if '
    'nothing does',
    f'  videos/s/chip: {fast.videos_per_second_per_chip:.3g} to '
    f'{slow.videos_per_second_per_chip:.3g}, MFU {100 * fast.mfu:.0f}% to '
    f'{100 * slow.mfu:.0f}%',
  ]


def _size(count: float) -> str:
  for unit, scale in (('GiB', 2**30), ('MiB', 2**20)):
    if abs(count) >= scale:
      return f'{count / scale:.2f} {unit}'
  return f'{count / 2**10:.1f} KiB'


def _count(flops: float) -> str:
  for unit, scale in (('T', 1e12), ('G', 1e9)):
    if flops >= scale:
      return f'{flops / scale:.2f} {unit}FLOP'
  return f'{flops / 1e6:.2f} MFLOP'
