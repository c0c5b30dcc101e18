"""Which devices a plan is for, and how they are connected.

They are written as

  v5p:4x4x4      a TPU slice, chips along each side
  2*v5p:4x4x4    two such slices, connected by the data center network
  h100:2x8       hosts x GPUs of a host
  cpu:8          simulated devices of this machine

in capitals or not.
"""

from collections.abc import Sequence
import dataclasses
import math
import os
import re

import jax

from lift_jax import chips
from lift_jax.errors import UserError
from lift_jax.planning import gpu_target

# libtpu builds every slice of hosts with 2x2x1 chips, or with one.
_HOST_SIDE = 2

_FORM = re.compile(r'(?:(\d+)\*)?([a-z][a-z0-9]*):(\d+(?:x\d+)*)')


@dataclasses.dataclass(frozen=True)
class Topology:
  """Devices of one kind.

  Attributes:
    chip: their kind.
    shape: chips along each side of a TPU slice, (hosts, GPUs of a host), or
      (devices,) of a CPU.
    slices: TPU slices of this shape.
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
    """One of the hosts."""
    shape = self.shape
    if self.chip.platform == 'cuda':
      shape = (1, shape[1])
    elif self.chip.platform == 'tpu' and math.prod(shape) > 1:
      shape = (_HOST_SIDE, _HOST_SIDE, 1)[: len(shape)]
    return dataclasses.replace(self, shape=shape, slices=1)


def parse(text: str) -> Topology:
  """The topology that `text` names, as written at the head of this file.

  Raises:
    UserError: it names none.
  """
  match = _FORM.fullmatch(text.lower())
  if match is None or match[2] not in chips.CHIPS:
    raise UserError(
      f'--topology={text}: write v5p:4x4x4 (chips along each side), '
      '2*v5p:4x4x4 (slices), h100:2x8 (hosts x GPUs of a host) or cpu:8; '
      f'known are {", ".join(sorted(chips.CHIPS))}'
    )
  chip = chips.CHIPS[match[2]]
  shape = tuple(map(int, match[3].split('x')))
  slices = int(match[1] or 1)
  if 0 in (slices, *shape):
    raise UserError(f'--topology={text}: every number must be positive')
  _check_shape(text, chip, shape)
  if match[1] is not None and chip.platform != 'tpu':
    raise UserError(
      f'--topology={text}: only TPUs come in slices; leave out {match[1]}*'
    )
  return Topology(chip, shape, slices)


def _check_shape(text: str, chip: chips.Chip, shape: tuple[int, ...]) -> None:
  examples = {'cuda': 'hosts x GPUs, as 2x8', 'cpu': 'one number, as 8'}
  sides = {'tpu': chip.torus_dims, 'cuda': 2, 'cpu': 1}[chip.platform]
  if len(shape) != sides:
    default = f'{sides} sides, as {"x".join(["4"] * sides)}'
    example = examples.get(chip.platform, default)
    raise UserError(f'--topology={text}: {chip.name} takes {example}')
  if chip.platform == 'tpu' and math.prod(shape) > 1:
    if any(side % _HOST_SIDE for side in shape[:2]):
      raise UserError(
        f'--topology={text}: a slice is made of hosts with 2x2 chips; make '
        'the first two sides even, or all sides 1'
      )


def prepare(topology: Topology) -> None:
  """Settings that JAX reads once; to be called before it looks for devices.

  Plans for TPUs and GPUs are made on the CPU, so that accelerators of this
  machine are left alone.
  """
  if topology.chip.platform == 'cpu':
    try:
      jax.config.update('jax_num_cpu_devices', topology.num_devices)
    except RuntimeError:
      pass  # JAX has started; `devices` looks whether there are enough.
    return
  jax.config.update('jax_platforms', 'cpu')
  if topology.chip.platform == 'tpu':
    # Otherwise libtpu asks Google's metadata server for minutes.
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  elif 'xla_gpu_autotune_level' not in os.environ.get('XLA_FLAGS', ''):
    # There is no GPU on which XLA could time its kernels.
    flags = os.environ.get('XLA_FLAGS', '') + ' --xla_gpu_autotune_level=0'
    os.environ['XLA_FLAGS'] = flags.strip()


def devices(topology: Topology) -> list[jax.Device]:
  """The devices, which programs can be compiled for; only CPUs can run them.

  Raises:
    UserError: what knows of such devices is not installed, or it cannot
      build this topology.
  """
  if topology.chip.platform == 'cpu':
    return _cpu_devices(topology)
  from jax.experimental import topologies

  ask = _tpu_request if topology.chip.platform == 'tpu' else _gpu_request
  remedy = 'tpu' if topology.chip.platform == 'tpu' else 'cuda12'
  try:
    return list(topologies.get_topology_desc(**ask(topology)).devices)
  # What JAX raises without libtpu, and what without the CUDA plugin; errors of
  # the compilers themselves, which are RuntimeErrors too, come first.
  except jax.errors.JaxRuntimeError as error:
    raise _refused(topology, str(error)) from error
  except RuntimeError as error:
    raise UserError(
      f'--topology={topology}: the compiler for {topology.chip.name} is not '
      f'installed; pip install "jax[{remedy}]=={jax.__version__}"'
    ) from error


def _refused(topology: Topology, message: str) -> UserError:
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
      f'--topology={topology}: JAX has started with {len(found)} CPU devices; '
      'set XLA_FLAGS=--xla_force_host_platform_device_count='
      f'{topology.num_devices}'
    )
  return found[: topology.num_devices]


def _tpu_request(topology: Topology) -> dict:
  one_slice = dataclasses.replace(topology, slices=1)
  request = {'platform': 'tpu', 'topology_name': str(one_slice)}
  if topology.slices > 1:
    request['num_slices'] = topology.slices
  if math.prod(topology.shape) == 1:
    request['chips_per_host_bounds'] = (1, 1, 1)
  if topology.chip.name == 'v4':
    # Both cores of a chip as one device; of v5p it is the default.
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
  """For each device of a mesh, in order, its slice (TPU) or host (GPU).

  What stays within one goes over ICI or NVLink, the rest over the data center
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
  """Links over which a device sends at once around a ring of each mesh axis.

  It follows one line of devices along each axis, that of the first device;
  `mesh_utils` lays out all of them alike, in every slice. Axes of size
  1 are left out.
  """
  links = {}
  for index, axis in enumerate(mesh.axis_names):
    if mesh.devices.shape[index] == 1:
      continue
    first = [0] * mesh.devices.ndim
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
  # Devices of one chip need no link, and of several slices there is none.
  return chips.ring_links(chip, sides) or chip.links
