"""Collectives of programs, against what they must be.

Every size is by hand: f32 arrays, n devices along an axis, a device sends
(n - 1) shards of a gathered array, (n - 1) / n of a scattered one, and both of
a reduced one.
"""

from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lift_jax.planning import collectives, execution
from lift_jax.planning.collectives import CollectiveTotals
from lift_jax.planning.replica_groups import MeshLayout
from tests.planning import programs

# L layers  D width  F hidden  B batch
L, D, F, B = 3, 16, 32, 8


def totals_of(module, mesh, granules=None) -> list[CollectiveTotals]:
  found = collectives.find(
    module, execution.count(module), MeshLayout.of(mesh, granules)
  )
  return collectives.sum_by_axes(found)


def network(params, x, constrain):
  def layer(x, p):
    return constrain(jnp.tanh(x @ p['up']) @ p['down']), None

  x, _ = lax.scan(layer, x, params)
  return x


def arguments(mesh):
  params = {
    'up': programs.array(mesh, (L, D, F), None, 'fsdp', 'tensor'),
    'down': programs.array(mesh, (L, F, D), None, 'tensor', 'fsdp'),
  }
  return params, programs.array(mesh, (B, D), ('data', 'fsdp'))


def constraint(mesh):
  spec = jax.sharding.NamedSharding(mesh, P(('data', 'fsdp')))
  return lambda x: lax.with_sharding_constraint(x, spec)


