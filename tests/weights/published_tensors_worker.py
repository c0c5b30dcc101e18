"""One of the two processes of `published_tensors_test.py`: load, then save.

usage: published_tensors_worker.py PORT INDEX FOLDER
"""

import os
import sys
import time

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lift_jax import partitioning
from lift_jax.weights import conversion, published_tensors, safetensors_files

TABLE = (
  *conversion.linear('blocks.{i}.proj', 'blocks/proj'),
  *conversion.linear('out', 'out'),
)
RULES = (
  ('blocks/proj/kernel', P(None, 'fsdp', 'tensor')),
  ('out/kernel', P('fsdp')),
  ('.*/bias', P()),
)


def linear(*stack):
  return {
    'kernel': jax.ShapeDtypeStruct((*stack, 8, 16), jnp.float32),
    'bias': jax.ShapeDtypeStruct((*stack, 16), jnp.float32),
  }


def main(port, index, folder):
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'127.0.0.1:{port}', 2, index)
  abstract = {'blocks': {'proj': linear(3)}, 'out': linear()}
  mesh = partitioning.make_mesh(partitioning.MeshConfig(tensor=2))
  tensors = safetensors_files.open_tensors(folder, 'model')
  read_bytes = dict.fromkeys(tensors, 0)
  read = safetensors_files.LazyTensor.__getitem__

  def spy(tensor, slices):
    part = read(tensor, slices)
    read_bytes[tensor.name] += part.nbytes
    return part

  safetensors_files.LazyTensor.__getitem__ = spy
  params = published_tensors.load(
    TABLE,
    abstract,
    tensors,
    shardings=partitioning.param_shardings(RULES, abstract, mesh),
  )
  assert not params['out']['kernel'].is_fully_addressable
  for name, tensor in tensors.items():
    share = 2 if name.endswith('weight') else 1
    assert read_bytes[name] == tensor.nbytes // share, (name, read_bytes)

  if index == 0:  # late, so that the other process must wait for the file
    replace = os.replace
    os.replace = lambda *paths: (time.sleep(0.5), replace(*paths))
  # The second process cannot write there: it must not try.
  target = folder if index == 0 else '/dev/null/nowhere'
  published_tensors.save(TABLE, params, target, 'net')
  safetensors_files.open_tensors(folder, 'net')


if __name__ == '__main__':
  main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
