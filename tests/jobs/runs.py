"""Runs that are stopped or get fewer devices, and states that are compared."""

import contextlib
import dataclasses
from unittest import mock

import jax
import numpy as np

from lift_jax import chips, partitioning
from lift_jax.training import metrics

# A process that dies as soon as the metrics of step 5 are on disk, while the
# checkpoint of step 4 may still be on its way there.
DIE_AT_STEP_5 = """
import os, signal, sys
from lift_jax.cli import main
from lift_jax.training import metrics

write = metrics.MetricWriter.write

def write_and_die(self, step, scalars):
  write(self, step, scalars)
  if step == 5:
    os.kill(os.getpid(), signal.SIGKILL)

metrics.MetricWriter.write = write_and_die
main.main(sys.argv[1:])
"""

# A process that dies as a file of the name in its first argument would appear.
DIE_AT_THE_END = """
import os, signal, sys
from lift_jax.cli import main

replace = os.replace

def replace_or_die(source, target):
  if os.path.basename(target) == sys.argv[1]:
    os.kill(os.getpid(), signal.SIGKILL)
  replace(source, target)

os.replace = replace_or_die
sys.exit(main.main(sys.argv[2:]))
"""


def known_peak():
  """A context in which these devices have one, and so a utilisation."""
  cpu = dataclasses.replace(chips.CHIPS['cpu'], flops=1e12)
  return mock.patch.dict(chips.CHIPS, cpu=cpu)


def assert_same(state, other, **tolerance):
  """Two trees of arrays are equal, bit for bit if no tolerance is given."""

  def check(path, one, two):
    name = jax.tree_util.keystr(path)
    if tolerance:
      np.testing.assert_allclose(one, two, err_msg=name, **tolerance)
    else:
      np.testing.assert_array_equal(one, two, err_msg=name)

  jax.tree_util.tree_map_with_path(check, state, other)


def after_step(step: int, action):
  """Calls `action` once the metrics of a step are written."""
  write = metrics.MetricWriter.write

  def patched(self, number, scalars):
    write(self, number, scalars)
    if number == step:
      action()

  return mock.patch.object(metrics.MetricWriter, 'write', patched)


def mesh_devices(number: int):
  """Meshes of the first devices alone."""
  make_mesh = partitioning.make_mesh

  def patched(config, devices=None):
    return make_mesh(config, devices or jax.devices()[:number])

  return mock.patch.object(partitioning, 'make_mesh', patched)


@contextlib.contextmanager
def local_devices(number: int):
  """As many devices as a host may have; a mesh is made of them all."""
  some = jax.local_devices()[:number]
  with (
    mock.patch.object(jax, 'local_devices', lambda: some),
    mock.patch.object(jax, 'local_device_count', lambda: number),
  ):
    yield
