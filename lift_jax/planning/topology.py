"""The devices that a plan is for, and their interconnect.

Topologies are written as follows, in lower or upper case:

  v5p:4x4x4      a TPU slice, chips along each side
  2*v5p:4x4x4    two such slices, connected by the data center network
  h100:2x8       hosts x GPUs per host
  cpu:8          simulated devices of this machine
"""

from collections.abc import Sequence
import dataclasses
import math
import os
import re
from typing import Any

import jax

from lift_jax import chips
from lift_jax.errors import UserError
from lift_jax.planning import gpu_target

# In libtpu a host of a slice has 2x2x1 chips, or one.
_HOST_SIDE = 2

_FORM = re.compile(r'(?:(\d+)\*)?([a-z][a-z0-9]*):(\d+(?:x\d+)*)')


@dataclasses.dataclass(frozen=True)
class Topology:
  """Devices of one type.

  Attributes:
    chip: their type.
    shape: chips along each side of a TPU slice, (hosts, GPUs per host), or
      (devices,) of a CPU.
    slices: number of TPU slices of this shape.
  """

  chip: chips.Chip
  shape: tuple[int, ...]
  slices: int = 1

  def __str__(self) -> str:
    prefix = f'{self.slices}*' if self.slices > 1 else ''
    return f'{prefix}{self.chip.name}:{"x".join(map(str, self.shape))}'

  @property
  def num_chips(self) -> int:
    return self.slices * math.prod(self.shape)

  @property
  def num_devices(self) -> int:
    return self.num_chips * self.chip.devices_per_chip

  @property
  def one_host(self) -> 'Topology':
    """The devices of one host."""
    shape = self.shape
    if self.chip.platform == 'cuda':
      shape = (1, shape[1])
    elif self.chip.platform == 'tpu' and math.prod(shape) > 1:
      shape = (_HOST_SIDE, _HOST_SIDE, 1)[: len(shape)]
    return dataclasses.replace(self, shape=shape, slices=1)


def parse(text: str) -> Topology:
  """Parses a topology in the format of the module docstring.

  Raises:
    UserError: it is invalid.
  """
  match = _FORM.fullmatch(text.lower())
  if match is None or match[2] not in chips.CHIPS:
    raise UserError(
      f'--topology={text}: write v5p:4x4x4 (chips along each side), '
      '2*v5p:4x4x4 (slices), h100:2x8 (hosts x GPUs per host) or cpu:8; '
      f'known chips: {", ".join(sorted(chips.CHIPS))}'
    )
  chip = chips.CHIPS[match[2]]
  shape = tuple(map(int, match[3].split('x')))
  slices = int(match[1] or 1)
  if 0 in (slices, *shape):
    raise UserError(f'--topology={text}: every number must be positive')
  _check_shape(text, chip, shape)
  if match[1] is not None and chip.platform != 'tpu':
    raise UserError(
      f'--topology={text}: only TPUs have slices; omit {match[1]}*'
    )
  return Topology(chip, shape, slices)


def _check_shape(text: str, chip: chips.Chip, shape: tuple[int, ...]) -> None:
  examples = {
    'cuda': 'hosts x GPUs, such as 2x8',
    'cpu': 'one number, such as 8',
  }
  sides = {'tpu': chip.torus_dims, 'cuda': 2, 'cpu': 1}[chip.platform]
  if len(shape) != sides:
    default = f'{sides} sides, such as {"x".join(["4"] * sides)}'
    example = examples.get(chip.platform, default)
    raise UserError(f'--topology={text}: {chip.name} takes {example}')
  if chip.platform == 'tpu' and math.prod(shape) > 1:
    if any(side % _HOST_SIDE for side in shape[:2]):
      raise UserError(
        f'--topology={text}: a slice consists of hosts with 2x2 chips; make '
        'the first two sides even, or all sides 1'
      )


def prepare(topology: Topology) -> None:
  """Configures JAX; must be called before it initialises its backends.

  Plans for TPUs and GPUs run on the CPU and do not use the accelerators of this
  machine.
  """
  if topology.chip.platform == 'cpu':
    try:
      jax.config.update('jax_num_cpu_devices', topology.num_devices)
    except RuntimeError:
      pass  # JAX is initialised; `devices` checks whether there are enough.
    return
  jax.config.update('jax_platforms', 'cpu')
  if topology.chip.platform == 'tpu':
    # Otherwise libtpu queries Google's metadata server for minutes.
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  elif 'xla_gpu_autotune_level' not in os.environ.get('XLA_FLAGS', ''):
    flags = [os.environ.get('XLA_FLAGS', ''), *_gpu_flags(jax.__version_info__)]
    os.environ['XLA_FLAGS'] = ' '.join(flags).strip()


