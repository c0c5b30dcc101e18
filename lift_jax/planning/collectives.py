"""What the devices of a program send to one another.

Bytes are those that one device sends in one call, if the members of a group of
n pass data around a ring; S are the bytes of its operands.

  all-gather      (n - 1) S
  reduce-scatter  (n - 1) S / n
  all-reduce      2 (n - 1) S / n     a reduce-scatter and an all-gather
  all-to-all      (n - 1) S / n
  permute         S

Where a group reaches over g slices or hosts, with n / g members in each, it is
done within and between them in turn: (g - 1) / (n - 1) of the bytes go over
the slower network, and of an all-to-all (n - n / g) / (n - 1).
"""

from collections.abc import Iterable
import dataclasses
import re

from lift_jax.planning import execution
from lift_jax.planning.hlo import Computation, Instruction, Module
from lift_jax.planning.replica_groups import (
  Groups,
  Layout,
  replica_groups,
  source_target_pairs,
)

# Times (n - 1) S.
_RING = {
  'all-gather': lambda n: 1.0,
  'reduce-scatter': lambda n: 1 / n,
  'all-reduce': lambda n: 2 / n,
  'all-to-all': lambda n: 1 / n,
  'ragged-all-to-all': lambda n: 1 / n,
}
_PAIRS = ('collective-permute', 'collective-broadcast')

# Between slices TPUs send through their hosts, which the program sees as
# sending and receiving; the host's part is written beside it.
_MEGASCALE = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_MEGASCALE_SLICES = re.compile(r'_xla_megascale_target="\{([\d,]+)\}')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective of a program.

  Attributes:
    kind: such as 'all-gather'.
    axes: of the mesh, along which the members of a group differ.
    ici_bytes: sent by a device within its slice or host, each time.
    dcn_bytes: sent by a device to other slices or hosts, each time.
    times: how often it runs.
    is_certain: whether `times` is known; a loop of unknown length counts once.
  """

  kind: str
  axes: tuple[str, ...]
  ici_bytes: float
  dcn_bytes: float
  times: int = 1
  is_certain: bool = True


@dataclasses.dataclass(frozen=True)
class Row:
  """All collectives of a kind along the same axes, in one call.

  Attributes:
    kind: such as 'all-gather'.
    axes: of the mesh.
    count: how many run.
    ici_bytes: sent by a device within its slice or host.
    dcn_bytes: sent by a device to others.
    is_certain: whether all of them run as often as counted.
  """

  kind: str
  axes: tuple[str, ...]
  count: int
  ici_bytes: float
  dcn_bytes: float
  is_certain: bool


def find(
  module: Module, executions: execution.Executions, layout: Layout
) -> list[Collective]:
  """All collectives among more than one device, in the order of the text."""
  found = []
  for name, times in executions.times.items():
    computation = module[name]
    is_certain = name not in executions.uncertain
    for instruction in computation:
      counted = _read(
        module, computation, instruction, layout, name in executions.fused
      )
      if counted is not None:
        found.append(
          dataclasses.replace(counted, times=times, is_certain=is_certain)
        )
  return found


def table(collectives: Iterable[Collective]) -> list[Row]:
  """Sums by kind and axes, the most bytes first."""
  rows = {}
  for one in collectives:
    key = (one.kind, one.axes)
    row = rows.get(key, Row(*key, 0, 0.0, 0.0, True))
    rows[key] = Row(
      *key,
      row.count + one.times,
      row.ici_bytes + one.times * one.ici_bytes,
      row.dcn_bytes + one.times * one.dcn_bytes,
      row.is_certain and one.is_certain,
    )
  return sorted(rows.values(), key=lambda r: -(r.ici_bytes + r.dcn_bytes))


def ici_bytes_by_axes(
  rows: Iterable[Row],
) -> dict[tuple[str, ...], float]:
  """Bytes that a device sends within its slice or host, by mesh axes."""
  totals = {}
  for row in rows:
    totals[row.axes] = totals.get(row.axes, 0.0) + row.ici_bytes
  return totals


def _read(
  module: Module,
  computation: Computation,
  instruction: Instruction,
  layout: Layout,
  is_fused: bool,
) -> Collective | None:
  # The second half of an asynchronous one is '-done'.
  kind = instruction.opcode.removesuffix('-start')
  if kind == 'send':
    return _between_slices(computation, instruction, layout)
  if kind not in _RING and kind not in _PAIRS:
    return None
  if kind == 'all-reduce' and is_fused:
    kind = _reduce_scatter_if_sliced(computation, instruction)
  positions = layout.positions(module.num_partitions)
  if kind == 'collective-permute':
    groups = source_target_pairs(instruction)
  else:
    groups = replica_groups(instruction, module.num_partitions)
  groups = [[positions[member] for member in group] for group in groups]
  if not any(len(set(group)) > 1 for group in groups):
    return None
  size = sum(computation[name].bytes for name in instruction.operands)
  split = _split_pairs if kind in _PAIRS else _split_ring
  ici, dcn = split(kind, size, groups, layout)
  return Collective(
    kind, axes=layout.varying(groups), ici_bytes=ici, dcn_bytes=dcn
  )


def _reduce_scatter_if_sliced(
  computation: Computation, instruction: Instruction
) -> str:
  """TPUs have a reduce-scatter as a fusion of an all-reduce and a slice."""
  users = computation.users(instruction.name)
  is_sliced = users and all(u.opcode == 'dynamic-slice' for u in users)
  return 'reduce-scatter' if is_sliced else 'all-reduce'


def _split_ring(
  kind: str, size: float, groups: Groups, layout: Layout
) -> tuple[float, float]:
  """(ICI, DCN) bytes of the group that sends the most."""
  n = max(len(group) for group in groups)
  g = max(len({layout.granules[p] for p in group}) for group in groups)
  total = (n - 1) * size * _RING[kind](n)
  away = n - n / g if kind.endswith('all-to-all') else g - 1
  dcn = total * away / (n - 1)
  return total - dcn, dcn


def _split_pairs(
  kind: str, size: float, groups: Groups, layout: Layout
) -> tuple[float, float]:
  """(ICI, DCN) bytes of the devices that send, each in full."""
  spans = {len({layout.granules[p] for p in group}) > 1 for group in groups}
  return size * (False in spans), size * (True in spans)


def _between_slices(
  computation: Computation, instruction: Instruction, layout: Layout
) -> Collective | None:
  kind = _MEGASCALE.search(instruction.attributes)
  if kind is None:
    return None
  name = kind[1].lower().replace('_', '-')
  slices = _MEGASCALE_SLICES.search(instruction.attributes)
  n = len(slices[1].split(',')) if slices else layout.num_granules
  size = computation.operand(instruction).bytes
  factor = (n - 1) * _RING[name](n) if name in _RING else 1.0
  return Collective(
    kind=name if name in _RING else 'collective-permute',
    axes=layout.between_granules(),
    ici_bytes=0.0,
    dcn_bytes=factor * size,
  )
