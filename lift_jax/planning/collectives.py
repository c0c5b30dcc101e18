"""Collectives of a compiled program, and the bytes that they send.

Bytes are those that one device sends per execution with ring algorithms in a
group of n devices; S is the size of its operands in bytes.

  all-gather      (n - 1) S
  reduce-scatter  (n - 1) S / n
  all-reduce      2 (n - 1) S / n     a reduce-scatter and an all-gather
  all-to-all      (n - 1) S / n
  permute         S

A group that spans g slices or hosts, with n / g members in each, communicates
within and between them in turn: a fraction (g - 1) / (n - 1) of the bytes goes
over the slower network, of an all-to-all (n - n / g) / (n - 1).
"""

from collections.abc import Iterable
import dataclasses
import re

from lift_jax.planning import execution
from lift_jax.planning.hlo import Computation, Instruction, Module
from lift_jax.planning.replica_groups import (
  Groups,
  MeshLayout,
  replica_groups,
  source_target_pairs,
)

# Bytes sent, in units of (n - 1) S.
_RING = {
  'all-gather': lambda n: 1.0,
  'reduce-scatter': lambda n: 1 / n,
  'all-reduce': lambda n: 2 / n,
  'all-to-all': lambda n: 1 / n,
  'ragged-all-to-all': lambda n: 1 / n,
}
_PAIRS = ('collective-permute', 'collective-broadcast')

# Between slices TPUs communicate through their hosts: send and receive in the
# program, with an attribute that describes what the hosts do.
_MEGASCALE = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_MEGASCALE_SLICES = re.compile(r'_xla_megascale_target="\{([\d,]+)\}')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective of a program.

  Attributes:
    kind: such as 'all-gather'.
    axes: mesh axes along which the members of a group differ.
    ici_bytes: sent by a device within its slice or host, per execution.
    dcn_bytes: sent by a device to other slices or hosts, per execution.
    times: number of executions.
    is_certain: whether `times` is known; a loop with an unknown trip count
      counts once.
  """

  kind: str
  axes: tuple[str, ...]
  ici_bytes: float
  dcn_bytes: float
  times: int = 1
  is_certain: bool = True


@dataclasses.dataclass(frozen=True)
class CollectiveTotals:
  """Totals of all collectives of one kind along the same mesh axes.

  Attributes:
    kind: such as 'all-gather'.
    axes: of the mesh.
    count: number of executions.
    ici_bytes: sent by a device within its slice or host.
    dcn_bytes: sent by a device to other slices or hosts.
    is_certain: whether `count` is known.
  """

  kind: str
  axes: tuple[str, ...]
  count: int
  ici_bytes: float
  dcn_bytes: float
  is_certain: bool


def find(
  module: Module, executions: execution.Executions, layout: MeshLayout
) -> list[Collective]:
  """All collectives among more than one device, in the order of the text."""
  found = []
  for name, times in executions.times.items():
    computation = module[name]
    is_certain = name not in executions.uncertain
    for instruction in computation:
      collective = _read(
        module, computation, instruction, layout, name in executions.fused
      )
      if collective is not None:
        found.append(
          dataclasses.replace(collective, times=times, is_certain=is_certain)
        )
  return found


def sum_by_axes(collectives: Iterable[Collective]) -> list[CollectiveTotals]:
  """Totals by kind and mesh axes, the most bytes first."""
  totals = {}
  for one in collectives:
    key = (one.kind, one.axes)
    total = totals.get(key, CollectiveTotals(*key, 0, 0.0, 0.0, True))
    totals[key] = CollectiveTotals(
      *key,
      total.count + one.times,
      total.ici_bytes + one.times * one.ici_bytes,
      total.dcn_bytes + one.times * one.dcn_bytes,
      total.is_certain and one.is_certain,
    )
  return sorted(totals.values(), key=lambda t: -(t.ici_bytes + t.dcn_bytes))


def ici_bytes_by_axes(
  totals: Iterable[CollectiveTotals],
) -> dict[tuple[str, ...], float]:
  """Bytes that a device sends within its slice or host, by mesh axes."""
  by_axes = {}
  for total in totals:
    by_axes[total.axes] = by_axes.get(total.axes, 0.0) + total.ici_bytes
  return by_axes


def _read(
  module: Module,
  computation: Computation,
  instruction: Instruction,
  layout: MeshLayout,
  is_fused: bool,
) -> Collective | None:
  # The second half of an asynchronous collective is '-done'.
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
  """On TPUs a reduce-scatter is a fusion of an all-reduce and a slice."""
  users = computation.users(instruction.name)
  is_sliced = users and all(u.opcode == 'dynamic-slice' for u in users)
  return 'reduce-scatter' if is_sliced else 'all-reduce'


def _split_ring(
  kind: str, size: float, groups: Groups, layout: MeshLayout
) -> tuple[float, float]:
  """(ICI, DCN) bytes of the group that sends the most."""
  n = max(len(group) for group in groups)
  g = max(len({layout.granules[p] for p in group}) for group in groups)
  total = (n - 1) * size * _RING[kind](n)
  away = n - n / g if kind.endswith('all-to-all') else g - 1
  dcn = total * away / (n - 1)
  return total - dcn, dcn


def _split_pairs(
  kind: str, size: float, groups: Groups, layout: MeshLayout
) -> tuple[float, float]:
  """(ICI, DCN) bytes of the sending devices."""
  spans = {len({layout.granules[p] for p in group}) > 1 for group in groups}
  return size * (False in spans), size * (True in spans)


def _between_slices(
  computation: Computation, instruction: Instruction, layout: MeshLayout
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
