"""FLOPs and traffic, against hand counts and XLA's own."""

import itertools

from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.planning import convolution, costs, execution, hlo
from tests.planning import programs

pytestmark = pytest.mark.fast


def flops_of(module: hlo.Module) -> float:
  return costs.flops(module, execution.count(module))


def traffic_of(module: hlo.Module) -> float:
  return costs.hbm_bytes(module, execution.count(module))


class FlopsTest(parameterized.TestCase):
  @parameterized.parameters(1, 2, 7)
  def test_loops_in_full(self, length):
    def function(x, w):
      return lax.scan(lambda x, w: (jnp.sin(x @ w), None), x, w)[0]

    args = (jnp.zeros((32, 32)), jnp.zeros((length, 32, 32)))
    compiled = programs.compiled(function, *args)
    one = 2 * 32**3
    found = flops_of(hlo.parse(compiled.as_text()))
    self.assertEqual(found, length * one)
    # XLA counts one iteration, which is why this module exists.
    self.assertLess(compiled.cost_analysis()['flops'], 1.1 * one)

  @parameterized.parameters(
    ('ij,jk->ik', (3, 5), (5, 7), 3 * 5 * 7),
    ('bij,bjk->bik', (2, 3, 5), (2, 5, 7), 2 * 3 * 5 * 7),
    ('bihd,bjhd->bhij', (2, 3, 4, 5), (2, 6, 4, 5), 2 * 3 * 4 * 5 * 6),
  )
  def test_products(self, spec, lhs, rhs, expected):
    module = programs.module_of(
      lambda x, y: jnp.einsum(spec, x, y), jnp.zeros(lhs), jnp.zeros(rhs)
    )
    self.assertEqual(flops_of(module), 2 * expected)

  def test_gradient(self):
    def loss(w, x):
      return jnp.sum(jnp.sin(jnp.sin(x @ w) @ w))

    module = programs.module_of(
      jax.grad(loss), jnp.zeros((16, 16)), jnp.zeros((16, 16))
    )
    # Forward two; backward two for w and one for the activations between.
    self.assertEqual(flops_of(module), 5 * 2 * 16**3)

  def test_convolution(self):
    def function(x, k):
      return lax.conv_general_dilated(
        x, k, (1, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
      )

    args = (jnp.zeros((2, 9, 8, 3)), jnp.zeros((3, 3, 3, 5)))
    compiled = programs.compiled(function, *args)
    found = flops_of(hlo.parse(compiled.as_text()))
    self.assertEqual(found, compiled.cost_analysis()['flops'])
    # 9 x 4 outputs with 9 kernel elements, minus those that meet padding.
    self.assertEqual(found, 2 * (2 * 3 * 5) * (9 * 3 - 2) * (4 * 3 - 1))

  def test_cublas(self):
    module = programs.wrap(
      '%x = bf16[64,32]{1,0} parameter(0)',
      '%w = bf16[32,16]{1,0} parameter(1)',
      '%gemm = (bf16[64,16]{1,0}, s8[4096]{0}) custom-call(%x, %w), '
      'custom_call_target="__cublas$gemm", backend_config={'
      '"gemm_backend_config":{"dot_dimension_numbers":{'
      '"lhs_contracting_dimensions":["1"],'
      '"rhs_contracting_dimensions":["0"]}}}',
    )
    self.assertEqual(flops_of(module), 2 * 64 * 32 * 16)
    self.assertEmpty(costs.kernels(module, execution.count(module)))

  def test_kernels(self):
    module = programs.wrap(
      '%x = bf16[64,32]{1,0} parameter(0)',
      '%b = bf16[8]{0} custom-call(), custom_call_target="AllocateBuffer"',
      '%y = bf16[8]{0} custom-call(%x), custom_call_target="tpu_custom_call"',
      '%z = bf16[8]{0} custom-call(%y), custom_call_target="tpu_custom_call"',
    )
    self.assertEqual(
      costs.kernels(module, execution.count(module)), {'tpu_custom_call': 2}
    )


def brute_force(size, stride, pad, lhs_dilate, rhs_dilate, inputs, outputs):
  places = set(range(0, inputs * lhs_dilate, lhs_dilate))
  return sum(
    (o * stride + k * rhs_dilate - pad) in places
    for o in range(outputs)
    for k in range(size)
  )


class ConvolutionTest(parameterized.TestCase):
  @parameterized.parameters(
    *itertools.product((1, 3, 8), (1, 2, 3), (-1, 0, 7), (1, 2, 3), (1, 2))
  )
  def test_window(self, size, stride, pad, lhs_dilate, rhs_dilate):
    module = programs.wrap(
      '%x = f32[1,9,1]{2,1,0} parameter(0)',
      f'%k = f32[{size},1,1]{{2,1,0}} parameter(1)',
      '%c = f32[1,11,1]{2,1,0} convolution(%x, %k), '
      f'window={{size={size} stride={stride} pad={pad}_4 '
      f'lhs_dilate={lhs_dilate} rhs_dilate={rhs_dilate}}}, '
      'dim_labels=b0f_0io->b0f',
    )
    found = convolution.convolution_flops(
      module['main']['c'], (1, 9, 1), (size, 1, 1)
    )
    expected = brute_force(size, stride, pad, lhs_dilate, rhs_dilate, 9, 11)
    self.assertEqual(found, 2 * expected)

  def test_products_of_tpus(self):
    """30 heads of 64, each from the whole width: lines of libtpu 0.0.42."""
    module = programs.wrap(
      '%x = bf16[1792,1,1920]{2,1,0} parameter(0)',
      '%w = bf16[30,64,1920]{2,1,0} parameter(1)',
      '%c = bf16[1792,30,64]{2,0,1:T(8,128)(2,1)} convolution(%x, %w), '
      'window={size=30 pad=29_29 rhs_reversal=1}, dim_labels=b0f_0oi->b0f',
    )
    self.assertEqual(flops_of(module), 2 * 1792 * 1920 * 30 * 64)

  @parameterized.parameters('convForward', 'convBiasActivationForward')
  def test_convolutions_of_cudnn(self, name):
    """They are counted, as those that XLA computes itself."""
    lines = (
      '%x = bf16[2,28,28,3]{3,2,1,0} parameter(0)',
      '%w = bf16[5,14,14,3]{3,2,1,0} parameter(1)',
      '%b = bf16[5]{0} parameter(2)',
      '%y = (bf16[2,2,2,5]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w, %b), '
      'window={size=14x14 stride=14x14}, dim_labels=b01f_o01i->b01f, '
      f'custom_call_target="__cudnn${name}"',
    )
    module = programs.wrap(*lines)
    self.assertEqual(flops_of(module), 2 * (2 * 2 * 2 * 5) * (14 * 14 * 3))
    self.assertEqual(costs.kernels(module, execution.count(module)), {})


class TrafficTest(parameterized.TestCase):
  @parameterized.parameters(
    (lambda x, y: jnp.sin(x) * 2.0 + y, 3),
    (lambda x, y: x @ y, 3),
    (lambda x, y: jnp.sum(x * y, axis=0), 2 + 1 / 64),
  )
  def test_straight(self, function, arrays):
    args = (jnp.zeros((64, 64)), jnp.zeros((64, 64)))
    compiled = programs.compiled(function, *args)
    found = traffic_of(hlo.parse(compiled.as_text()))
    expected = arrays * 64 * 64 * 4
    np.testing.assert_allclose(found, expected, rtol=0.01)
    np.testing.assert_allclose(
      found, compiled.cost_analysis()['bytes accessed'], rtol=0.01
    )

  def test_loop_reads_its_slice(self):
    """Of stacked weights an iteration reads its own slice, not all."""

    def function(x, w):
      return lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    one = 64 * 64 * 4
    found = [
      traffic_of(
        programs.module_of(
          function, jnp.zeros((64, 64)), jnp.zeros((length, 64, 64))
        )
      )
      for length in (4, 8)
    ]
    # An iteration slices w (2), multiplies (3) and copies x (2).
    np.testing.assert_allclose(found[1] - found[0], 4 * 7 * one, rtol=0.01)

  def test_loop_writes_its_slice(self):
    def function(x):
      return lax.scan(lambda x, _: (jnp.sin(x), x), x, length=16)[1]

    one = 64 * 64 * 4
    found = traffic_of(programs.module_of(function, jnp.zeros((64, 64))))
    # The full stacks in each iteration would be 16 * 16 arrays.
    self.assertLess(found, 16 * 8 * one)
    self.assertGreater(found, 16 * 2 * one)

  @parameterized.parameters(False, True)
  def test_scatter_in_place(self, is_fused):
    """Only the updates are moved, not the updated arrays."""
    arrays = (
      '%x = f32[40,512]{1,0} parameter(0)',
      '%i = s32[3,1]{1,0} parameter(1)',
      '%u = f32[3,512]{1,0} parameter(2)',
    )
    scatter = '%s = f32[40,512]{1,0} scatter(%x, %i, %u), to_apply=%last'
    if is_fused:
      inside = ''.join(f'  {line}\n' for line in (*arrays, f'ROOT {scatter}'))
      module = programs.wrap(
        *arrays,
        '%f = f32[40,512]{1,0} fusion(%x, %i, %u), kind=kInput, calls=%put',
        before=f'%put (x: f32[40,512]) -> f32[40,512] {{\n{inside}}}\n',
      )
    else:
      module = programs.wrap(*arrays, scatter)
    new = 3 * 512 * 4
    # A fusion reads the indices too, which are negligible.
    self.assertAlmostEqual(traffic_of(module), 2 * new, delta=12)

  def test_memory_of_tpus(self):
    """Values in a TPU's fast memory cause no HBM traffic."""
    lines = (
      '%x = f32[64]{0:T(128)} parameter(0)',
      '%s = (f32[64]{0:T(128)S(1)}, f32[64]{0:T(128)}, u32[]{:S(2)}) '
      'copy-start(%x)',
      '%d = f32[64]{0:T(128)S(1)} copy-done(%s)',
      '%y = f32[64]{0:T(128)} negate(%d)',
    )
    self.assertEqual(traffic_of(programs.wrap(*lines)), 256 + 256)
    gpu = [line.replace(':T(128)', '') for line in lines]
    self.assertEqual(traffic_of(programs.wrap(*gpu)), 4 * 256)
