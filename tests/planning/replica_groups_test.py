"""Replica groups, in all formats of XLA."""

from absl.testing import parameterized

from lift_jax.planning import replica_groups
from lift_jax.planning.replica_groups import MeshLayout
from tests.planning import programs


def read(text: str, partitions: int = 8):
  module = programs.wrap(
    '%p = f32[8]{0} parameter(0)',
    f'%c = f32[8]{{0}} all-reduce(%p), channel_id=1, {text}'
    'use_global_device_ids=true, to_apply=%add',
  )
  return replica_groups.replica_groups(module['main']['c'], partitions)


class ReplicaGroupsTest(parameterized.TestCase):
  @parameterized.parameters(
    ('replica_groups={{0,1,2,3},{4,5,6,7}}, ', [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ('replica_groups={}, ', [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ('', [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ('replica_groups=[2,4]<=[8], ', [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ('replica_groups=[4,2]<=[2,4]T(1,0), ', [[0, 4], [1, 5], [2, 6], [3, 7]]),
    (
      'replica_groups=[4,2]<=[2,2,2]T(2,1,0), ',
      [[0, 4], [2, 6], [1, 5], [3, 7]],
    ),
    (
      "replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, ",
      [[0, 1, 2, 3], [4, 5, 6, 7]],
    ),
    (
      "replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2] {'axis_0'}, ",
      [[0, 2, 4, 6], [1, 3, 5, 7]],
    ),
    (
      "replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','c'}, ",
      [[0, 1, 4, 5], [2, 3, 6, 7]],
    ),
    # Of 8 as (2, 2, 2) the middle.
    (
      "replica_groups=mesh['a'=8] {'a':(2)2}, ",
      [[0, 2], [1, 3], [4, 6], [5, 7]],
    ),
    (
      "replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}, ",
      [[0, 1], [2, 3], [4, 5], [6, 7]],
    ),
    (
      "replica_groups=mesh['a'=2,'b'=4], device_ids=(0,2,4,6,7,5,3,1) {'a'}, ",
      [[0, 7], [2, 5], [4, 3], [6, 1]],
    ),
  )
  def test_read(self, text, expected):
    self.assertEqual(read(text), expected)

  def test_pairs(self):
    module = programs.wrap(
      '%p = f32[8]{0} parameter(0)',
      '%c = f32[8]{0} collective-permute(%p), '
      'source_target_pairs={{0,3},{1,0},{2,1}}, metadata={op_name="x"}',
    )
    pairs = replica_groups.source_target_pairs(module['main']['c'])
    self.assertEqual(pairs, [[0, 3], [1, 0], [2, 1]])


class LayoutTest(parameterized.TestCase):
  @parameterized.parameters(
    ([[0, 1], [2, 3], [4, 5], [6, 7]], ('tensor',)),
    ([[0, 2], [1, 3], [4, 6], [5, 7]], ('fsdp',)),
    ([[0, 4], [1, 5], [2, 6], [3, 7]], ('data',)),
    ([[0, 2, 4, 6], [1, 3, 5, 7]], ('data', 'fsdp')),
    ([[0, 7]], ('data', 'fsdp', 'tensor')),
    ([[3]], ()),
  )
  def test_varying(self, groups, axes):
    layout = MeshLayout.of(programs.make_mesh(2, 2, 1, 2))
    self.assertEqual(layout.varying(groups), axes)

  def test_granules(self):
    mesh = programs.make_mesh(4, 2, 1, 1)
    layout = MeshLayout.of(mesh, [0, 0, 0, 0, 1, 1, 1, 1])
    self.assertEqual(layout.between_granules(), ('data',))
    self.assertEqual(layout.num_granules, 2)
    self.assertEqual(layout.positions(8), list(range(8)))
    # A program of one slice.
    self.assertEqual(layout.positions(4), [0, 1, 2, 3])
    one = MeshLayout.of(mesh)
    self.assertEqual(one.between_granules(), ())
