"""Parsing of topologies, and their requests to JAX."""

import os
import types
from unittest import mock

from absl.testing import parameterized
import jax
import numpy as np

from lift_jax.errors import UserError
from lift_jax.planning import topology
from tests.planning import programs

DESCRIBE = 'jax.experimental.topologies.get_topology_desc'


class ParseTest(parameterized.TestCase):
  @parameterized.parameters(
    # name, devices, chips, slices
    ('v5p:4x4x4', 64, 64, 1),
    ('2*v5p:4x4x4', 128, 128, 2),
    ('v5e:16x16', 256, 256, 1),
    ('v6e:1x1', 1, 1, 1),
    ('tpu7x:2x2x1', 8, 4, 1),
    ('h100:2x8', 16, 16, 1),
    ('cpu:8', 8, 8, 1),
  )
  def test_counts(self, text, devices, num_chips, slices):
    found = topology.parse(text)
    self.assertEqual(str(found), text)
    self.assertEqual(found.num_devices, devices)
    self.assertEqual(found.num_chips, num_chips)
    self.assertEqual(found.slices, slices)

  def test_capitals(self):
    self.assertEqual(str(topology.parse('H100:1x8')), 'h100:1x8')

  @parameterized.parameters(
    ('', 'write v5p:4x4x4'),
    ('v5p', 'write v5p:4x4x4'),
    ('v5p:4x4x', 'write v5p:4x4x4'),
    ('b100:1x8', 'known chips: a100, cpu, h100'),
    ('v5p:4x4', 'v5p takes 3 sides, such as 4x4x4'),
    ('v6e:4x4x4', 'v6e takes 2 sides, such as 4x4'),
    ('v5p:4x3x4', 'make the first two sides even'),
    ('h100:8', 'h100 takes hosts x GPUs, such as 2x8'),
    ('cpu:2x4', 'cpu takes one number, such as 8'),
    ('2*h100:1x8', 'omit 2'),
    ('0*v5p:4x4x4', 'must be positive'),
    ('cpu:0', 'must be positive'),
  )
  def test_refused(self, text, message):
    with self.assertRaisesRegex(UserError, message) as caught:
      topology.parse(text)
    self.assertStartsWith(str(caught.exception), f'--topology={text}: ')
    self.assertNotIn('\n', str(caught.exception))


class DevicesTest(parameterized.TestCase):
  @parameterized.parameters(
    ('v5p:4x4x4', {'topology_name': 'v5p:4x4x4'}),
    ('2*v5p:4x4x4', {'topology_name': 'v5p:4x4x4', 'num_slices': 2}),
    (
      'v4:2x2x1',
      {'topology_name': 'v4:2x2x1', 'chip_config_name': 'megacore'},
    ),
    (
      'v5e:1x1',
      {'topology_name': 'v5e:1x1', 'chips_per_host_bounds': (1, 1, 1)},
    ),
  )
  def test_tpu_request(self, text, expected):
    with mock.patch(DESCRIBE) as describe:
      describe.return_value.devices = ['device']
      found = topology.devices(topology.parse(text))
    self.assertEqual(found, ['device'])
    describe.assert_called_once_with(platform='tpu', **expected)

  def test_gpu_request(self):
    with mock.patch(DESCRIBE) as describe:
      topology.devices(topology.parse('a100:2x8'))
    asked = describe.call_args.kwargs
    self.assertEqual(asked['platform'], 'cuda')
    self.assertEqual(asked['topology'], '1x2x8')
    self.assertIn('NVIDIA A100-SXM4-80GB', asked['target_config'])
    self.assertIn('core_count: 108', asked['target_config'])
    self.assertIn('device_memory_size: 85100068864', asked['target_config'])

  @parameterized.parameters(
    # What JAX raises without libtpu and without its CUDA plugin, and what
    # libtpu says.
    ('v5p:4x4x4', RuntimeError('JAX TPU support not installed'), r'jax\[tpu\]'),
    ('h100:1x8', NotImplementedError('no topology for cuda'), r'jax\[cuda12\]'),
    (
      'v5p:4x4x4',
      jax.errors.JaxRuntimeError('ABORTED: multi-process lockfile. Run rm'),
      'another process uses libtpu',
    ),
    (
      'v5p:4x4x4',
      jax.errors.JaxRuntimeError('INVALID_ARGUMENT: no such layout\nat x'),
      'INVALID_ARGUMENT: no such layout$',
    ),
  )
  def test_missing(self, text, error, message):
    with mock.patch(DESCRIBE, side_effect=error):
      with self.assertRaisesRegex(UserError, message):
        topology.devices(topology.parse(text))

  def test_cpu(self):
    wanted = topology.parse('cpu:4')
    self.assertEqual(topology.devices(wanted), jax.devices()[:4])

  def test_too_few_cpus(self):
    wanted = topology.parse('cpu:9')
    jax.devices()
    topology.prepare(wanted)
    with self.assertRaisesRegex(UserError, 'device_count=9'):
      topology.devices(wanted)


