"""The report of a program: its costs, and whether it fits."""

import dataclasses
from types import SimpleNamespace

from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import pytest

from lift_jax import partitioning
from lift_jax.planning import report, topology

# As libtpu says it.
_TOO_LARGE = (
  'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in '
  'memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.'
)

_ROWS, _WIDTH, _OUT = 32, 64, 128
_FLOPS = 2 * _ROWS * _WIDTH * _OUT


def _refusing(message: str) -> report.Program:
  """A program that the compiler rejects."""

  def compile_():
    raise jax.errors.JaxRuntimeError(message)

  return report.Program(
    'step', None, lambda: SimpleNamespace(compile=compile_), 4, 1e12, 0.0
  )


def _product(model_flops: float | None) -> report.Program:
  """A product over eight devices, its result summed over all of them."""
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(data=1, fsdp=8, context=1, tensor=1)
  )
  rows, parts = (NamedSharding(mesh, P(*spec)) for spec in (('fsdp',), ()))

  def product(x_nd, w_de):
    return jnp.sum(x_nd @ w_de, axis=0)

  return report.Program(
    'product',
    mesh,
    lambda: jax.jit(product, out_shardings=parts).lower(
      jax.ShapeDtypeStruct((_ROWS, _WIDTH), jnp.float32, sharding=rows),
      jax.ShapeDtypeStruct((_WIDTH, _OUT), jnp.float32, sharding=parts),
    ),
    16,
    model_flops,
    0.0,
  )


class RefusedTest(parameterized.TestCase):
  def test_memory(self):
    found = report.make(_refusing(_TOO_LARGE), topology.parse('v5e:4x4'))
    self.assertFalse(found.fits)
    self.assertIsNone(found.memory)
    text = report.lines(found)
    self.assertLen(text, 2)
    self.assertIn('20.50 GiB of 15.75 GiB: 4.75 GiB too much', text[1])

  def test_other_faults(self):
    with self.assertRaisesRegex(jax.errors.JaxRuntimeError, 'cuDNN not found'):
      report.make(_refusing('cuDNN not found'), topology.parse('h100:1x8'))


@pytest.mark.fast
def test_most_memory():
  small, large = (
    report.Report(f'step {size}', 1, 0.0, 4 * 2.0**30, size * 2.0**30)
    for size in (2, 3)
  )
  for reports in ([small, large], [large, small]):
    assert report.most_memory(reports) == (
      'most memory per device: 3.00 GiB of 4.00 GiB: it fits (step 3)'
    )


class CompiledTest(parameterized.TestCase):
  def test_costs(self):
    found = report.make(_product(_FLOPS / 2), topology.parse('cpu:8'))
    self.assertEqual(found.done_flops, _FLOPS / 8)
    self.assertEqual(found.model_flops, _FLOPS / 16)
    rows = 4 * _ROWS // 8 * _WIDTH
    self.assertEqual(found.memory.arguments, rows + 4 * _WIDTH * _OUT)
    self.assertEqual(found.memory.outputs, 4 * _OUT)
    (row,) = found.collectives
    self.assertEqual((row.kind, row.axes), ('all-reduce', ('fsdp',)))
    self.assertEqual(row.count, 1)
    # Ring all-reduce: reduce-scatter and all-gather, 7 of 8 parts each.
    self.assertEqual(row.ici_bytes, 2 * 4 * _OUT * 7 / 8)
    self.assertTrue(found.fits)
    self.assertIsNone(found.estimate)
    text = '\n'.join(report.lines(found))
    self.assertIn('2.00 x the 0.03 MFLOP of the model', text)
    self.assertIn('unknown for this device', text)
    self.assertIn('the capacity is unknown', text)

  def test_model_unknown(self):
    """Without model FLOPs, those of the program are used."""
    found = report.make(_product(None), topology.parse('cpu:8'))
    self.assertEqual(found.model_flops, found.done_flops)

  def test_does_not_fit(self):
    """On devices whose compilers do not check memory."""
    known = topology.parse('h100:1x8')
    for room, fits in ((2**30, True), (1024, False)):
      chip = dataclasses.replace(known.chip, hbm_bytes=room)
      found = report.make(
        _product(_FLOPS), dataclasses.replace(known, chip=chip)
      )
      self.assertEqual(found.fits, fits)
      text = '\n'.join(report.lines(found))
      self.assertEqual('it fits' in text, fits)
      self.assertEqual('too much' in text, not fits)
      # Both have a time: useful for deciding whether to make it fit.
      self.assertIn('videos/s/chip', text)
