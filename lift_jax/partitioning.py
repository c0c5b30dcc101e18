"""Meshes, and where parameters and activations lie on them.

A mesh has four axes: `data` (copies of everything), `fsdp` (batch and
parameters cut alike), `context` (the tokens of one video) and `tensor` (the
width of a layer). Any of them may be 1.

Which parameter is cut how stands in rules beside each model:

  RULES = (
    (r'blocks/.*/(to_q|to_k|to_v)/kernel', P(None, 'fsdp', 'tensor')),
    (r'.*/(bias|scale)', P()),
  )

Rules are total: every parameter is matched by one rule, every rule by a
parameter.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import re
from typing import Any

import jax
from jax.experimental import mesh_utils

from lift_jax import errors
from lift_jax.weights import param_paths

AXES = ('data', 'fsdp', 'context', 'tensor')
BATCH_AXES = ('data', 'fsdp')

Rules = Sequence[tuple[str, jax.sharding.PartitionSpec]]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along each axis; one may be -1, all that remain."""

  data: int = 1
  fsdp: int = -1
  context: int = 1
  tensor: int = 1


def make_mesh(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """The mesh of all `devices`, axes Auto, laid out for their interconnect.

  Args:
    config: devices along each axis.
    devices: `jax.devices()` unless told.

  Raises:
    UserError: the axes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = {axis: getattr(config, axis) for axis in AXES}
  written = ', '.join(f'{axis} {size}' for axis, size in sizes.items())
  free = [axis for axis, size in sizes.items() if size == -1]
  if any(size < 1 and size != -1 for size in sizes.values()) or len(free) > 1:
    raise errors.UserError(
      f'mesh of {written}: give positive sizes, and -1 for one axis at most'
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
  # Not jax.make_mesh: on TPU v4 and v5p it refuses sizes that cut a physical
  # axis in two, such as fsdp 2 on a 4x4x4 slice.
  # GPUs have the attribute too, and each host is a slice of them. Devices of a
  # single slice that is planned for do without.
  tpus = [device for device in devices if device.platform == 'tpu']
  slices = len({getattr(device, 'slice_index', 0) for device in tpus}) or 1
  if slices == 1:
    grid = mesh_utils.create_device_mesh(
      tuple(sizes.values()), devices, allow_split_physical_axes=True
    )
  else:
    if sizes['data'] % slices:
      raise errors.UserError(
        f'mesh of {written}: the devices are {slices} slices, between which '
        'the network is slow; make data a multiple of it'
      )
    # Slices differ along `data` alone, which sends least.
    grid = mesh_utils.create_hybrid_device_mesh(
      (sizes['data'] // slices, *tuple(sizes.values())[1:]),
      (slices, *(1 for _ in AXES[1:])),
      devices,
      allow_split_physical_axes=True,
    )
  auto = (jax.sharding.AxisType.Auto,) * len(AXES)
  return jax.sharding.Mesh(grid, AXES, axis_types=auto)


def platform() -> str:
  """Of the devices that a program is made for: 'cpu', 'gpu' or 'tpu'.

  These are those of `jax.set_mesh`, which need not be here: a program can be
  compiled for a slice of TPUs on any machine. Without a mesh it is JAX's own.
  """
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  return jax.default_backend() if device is None else device.platform


def splits_tokens() -> bool:
  """Whether the tokens of a row lie on several devices of `jax.set_mesh`."""
  mesh = jax.sharding.get_abstract_mesh()
  return not mesh.empty and mesh.shape['context'] > 1


def batch_shards(mesh: jax.sharding.Mesh) -> int:
  """Parts of a batch, each on devices of its own."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def describe(mesh: jax.sharding.Mesh) -> str:
  """One line, such as '8 cpu devices: data 1, fsdp 4, context 1, tensor 2'."""
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
    rules: (regular expression, PartitionSpec); an expression is matched in
      full against names such as 'blocks/attn/to_q/kernel'.
    abstract_params: nested dict of anything with a `shape`.

  Returns:
    Nested dict of `NamedSharding`.

  Raises:
    ValueError: a parameter matched by no rule or by several, a rule that
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
  """Shardings of a tree that holds copies of parameters, as Optax states do.

  A leaf whose name is that of a parameter, or ends with '/' and that name,
  and whose shape is the parameter's, lies as the parameter lies. Everything
  else (counters, factored moments) is replicated.

  Args:
    abstract_tree: any pytree of anything with a `shape`.
    abstract_params: nested dict of anything with a `shape`.
    shardings: what `param_shardings` returned for it.
    mesh: where the rest is replicated.
  """
  shapes = {
    name: tuple(leaf.shape)
    for name, leaf in param_paths.flatten(abstract_params).items()
  }
  by_name: Mapping[str, Any] = param_paths.flatten(shardings)
  if shapes.keys() != by_name.keys():
    strangers = errors.listing(shapes.keys() ^ by_name.keys())
    raise ValueError(f'parameters and shardings differ in {strangers}')
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
  """Lays `x` out as `spec` on the mesh of `jax.set_mesh`.

  Without a mesh it returns `x`, so that single-device code needs no branch.

  It is meant for compiled programs. There a dimension that its axes do not
  divide is fine: XLA pads it and masks the padding.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, spec)