def _gpu_flags(jax_version: tuple[int, ...]) -> tuple[str, ...]:
  """Flags of XLA for compiling without a GPU, which autotuning needs."""
  no_autotuning = '--xla_gpu_autotune_level=0'
  if jax_version < (0, 11):
    return (no_autotuning,)
  # Products in Triton have no default settings there, and do not compile.
  return no_autotuning, '--xla_gpu_enable_triton_gemm=false'


def devices(topology: Topology) -> list[jax.Device]:
  """The devices to compile for; only those of CPUs can run programs.

  Raises:
    UserError: the compiler for such devices is not installed, or it rejects
      this topology.
  """
  if topology.chip.platform == 'cpu':
    return _cpu_devices(topology)
  from jax.experimental import topologies

  is_tpu = topology.chip.platform == 'tpu'
  request = _tpu_request(topology) if is_tpu else _gpu_request(topology)
  extra = 'tpu' if is_tpu else 'cuda12'
  try:
    return list(topologies.get_topology_desc(**request).devices)
  # Errors of the compilers; a subclass of RuntimeError, so they come first.
  except jax.errors.JaxRuntimeError as error:
    raise _compiler_error(topology, str(error)) from error
  # Raised if libtpu or the CUDA plugin is missing.
  except RuntimeError as error:
    raise UserError(
      f'--topology={topology}: the compiler for {topology.chip.name} is not '
      f'installed; pip install "jax[{extra}]=={jax.__version__}"'
    ) from error


def _compiler_error(topology: Topology, message: str) -> UserError:
  if 'lockfile' in message:
    return UserError(
      f'--topology={topology}: another process uses libtpu; wait for it, or '
      'set ALLOW_MULTIPLE_LIBTPU_LOAD=1 if it only compiles'
    )
  first_line = message.strip().split('\n')[0]
  return UserError(f'--topology={topology}: {first_line}')


def _cpu_devices(topology: Topology) -> list[jax.Device]:
  found = jax.devices('cpu')
  if len(found) < topology.num_devices:
    raise UserError(
      f'--topology={topology}: JAX started with {len(found)} CPU devices; '
      'set XLA_FLAGS=--xla_force_host_platform_device_count='
      f'{topology.num_devices}'
    )
  return found[: topology.num_devices]


def _tpu_request(topology: Topology) -> dict[str, Any]:
  one_slice = dataclasses.replace(topology, slices=1)
  request: dict[str, Any] = {
    'platform': 'tpu',
    'topology_name': str(one_slice),
  }
  if topology.slices > 1:
    request['num_slices'] = topology.slices
  if math.prod(topology.shape) == 1:
    request['chips_per_host_bounds'] = (1, 1, 1)
  if topology.chip.name == 'v4':
    # Both cores of a chip are one device; for v5p that is the default.
    request['chip_config_name'] = 'megacore'
  return request


def _gpu_request(topology: Topology) -> dict:
  hosts, per_host = topology.shape
  return {
    'platform': 'cuda',
    'topology_name': topology.chip.name,
    'target_config': gpu_target.target_config(topology.chip),
    'topology': f'1x{hosts}x{per_host}',
  }


def granules(mesh: jax.sharding.Mesh, topology: Topology) -> list[int]:
  """The slice (TPU) or host (GPU) of each device of a mesh, in order.

  Communication within a granule uses ICI or NVLink, the rest the data center
  network or InfiniBand.
  """
  attribute = {'tpu': 'slice_index', 'cuda': 'process_index'}.get(
    topology.chip.platform
  )
  return [
    getattr(device, attribute, 0) if attribute else 0
    for device in mesh.devices.flat
  ]


def axis_links(mesh: jax.sharding.Mesh, topology: Topology) -> dict[str, int]:
  """Links that a device uses at once in a ring along each mesh axis.

  It is computed for the line of devices through the first one; `mesh_utils`
  arranges the others likewise, in every slice. Axes of size 1 are omitted.
  """
  links = {}
  for index, axis in enumerate(mesh.axis_names):
    if mesh.devices.shape[index] == 1:
      continue
    first: list[int | slice] = [0] * mesh.devices.ndim
    first[index] = slice(None)
    line = list(mesh.devices[tuple(first)])
    links[axis] = _line_links(line, topology)
  return links


def _line_links(line: Sequence[jax.Device], topology: Topology) -> int:
  chip = topology.chip
  if chip.platform != 'tpu':
    return chip.links
  sides = []
  for side, length in enumerate(topology.shape):
    used = len({device.coords[side] for device in line})
    if used > 1:
      sides.append((used, length))
  # No side: devices of one chip need no link, those of different slices have
  # none.
  return chips.ring_links(chip, sides) or chip.links