class CompiledTest(parameterized.TestCase):
  def test_fsdp(self):
    mesh = programs.make_mesh(2, 4, 1, 1)
    module = programs.module_of(
      lambda p, x: network(p, x, constraint(mesh)), *arguments(mesh)
    )
    # Each layer gathers both of its matrices.
    sent = L * 2 * (3 * D * F * 4 // 4)
    self.assertEqual(
      totals_of(module, mesh),
      [CollectiveTotals('all-gather', ('fsdp',), 2 * L, sent, 0.0, True)],
    )

  def test_tensor(self):
    mesh = programs.make_mesh(1, 1, 1, 4)
    module = programs.module_of(
      lambda p, x: network(p, x, constraint(mesh)), *arguments(mesh)
    )
    sent = L * 2 * 3 * (B * D * 4) / 4
    self.assertEqual(
      totals_of(module, mesh),
      [CollectiveTotals('all-reduce', ('tensor',), L, sent, 0.0, True)],
    )

  def test_gradient_over_data(self):
    mesh = programs.make_mesh(4, 1, 1, 2)

    def step(params, x):
      grads = jax.grad(lambda p: jnp.sum(network(p, x, constraint(mesh))))(
        params
      )
      return jax.tree.map(lambda p, g: p - g, params, grads)

    args = arguments(mesh)
    shardings = jax.tree.map(lambda p: p.sharding, args[0])
    module = programs.module_of(step, *args, out_shardings=shardings)
    rows = {(row.kind, row.axes): row for row in totals_of(module, mesh)}
    # Both gradients of all layers, of which a device holds half.
    reduced = rows['all-reduce', ('data',)]
    self.assertEqual(reduced.ici_bytes, 2 * 3 / 4 * (2 * L * D * F * 4 / 2))
    # The activations of the way there, and their gradients of the way back but
    # for the last, which is that of the input.
    of_activations = rows['all-reduce', ('tensor',)]
    one = 2 * 1 / 2 * (B // 4 * D * 4)
    self.assertIn(of_activations.ici_bytes, (2 * L * one, (2 * L - 1) * one))

  @parameterized.parameters(
    (lambda x: lax.psum(x, 'fsdp'), 'all-reduce', 2 * 3 / 4),
    (
      lambda x: lax.psum_scatter(x, 'fsdp', tiled=True),
      'reduce-scatter',
      3 / 4,
    ),
    (lambda x: lax.all_gather(x, 'fsdp', tiled=True), 'all-gather', 3),
    (
      lambda x: lax.all_to_all(x, 'fsdp', 0, 0, tiled=True),
      'all-to-all',
      3 / 4,
    ),
    (
      lambda x: lax.ppermute(x, 'fsdp', [(i, (i + 1) % 4) for i in range(4)]),
      'collective-permute',
      1,
    ),
  )
  def test_each_kind(self, function, kind, shares):
    mesh = programs.make_mesh(2, 4, 1, 1)

    def local(x):
      return lax.scan(
        lambda c, _: (c + function(x).sum(), None), 0.0, length=5
      )[0].reshape(1)

    module = programs.module_of(
      jax.shard_map(
        local,
        mesh=mesh,
        in_specs=P(None, 'data'),
        out_specs=P(('data', 'fsdp')),
        check_vma=False,
      ),
      programs.array(mesh, (32, 16), None, 'data'),
    )
    (row,) = totals_of(module, mesh)
    self.assertEqual((row.kind, row.axes), (kind, ('fsdp',)))
    # It is loop-invariant: XLA may hoist it out of the loop.
    self.assertIn(row.count, (1, 5))
    self.assertEqual(row.ici_bytes, row.count * shares * 32 * 8 * 4)

  def test_one_device(self):
    mesh = programs.make_mesh(1, 1, 1, 1)
    module = programs.module_of(
      lambda p, x: network(p, x, constraint(mesh)), *arguments(mesh)
    )
    self.assertEmpty(totals_of(module, mesh))


# Lines of the CUDA compiler: pairs of start and done, several operands.
GPU = (
  '%a = bf16[512,2048]{1,0} parameter(0)',
  '%b = bf16[1024,2048]{1,0} parameter(1)',
  '%all-gather-start.1 = ((bf16[512,2048]{1,0}, bf16[512,2048]{1,0}), '
  '(bf16[1024,2048]{1,0}, bf16[1024,2048]{1,0})) all-gather-start(%a, %a), '
  'channel_id=5, replica_groups={{0,2},{4,6},{1,3},{5,7}}, dimensions={0}, '
  'use_global_device_ids=true',
  '%all-gather-done.1 = (bf16[1024,2048]{1,0}, bf16[1024,2048]{1,0}) '
  'all-gather-done(%all-gather-start.1)',
  '%reduce-scatter-start = ((bf16[1024,2048]{1,0}), (bf16[512,2048]{1,0})) '
  'reduce-scatter-start(%b), channel_id=13, replica_groups=[4,2]<=[4,2]T(1,0), '
  'dimensions={0}, to_apply=%add.2.clone',
  '%all-reduce-start = bf16[1024,2048]{1,0} all-reduce-start(%b), '
  "channel_id=9, replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2] "
  "{'axis_0'}, to_apply=%add.3.clone",
  '%all-reduce-done = bf16[1024,2048]{1,0} all-reduce-done(%all-reduce-start)',
)

# A reduce-scatter of libtpu 0.0.42 is a fusion, here of partitions 0 and 2.
TPU_FUSION = """
%all-reduce-scatter.1 (input.4: bf16[2048,1024]) -> bf16[2048,512] {
  %input.4 = bf16[2048,1024]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.15 = bf16[2048,1024]{1,0:T(8,128)(2,1)} all-reduce(%input.4),
    channel_id=18, replica_groups={{0,2},{1,3}}, use_global_device_ids=true,
    to_apply=%add.6.clone
  %zero = u32[]{:T(128)} constant(0)
  ROOT %dynamic-slice.44 = bf16[2048,512]{1,0:T(8,128)(2,1)}
    dynamic-slice(%all-reduce.15, %zero, %zero), dynamic_slice_sizes={2048,512}
}
"""

MEGASCALE = (
  'channel_id=2, is_host_transfer=true, frontend_attributes={'
  '_xla_host_transfer_handler_name="xla_megascale_runtime",'
  '_xla_megascale_target="{1,2}x{0:3}",'
  '_xla_megascale_transfer_type="ALL_REDUCE"}'
)


class WrittenTest(parameterized.TestCase):
  def test_gpu(self):
    mesh = programs.make_mesh(2, 2, 1, 2)
    half, whole = 512 * 2048 * 2, 1024 * 2048 * 2
    self.assertCountEqual(
      totals_of(programs.wrap(*GPU), mesh),
      [
        CollectiveTotals('all-gather', ('fsdp',), 1, 2 * half, 0.0, True),
        CollectiveTotals('reduce-scatter', ('fsdp',), 1, whole / 2, 0.0, True),
        CollectiveTotals(
          'all-reduce', ('data', 'fsdp'), 1, 2 * 3 / 4 * whole, 0.0, True
        ),
      ],
    )

  def test_hosts(self):
    """Two hosts: the reduction over four devices has two on each.

    Within a host half of the data goes out and comes back, and a device has to
    reduce its half with that of one other on the other host.
    """
    mesh = programs.make_mesh(2, 2, 1, 2)
    whole = 1024 * 2048 * 2
    rows = totals_of(
      programs.wrap(*GPU), mesh, granules=[0, 0, 0, 0, 1, 1, 1, 1]
    )
    (reduced,) = [row for row in rows if row.kind == 'all-reduce']
    self.assertEqual(reduced.ici_bytes, 2 * 1 / 2 * whole)
    self.assertEqual(reduced.dcn_bytes, 2 * 1 / 2 * (whole / 2))

  def test_all_to_all_between_hosts(self):
    mesh = programs.make_mesh(8, 1, 1, 1)
    module = programs.wrap(
      '%p = f32[64]{0} parameter(0)',
      '%c = f32[64]{0} all-to-all(%p), replica_groups=[1,8]<=[8]',
    )
    (row,) = totals_of(module, mesh, granules=[0] * 4 + [1] * 4)
    self.assertEqual((row.ici_bytes, row.dcn_bytes), (3 * 32, 4 * 32))

  def test_permute_between_hosts(self):
    mesh = programs.make_mesh(8, 1, 1, 1)
    pairs = ','.join(f'{{{i},{(i + 1) % 8}}}' for i in range(8))
    module = programs.wrap(
      '%p = f32[64]{0} parameter(0)',
      '%s = (f32[64]{0}, f32[64]{0}) collective-permute-start(%p), '
      f'source_target_pairs={{{pairs}}}',
      '%d = f32[64]{0} collective-permute-done(%s)',
    )
    (row,) = totals_of(module, mesh, granules=[0] * 4 + [1] * 4)
    self.assertEqual(row.count, 1)
    self.assertEqual((row.ici_bytes, row.dcn_bytes), (256, 256))

  def test_tpu_reduce_scatter(self):
    mesh = programs.make_mesh(1, 2, 1, 2)
    module = programs.wrap(
      '%p = bf16[2048,1024]{1,0:T(8,128)(2,1)} parameter(0)',
      '%fusion.94 = bf16[2048,512]{1,0:T(8,128)(2,1)} fusion(%p), '
      'kind=kCustom, calls=%all-reduce-scatter.1',
      before=TPU_FUSION,
      partitions=4,
    )
    self.assertEqual(
      totals_of(module, mesh),
      [
        CollectiveTotals('reduce-scatter', ('fsdp',), 1, 2048 * 1024, 0.0, True)
      ],
    )

  def test_slices(self):
    """A program of one slice, which sends to the other through its host."""
    mesh = programs.make_mesh(2, 4, 1, 1)
    module = programs.wrap(
      '%p = bf16[1024,8,128]{2,1,0:T(8,128)(2,1)} parameter(0)',
      '%token = token[] after-all()',
      '%all-gather.24 = bf16[4096,8,128]{2,1,0:T(8,128)(2,1)} all-gather(%p), '
      'replica_groups={{0,1,2,3}}, dimensions={0}',
      '%send.7 = (bf16[1024,8,128]{2,1,0:T(8,128)(2,1)}, u32[], token[]) '
      f'send(%p, %token), {MEGASCALE}',
      '%recv.7 = (bf16[1024,8,128]{2,1,0:T(8,128)(2,1)}, u32[], token[]) '
      f'recv(%token), {MEGASCALE}',
      partitions=4,
    )
    size = 1024 * 8 * 128 * 2
    self.assertEqual(
      totals_of(module, mesh, granules=[0] * 4 + [1] * 4),
      [
        CollectiveTotals('all-gather', ('fsdp',), 1, 3 * size, 0.0, True),
        CollectiveTotals('all-reduce', ('data',), 1, 0.0, size, True),
      ],
    )

  def test_unknown_length(self):
    mesh = programs.make_mesh(1, 4, 1, 1)

    def function(x):
      return lax.while_loop(
        lambda x: x.sum() < 9.0, lambda x: jnp.sin(x), x
      ).sum()

    module = programs.module_of(function, programs.array(mesh, (8, 8), 'fsdp'))
    rows = totals_of(module, mesh)
    self.assertTrue(any(not row.is_certain for row in rows))

  def test_sums(self):
    rows = [
      CollectiveTotals('all-gather', ('fsdp',), 2, 8.0, 0.0, True),
      CollectiveTotals('all-reduce', ('fsdp',), 1, 4.0, 1.0, True),
      CollectiveTotals('all-reduce', ('data', 'fsdp'), 1, 2.0, 1.0, True),
    ]
    self.assertEqual(
      collectives.ici_bytes_by_axes(rows),
      {('fsdp',): 12.0, ('data', 'fsdp'): 2.0},
    )
