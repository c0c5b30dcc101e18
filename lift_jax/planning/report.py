"""A program, compiled for devices that need not be there, and what it costs."""

from collections.abc import Callable
import dataclasses
import time
from typing import Any

import jax

from lift_jax.planning import collectives as collectives_lib
from lift_jax.planning import costs, execution, hlo, roofline
from lift_jax.planning.memory import Memory, refused
from lift_jax.planning.replica_groups import Layout
from lift_jax.planning.topology import Topology, axis_links, granules


@dataclasses.dataclass(frozen=True)
class Program:
  """One of the programs of a job.

  Attributes:
    name: of it.
    mesh: that it runs on.
    lower: traces it.
    num_videos: that one execution works on, all devices together.
    model_flops: of one execution, all devices together: the matrix products
      of the model, nothing counted twice. None where they are not written
      down, and what the program does is all that is known.
    kernel_flops: of these, what attention does where it is a kernel whose
      work cannot be read from the program, with what is done again.
  """

  name: str
  mesh: jax.sharding.Mesh
  lower: Callable[[], Any]
  num_videos: int
  model_flops: float | None
  kernel_flops: float


@dataclasses.dataclass(frozen=True)
class Report:
  """What a program costs; bytes and FLOPs are of one device and execution.

  Attributes:
    name: of the program.
    num_videos: of an execution, all devices together.
    compile_seconds: on this machine.
    available: bytes of memory that a program may use, or None.
    needed: bytes that it takes.
    memory: in parts; None where the compiler refused the program.
    model_flops: see `Program`.
    done_flops: as read from the program, kernels added by arithmetic.
    kernels: calls whose FLOPs were added, by name.
    xla_flops: what XLA counts, loops once; None where it does not tell.
    collectives: by kind and axes.
    estimate: of the time; None where nothing is known of the device, or the
      program does not fit.
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
  collectives: tuple[collectives_lib.Row, ...] = ()
  estimate: roofline.Estimate | None = None

  @property
  def fits(self) -> bool:
    return self.available is None or self.needed <= self.available


def make(program: Program, topology: Topology) -> Report:
  """Compiles a program and reads what it costs.

  Raises:
    jax.errors.JaxRuntimeError: it does not compile, for another reason than
      memory.
  """
  lowered = program.lower()
  start = time.monotonic()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    amounts = refused(str(error))
    if amounts is None:
      raise
    seconds = time.monotonic() - start
    needed, available = amounts
    return Report(program.name, program.num_videos, seconds, available, needed)
  seconds = time.monotonic() - start
  mesh, chip = program.mesh, topology.chip
  memory = Memory.of(compiled)
  module = hlo.parse(compiled.as_text())
  runs = execution.count(module)
  layout = Layout.of(mesh, granules(mesh, topology))
  rows = collectives_lib.table(collectives_lib.find(module, runs, layout))
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
    ici_bytes=collectives_lib.ici_bytes_by_axes(rows),
    dcn_bytes=sum(row.dcn_bytes for row in rows),
    videos=program.num_videos / mesh.size,
  )
  return Report(
    name=program.name,
    num_videos=program.num_videos,
    compile_seconds=seconds,
    available=chip.hbm_bytes,
    needed=memory.total,
    memory=memory,
    model_flops=model,
    done_flops=done,
    kernels=kernels,
    xla_flops=counted.get('flops'),
    collectives=tuple(rows),
    estimate=roofline.estimate(work, chip, axis_links(mesh, topology)),
  )


def lines(report: Report) -> list[str]:
  """What a person reads."""
  found = [
    f'{report.name}: {report.num_videos} videos, compiled in '
    f'{report.compile_seconds:.0f} s',
    f'  memory of a device: {_room(report)}',
  ]
  if report.memory is None:
    return found
  parts = dataclasses.asdict(report.memory)
  found.append(
    '    ' + ', '.join(f'{name} {_size(size)}' for name, size in parts.items())
  )
  found.append(f'  FLOPs of a device: {_flops(report)}')
  found.append('  collectives of a device:')
  for row in report.collectives:
    axes = ' x '.join(row.axes) or 'none'
    outside = f' and {_size(row.dcn_bytes)} outside' if row.dcn_bytes else ''
    doubt = '' if row.is_certain else ', at least'
    found.append(
      f'    {row.kind:20}{axes:24}{row.count:6} times{doubt}, sends '
      f'{_size(row.ici_bytes)}{outside}'
    )
  if not report.collectives:
    found[-1] += ' none'
  return found + _times(report)


def _room(report: Report) -> str:
  needed = _size(report.needed)
  if report.available is None:
    return f'{needed}; how much there is is not known'
  available = _size(report.available)
  if report.fits:
    return f'{needed} of {available}: it fits'
  over = _size(report.needed - report.available)
  return f'{needed} of {available}: {over} too much'


def _flops(report: Report) -> str:
  text = _count(report.done_flops)
  if report.model_flops:
    again = report.done_flops / report.model_flops
    text += f', {again:.2f} x the {_count(report.model_flops)} of the model'
  if report.kernels:
    named = ', '.join(f'{k} {n} times' for k, n in report.kernels.items())
    text += f'; attention added by arithmetic ({named})'
  if report.xla_flops is not None:
    text += f'; XLA, which counts a loop once, {_count(report.xla_flops)}'
  return text


def _times(report: Report) -> list[str]:
  found = report.estimate
  if found is None:
    return ['  time: nothing is known of this device']
  each = ', '.join(
    f'{name} {value:.3g}' for name, value in found.seconds.items()
  )
  fast, slow = found.overlapped, found.in_turn
  return [
    f'  seconds by themselves: {each}; bound by {found.bound}',
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
