"""HLO parser, on excerpts of real programs."""

from absl.testing import parameterized
import jax.numpy as jnp

from lift_jax.planning import hlo
from tests.planning import programs

# As libtpu 0.0.42 writes a kernel: its metadata contains line breaks.
TPU = """HloModule jit_step, is_scheduled=true, num_partitions=4

%add.1.clone (x.5: bf16[], y.3: bf16[]) -> bf16[] {
  %x.5 = bf16[]{:T(256)} parameter(0)
  %y.3 = bf16[]{:T(256)} parameter(1)
  ROOT %add.9 = bf16[]{:T(256)} add(%x.5, %y.3), metadata={op_name="a(b"}
}, execution_thread="sparse"

ENTRY %main.6_spmd (param.4: f32[3,256,4096]) -> (f32[3,256], f32[]) {
  %param.4 = f32[3,256,4096]{2,1,0:T(8,128)} parameter(0),
    sharding={devices=[1,4,1]<=[4]}
  %copy-start.3 = (bf16[40,16]{1,0:T(8,128)(2,1)S(1)},
    bf16[40,16]{1,0:T(8,128)(2,1)}, /*index=2*/u32[]{:S(2)})
    copy-start(%param.4)
  %kernel.2 = (f32[512,128]{1,0:T(8,128)}, s4[30,17]{1,0}) custom-call(%param.4,
    /*index=1*/%copy-start.3), custom_call_target="tpu_custom_call",
    frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 512}"
}}, metadata={op_name="jit(step)/while"}, backend_config={"flag_configs":[]}
  ROOT %tuple.1 = (f32[3,256]{1,0:T(8,128)}, f32[]{:T(128)}) tuple(%kernel.2,
    %param.4)
}
"""


class ParseTest(parameterized.TestCase):
  def test_tpu(self):
    module = hlo.parse(TPU)
    self.assertEqual(module.entry, 'main.6_spmd')
    self.assertEqual(module.num_partitions, 4)
    self.assertTrue(module.is_tiled)
    main = module[module.entry]
    self.assertEqual(
      [i.opcode for i in main],
      ['parameter', 'copy-start', 'custom-call', 'tuple'],
    )
    self.assertEqual(main.root.name, 'tuple.1')
    self.assertEqual(main['kernel.2'].operands, ('param.4', 'copy-start.3'))
    self.assertIn('jit(step)/while', main['kernel.2'].attributes)
    self.assertEqual(
      main['copy-start.3'].arrays,
      (
        hlo.Array('bf16', (40, 16), 1),
        hlo.Array('bf16', (40, 16), 0),
        hlo.Array('u32', (), 2),
      ),
    )
    self.assertEqual(module['add.1.clone'].root.operands, ('x.5', 'y.3'))

  def test_cpu(self):
    module = programs.module_of(
      lambda x, y: jnp.sin(x) @ y + 1.0, *[jnp.zeros((4, 4))] * 2
    )
    main = module[module.entry]
    self.assertFalse(module.is_tiled)
    self.assertLen(main.parameters(), 2)
    self.assertEqual(main.root.arrays, (hlo.Array('f32', (4, 4)),))

  def test_no_entry(self):
    with self.assertRaisesRegex(ValueError, 'no entry'):
      hlo.parse('HloModule empty')

  @parameterized.parameters(
    ('f32[2,3]{1,0}', 24),
    ('bf16[4]', 8),
    ('pred[5]', 5),
    ('s4[3]{0}', 2),
    ('f8e4m3fn[7]', 7),
    ('c64[2]', 16),
    ('token[]', 0),
    ('(f32[], (s8[3], u64[2]))', 23),
  )
  def test_bytes(self, text, expected):
    arrays = hlo.parse_arrays(text)
    self.assertEqual(sum(array.bytes for array in arrays), expected)


class InstructionTest(parameterized.TestCase):
  def test_attributes(self):
    module = programs.wrap(
      '%a = f32[2,3]{1,0} parameter(0)',
      '%d = f32[2,2]{1,0} dot(%a, %a), lhs_contracting_dims={1}, '
      'rhs_contracting_dims={1}, dim_labels=bf_oi->bf, calls=%other.1',
    )
    dot = module['main']['d']
    self.assertEqual(dot.numbers('lhs_contracting_dims'), (1,))
    self.assertEqual(dot.numbers('lhs_batch_dims'), ())
    self.assertEqual(dot.attribute('dim_labels'), 'bf_oi->bf')
    self.assertEqual(dot.attribute('calls'), 'other.1')
    self.assertIsNone(dot.attribute('body'))
    self.assertEqual(dot.required('calls'), 'other.1')
    with self.assertRaisesRegex(ValueError, 'HLO: d has no body'):
      dot.required('body')

  @parameterized.parameters(
    ('fusion(%a), kind=kLoop, calls=%f.1', ('f.1',)),
    ('call(%a), to_apply=%f.1', ('f.1',)),
    ('reduce(%a, %a), dimensions={0}, to_apply=%f.1', ()),
    ('async-start(%a), calls=%f.1', ('f.1',)),
    ('async-done(%a), calls=%f.1', ()),
    ('conditional(%a, %a), branch_computations={%f.1, %g}', ('f.1', 'g')),
    (
      'conditional(%a, %a), true_computation=%f.1, false_computation=%g',
      ('f.1', 'g'),
    ),
    ('custom-call(%a), custom_call_target="x"', ()),
  )
  def test_called(self, text, expected):
    module = programs.wrap('%a = f32[] parameter(0)', f'%b = f32[] {text}')
    self.assertEqual(module['main']['b'].called(), expected)
