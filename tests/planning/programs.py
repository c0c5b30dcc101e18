"""Small programs compiled for simulated devices."""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np

from lift_jax.planning import hlo

AXES = ('data', 'fsdp', 'context', 'tensor')


def make_mesh(*shape: int) -> jax.sharding.Mesh:
  """The first devices as a mesh of four axes."""
  grid = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
  return jax.sharding.Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 4)


def array(mesh, shape, *spec, dtype=np.float32) -> jax.ShapeDtypeStruct:
  sharding = NamedSharding(mesh, PartitionSpec(*spec))
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def compiled(function, *args, **options):
  return jax.jit(function, **options).lower(*args).compile()


def module_of(function, *args, **options) -> hlo.Module:
  return hlo.parse(compiled(function, *args, **options).as_text())


def wrap(*lines: str, partitions: int = 8, before: str = '') -> hlo.Module:
  """A module whose entry holds `lines`; `before` are other computations."""
  return hlo.parse(
    '\n'.join(
      [
        f'HloModule written, is_scheduled=true, num_partitions={partitions}',
        before,
        'ENTRY %main (p: f32[8]) -> f32[8] {',
        *(f'  {line}' for line in lines),
        '  ROOT %returned = f32[] constant(0)',
        '}',
      ]
    )
  )