class PrepareTest(parameterized.TestCase):
  def test_tpu(self):
    with mock.patch.dict(os.environ, clear=True):
      topology.prepare(topology.parse('v5p:4x4x4'))
      self.assertEqual(os.environ['TPU_SKIP_MDS_QUERY'], '1')

  def test_gpu_flags_are_kept(self):
    no_autotuning = '--xla_one=1 --xla_gpu_autotune_level=0'
    for version, expected in (
      ((0, 10, 2), no_autotuning),
      ((0, 11, 0), f'{no_autotuning} --xla_gpu_enable_triton_gemm=false'),
    ):
      with (
        mock.patch.object(jax, '__version_info__', version),
        mock.patch.dict(os.environ, {'XLA_FLAGS': '--xla_one=1'}),
      ):
        for _ in range(2):
          topology.prepare(topology.parse('h100:1x8'))
        self.assertEqual(os.environ['XLA_FLAGS'], expected)


def fake_mesh(coords, slices=None, **sizes) -> types.SimpleNamespace:
  """A mesh of TPU devices at `coords`, in order."""
  slices = slices or [0] * len(coords)
  grid = np.empty(len(coords), object)
  grid[:] = [
    types.SimpleNamespace(coords=place, slice_index=index)
    for place, index in zip(coords, slices, strict=True)
  ]
  return types.SimpleNamespace(
    axis_names=tuple(sizes), devices=grid.reshape(tuple(sizes.values()))
  )


def places(*sides: int) -> list[tuple[int, ...]]:
  return [tuple(place) for place in np.ndindex(*sides)]


class MeshTest(parameterized.TestCase):
  def test_ring_and_line(self):
    # fsdp along x and half of y, tensor along the other half, context along z.
    grid = np.arange(64).reshape(4, 2, 2, 4).transpose(0, 1, 3, 2).reshape(-1)
    coords = [places(4, 4, 4)[index] for index in grid]
    mesh = fake_mesh(coords, data=1, fsdp=8, context=4, tensor=2)
    self.assertEqual(
      topology.axis_links(mesh, topology.parse('v5p:4x4x4')),
      {'fsdp': 2 + 1, 'context': 2, 'tensor': 1},
    )

  def test_slices(self):
    coords = places(2, 2, 1) * 2
    mesh = fake_mesh(coords, [0] * 4 + [1] * 4, data=4, fsdp=2)
    wanted = topology.parse('2*v5p:2x2x1')
    # Of the data axis only the part within a slice.
    self.assertEqual(topology.axis_links(mesh, wanted), {'data': 1, 'fsdp': 1})
    self.assertEqual(topology.granules(mesh, wanted), [0] * 4 + [1] * 4)

  def test_halves_of_a_chip(self):
    coords = [place for place in places(2, 2, 1) for _ in range(2)]
    mesh = fake_mesh(coords, fsdp=4, tensor=2)
    links = topology.axis_links(mesh, topology.parse('tpu7x:2x2x1'))
    self.assertEqual(links, {'fsdp': 2, 'tensor': 6})

  def test_others(self):
    mesh = programs.make_mesh(2, 2, 1, 2)
    wanted = topology.parse('cpu:8')
    self.assertEqual(
      topology.axis_links(mesh, wanted), {'data': 1, 'fsdp': 1, 'tensor': 1}
    )
    self.assertEqual(topology.granules(mesh, wanted), [0] * 8)
