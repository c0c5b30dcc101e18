"""Meshes, and shardings of parameters and activations on them.

A mesh has four axes: `data` (the batch), `fsdp` (the batch and the parameters),
`context` (the tokens of a video) and `tensor` (the width of a layer). Any of
them may have size 1.

Each model has rules for the sharding of its parameters:

  RULES = (
    (r'blocks/.*/(to_q|to_k|to_v)/kernel', P(None, 'fsdp', 'tensor')),
    (r'.*/(bias|scale)', P()),
  )

Rules are total: every parameter matches exactly one rule, and every rule
matches a parameter.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import re
from typing import Any, TypeVar

import jax
from jax.experimental import mesh_utils

from lift_jax import errors
from lift_jax.weights import param_paths

AXES = ('data', 'fsdp', 'context', 'tensor')
BATCH_AXES = ('data', 'fsdp')
# Everything with a leading batch axis.
BATCH = jax.sharding.PartitionSpec(BATCH_AXES)

Rules = Sequence[tuple[str, jax.sharding.PartitionSpec]]

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along each axis; one may be -1, for all remaining devices."""

  data: int = 1
  fsdp: int = -1
  context: int = 1
  tensor: int = 1


def make_mesh(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """Makes a mesh with Auto axes, laid out for the devices' interconnect.

  Args:
    config: devices along each axis.
    devices: by default `jax.devices()`.

  Raises:
    UserError: the product of the axes is not the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = {axis: getattr(config, axis) for axis in AXES}
  written = ', '.join(f'{axis} {size}' for axis, size in sizes.items())
  free = [axis for axis, size in sizes.items() if size == -1]
  if any(size < 1 and size != -1 for size in sizes.values()) or len(free) > 1:
    raise errors.UserError(
      f'mesh of {written}: give positive sizes, and -1 for at most one axis'
    )
  product = math.prod(size for size in sizes.values() if size != -1)
  if free and len(devices) % product == 0:
    sizes[free[0]] = len(devices) // product
  elif free or product != len(devices):
    verb = 'divide' if free else 'equal'
    raise errors.UserError(
      f'mesh of {written}: the product {product} does not {verb} the '
      f'{len(devices)} devices; choose other sizes'
    )
  # Not jax.make_mesh: on TPU v4 and v5p it rejects sizes that split a physical
  # axis, such as fsdp 2 on a 4x4x4 slice.
  # Only TPUs, as on GPUs each host has its own slice_index; planned devices of
  # a single slice have none.
  tpus = [device for device in devices if device.platform == 'tpu']
  slices = len({getattr(device, 'slice_index', 0) for device in tpus}) or 1
  if slices == 1:
    grid = mesh_utils.create_device_mesh(
      tuple(sizes.values()), devices, allow_split_physical_axes=True
    )
  else:
    if sizes['data'] % slices:
      raise errors.UserError(
        f'mesh of {written}: the devices are {slices} slices, connected by a '
        f'slow network; make data a multiple of {slices}'
      )
    # Only `data` crosses slices, as it communicates least.
    grid = mesh_utils.create_hybrid_device_mesh(
      (sizes['data'] // slices, *tuple(sizes.values())[1:]),
      (slices, *(1 for _ in AXES[1:])),
      devices,
      allow_split_physical_axes=True,
    )
  auto = (jax.sharding.AxisType.Auto,) * len(AXES)
  return jax.sharding.Mesh(grid, AXES, axis_types=auto)


def spread(place: Callable[[jax.sharding.Mesh], T]) -> T:
  """`place(mesh)` on a mesh of all devices, cut into as many parts as fit.

  For work that computes nothing and so has no mesh of the user's choice: 2B
  cannot be cut into 256 parts, but a slice of 256 chips can still convert it.

  Args:
    place: raises UserError for a mesh that does not divide the parameters.
  """
  count = jax.device_count()
  for fsdp in range(count, 0, -1):
    if count % fsdp:
      continue
    config = MeshConfig(data=count // fsdp, fsdp=fsdp)
    try:
      return place(make_mesh(config))
    except errors.UserError:
      if fsdp == 1:
        raise
  raise AssertionError('one part always fits')


def platform() -> str:
  """Platform of the devices to compile for: 'cpu', 'gpu' or 'tpu'.

  It is that of the mesh of `jax.set_mesh`, whose devices may be absent: a
  program can be compiled for a TPU slice on any machine. Without a mesh it is
  JAX's default backend.
  """
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  return jax.default_backend() if device is None else device.platform


def splits_tokens() -> bool:
  """Whether the mesh of `jax.set_mesh` shards the tokens of a sequence."""
  mesh = jax.sharding.get_abstract_mesh()
  return not mesh.empty and mesh.shape['context'] > 1


def flattens_tokens() -> bool:
  """Whether layers should see batch and tokens as one axis.

  It helps XLA's CPU backend alone, and two sharded axes do not make one.
  """
  return platform() == 'cpu' and not splits_tokens()


def batch_shards(mesh: jax.sharding.Mesh) -> int:
  """Number of shards of a batch."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def describe(mesh: jax.sharding.Mesh) -> str:
  """Describes a mesh: '8 cpu devices: data 1, fsdp 4, context 1, tensor 2'."""
  kind = mesh.devices.flat[0].device_kind
  noun = 'device' if mesh.size == 1 else 'devices'
  axes = ', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
  return f'{mesh.size} {kind} {noun}: {axes}'


def _axes(entry: Any) -> tuple[str, ...]:
  """The mesh axes of one entry of a PartitionSpec."""
  if entry is None:
    return ()
  return (entry,) if isinstance(entry, str) else tuple(entry)


def _check(
  name: str,
  shape: tuple[int, ...],
  spec: jax.sharding.PartitionSpec,
  mesh: jax.sharding.Mesh,
) -> None:
  if len(spec) > len(shape):
    raise ValueError(
      f'sharding rule: {spec} is longer than the shape {shape} of {name}'
    )
  for dim, entry in enumerate(spec):
    axes = _axes(entry)
    if unknown := set(axes) - set(mesh.shape):
      raise ValueError(f'sharding rule of {name}: no mesh axis {unknown}')
    parts = math.prod(mesh.shape[axis] for axis in axes)
    if shape[dim] % parts:
      raise errors.UserError(
        f'parameter {name}: dimension {dim} of size {shape[dim]} cannot be '
        f'cut into {parts} along mesh axes {", ".join(axes)}; '
        'choose another mesh'
      )


def param_shardings(
  rules: Rules, abstract_params: Any, mesh: jax.sharding.Mesh
) -> Any:
  """The sharding of every parameter.

  Args:
    rules: (regular expression, PartitionSpec); an expression must match the
      full name, such as 'blocks/attn/to_q/kernel'.
    abstract_params: nested dict of anything with a `shape`.
    mesh: of the shardings.

  Returns:
    Nested dict of `NamedSharding`.

  Raises:
    ValueError: a parameter that matches no rule or several, a rule that
      matches nothing, or a spec longer than the parameter's shape.
    UserError: the mesh does not divide a dimension.
  """
  used = set()

  def shard(name, leaf):
    matches = [
      index
      for index, (regex, _) in enumerate(rules)
      if re.fullmatch(regex, name)
    ]
    if len(matches) != 1:
      found = [rules[index][0] for index in matches] or 'no rule'
      raise ValueError(f'sharding rules: {name} is matched by {found}')
    used.update(matches)
    spec = rules[matches[0]][1]
    _check(name, tuple(leaf.shape), spec, mesh)
    return jax.sharding.NamedSharding(mesh, spec)

  shardings = param_paths.map_named(shard, abstract_params)
  if unused := set(range(len(rules))) - used:
    names = errors.listing(rules[index][0] for index in unused)
    raise ValueError(f'sharding rules: no parameter matches {names}')
  return shardings


def like(
  abstract_tree: Any,
  abstract_params: Any,
  shardings: Any,
  mesh: jax.sharding.Mesh,
) -> Any:
  """Shardings of a tree with copies of parameters, such as an Optax state.

  A leaf whose name is that of a parameter, or ends with '/' and that name,
  and whose shape is the parameter's, has the parameter's sharding. All other
  leaves (counters, factored moments) are replicated.

  Args:
    abstract_tree: any pytree of anything with a `shape`.
    abstract_params: nested dict of anything with a `shape`.
    shardings: of these parameters, from `param_shardings`.
    mesh: for the replicated leaves.
  """
  shapes = {
    name: tuple(leaf.shape)
    for name, leaf in param_paths.flatten(abstract_params).items()
  }
  by_name: Mapping[str, Any] = param_paths.flatten(shardings)
  if shapes.keys() != by_name.keys():
    unmatched = errors.listing(shapes.keys() ^ by_name.keys())
    raise ValueError(f'parameters and shardings differ in {unmatched}')
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

  def shard(name, leaf):
    words = name.split('/')
    # Longest first: 'mu/attn/bias' is a copy of 'attn/bias', not of 'bias'.
    for start in range(len(words)):
      param = '/'.join(words[start:])
      if param in shapes:
        same = shapes[param] == tuple(leaf.shape)
        return by_name[param] if same else replicated
    return replicated

  return param_paths.map_named(shard, abstract_tree)


def constrain(x: jax.Array, spec: jax.sharding.PartitionSpec) -> jax.Array:
  """Constrains the sharding of `x` to `spec` on the mesh of `jax.set_mesh`.

  Without a mesh it returns `x`, so that single-device code needs no branch.

  It is meant for compiled programs: there an axis need not divide its
  dimension, as XLA pads and masks it.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, spec)
