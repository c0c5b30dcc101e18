"""Replica groups: the devices and mesh axes of a collective.

XLA writes groups of partitions in three ways:

  {{0,2},{1,3}}                      listed; {} is one group of all partitions
  [2,2]<=[2,2]T(1,0)                 0..3 as 2x2, transposed, in 2 groups
  mesh['a'=2,'b'=2] {'a'}            along axes of a mesh that XLA defines
"""

from collections.abc import Sequence
import dataclasses
import math
import re
from typing import Self

import jax
import numpy as np

from lift_jax.planning.hlo import Instruction

_IOTA = re.compile(r'\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?')
_MESH = re.compile(
  r'mesh\[([^\]]*)\](?:, device_ids=\(([^{]*)\))? ?\{([^}]*)\}'
)
# An axis of such a mesh, or a part of it, as `'a':(2)4`: the middle one of the
# axis reshaped to (2, 4, the rest).
_MESH_AXIS = re.compile(r"'?([\w.]+)'?(?::\((\d+)\)(\d+))?")

Groups = list[list[int]]


@dataclasses.dataclass(frozen=True)
class MeshLayout:
  """Devices of a mesh, as collectives see them.

  Attributes:
    axes: names.
    shape: devices along each axis.
    granules: slice or host of each device, in order.
  """

  axes: tuple[str, ...]
  shape: tuple[int, ...]
  granules: tuple[int, ...]

  @classmethod
  def of(
    cls, mesh: jax.sharding.Mesh, granules: Sequence[int] | None = None
  ) -> Self:
    """Of a mesh; by default one granule (see `topology.granules`)."""
    granules = [0] * mesh.size if granules is None else granules
    return cls(tuple(mesh.axis_names), mesh.devices.shape, tuple(granules))

  @property
  def num_granules(self) -> int:
    return len(set(self.granules))

  def positions(self, num_partitions: int) -> list[int]:
    """Mesh positions of the partitions of a program.

    If TPU slices are connected by the data center network, a program has only
    the partitions of one slice; the first one stands for all.
    """
    positions = range(len(self.granules))
    if num_partitions == len(self.granules):
      return list(positions)
    return [p for p in positions if self.granules[p] == self.granules[0]]

  def varying(self, groups: Groups) -> tuple[str, ...]:
    """The axes along which members of a group differ.

    Args:
      groups: mesh positions.
    """
    found = set()
    for group in groups:
      coords = np.unravel_index(group, self.shape)
      found.update(
        axis
        for axis, along in zip(self.axes, coords, strict=True)
        if len(set(along.tolist())) > 1
      )
    return tuple(axis for axis in self.axes if axis in found)

  def between_granules(self) -> tuple[str, ...]:
    """The axes along which devices belong to different granules."""
    granules = np.array(self.granules).reshape(self.shape)
    return tuple(
      axis
      for index, axis in enumerate(self.axes)
      if (granules != np.take(granules, [0], axis=index)).any()
    )


def _numbers(text: str) -> list[int]:
  return [int(number) for number in re.findall(r'\d+', text)]


def _lists(text: str) -> Groups:
  return [_numbers(group) for group in re.findall(r'\{([\d,]+)\}', text)]


def _from_iota(match: re.Match) -> Groups:
  shape, dims = _numbers(match[1]), _numbers(match[2])
  ids = np.arange(math.prod(dims)).reshape(dims)
  if match[3]:
    ids = ids.transpose(_numbers(match[3]))
  return ids.reshape(shape).tolist()


def _device_ids(text: str | None, sizes: list[int]) -> np.ndarray:
  """Device ids of a mesh: in order, transposed, or listed."""
  ids = np.arange(math.prod(sizes))
  iota = re.match(r'\[([\d,]+)\](?:T\(([\d,]+)\))?', text or '')
  if iota:
    ids = ids.reshape(_numbers(iota[1]))
    ids = ids.transpose(_numbers(iota[2])) if iota[2] else ids
  elif text:
    ids = np.array(_numbers(text))
  return ids.reshape(sizes)


def _from_mesh(match: re.Match) -> Groups:
  named = re.findall(r"'?([\w.]+)'?=(\d+)", match[1])
  sizes = [int(size) for _, size in named]
  wanted = {
    name: (int(before or 1), int(size) if size else None)
    for name, before, size in _MESH_AXIS.findall(match[3])
  }
  # Every axis as (before, used, after), most of them 1.
  split = []
  for name, size in named:
    before, used = wanted.get(name, (int(size), 1))
    used = int(size) if used is None else used
    split += [before, used, int(size) // before // used]
  ids = _device_ids(match[2], sizes).reshape(split)
  within = list(range(1, len(split), 3))
  across = [index for index in range(len(split)) if index not in within]
  group_size = math.prod(split[index] for index in within)
  return ids.transpose(across + within).reshape(-1, group_size).tolist()


def replica_groups(instruction: Instruction, num_partitions: int) -> Groups:
  """The groups of partitions of a collective."""
  start = instruction.attributes.find('replica_groups=')
  text = instruction.attributes[start + len('replica_groups=') :]
  if start >= 0 and (match := _MESH.match(text)):
    return _from_mesh(match)
  if start >= 0 and (match := _IOTA.match(text)):
    return _from_iota(match)
  if start >= 0 and (match := re.match(r'\{(\{[\d,]+\},?)+\}', text)):
    return _lists(match[0])
  return [list(range(num_partitions))]


def source_target_pairs(instruction: Instruction) -> Groups:
  """[source, target] partitions of a collective-permute."""
  match = re.search(
    r'source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}', instruction.attributes
  )
  return _lists(match[1]) if match else []
