"""Executions of the computations of a program."""

import re

from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp

from lift_jax.planning import execution, hlo
from tests.planning import programs


def dot_runs(module: hlo.Module) -> list[int]:
  """Executions of each matrix product."""
  times = execution.count(module).times
  return sorted(
    count
    for name, count in times.items()
    for instruction in module[name]
    if instruction.opcode == 'dot'
  )


def without_trip_counts(text: str) -> hlo.Module:
  """As on TPUs, where loops have no trip count attribute."""
  stripped, found = re.subn(r'"known_trip_count":\{"n":"\d+"\}', '"x":1', text)
  assert found
  return hlo.parse(stripped)


def nested(x, weights):
  def outer(x, w):
    x, _ = lax.scan(lambda x, _: (jnp.sin(x @ w), None), x, length=5)
    return jnp.cos(w @ x), None

  return lax.scan(outer, x, weights)[0]


def from_to(start, limit, step):
  def function(x):
    state = lax.while_loop(
      lambda s: s[0] < limit if step > 0 else s[0] > limit,
      lambda s: (s[0] + step, jnp.sin(s[1] @ s[1])),
      (jnp.int32(start), x),
    )
    return state[1]

  return function


class CountTest(parameterized.TestCase):
  @parameterized.parameters(hlo.parse, without_trip_counts)
  def test_nested_scans(self, parse):
    args = (jnp.zeros((8, 8)), jnp.zeros((3, 8, 8)))
    module = parse(programs.compiled(nested, *args).as_text())
    self.assertEqual(dot_runs(module), [3, 15])
    self.assertEmpty(execution.count(module).uncertain)

  @parameterized.parameters(
    (0, 7, 1, 7), (2, 9, 3, 3), (2, 8, 3, 2), (9, 2, -2, 4), (5, 5, 1, 0)
  )
  def test_counting_loops(self, start, limit, step, expected):
    text = programs.compiled(
      from_to(start, limit, step), jnp.zeros((8, 8))
    ).as_text()
    if expected:
      self.assertEqual(dot_runs(without_trip_counts(text)), [expected])
    self.assertEqual(dot_runs(hlo.parse(text)), [expected] * ('dot(' in text))

  def test_gradient(self):
    def loss(w, x):
      return jnp.sum(lax.scan(lambda x, w: (jnp.sin(x @ w), None), x, w)[0])

    text = programs.compiled(
      jax.grad(loss), jnp.zeros((6, 8, 8)), jnp.zeros((8, 8))
    ).as_text()
    self.assertEqual(dot_runs(without_trip_counts(text)), [6, 6, 6])

  def test_unknown_length(self):
    def function(x):
      return lax.while_loop(lambda x: x.sum() < 9.0, lambda x: x @ x, x)

    module = programs.module_of(function, jnp.ones((8, 8)))
    found = execution.count(module)
    self.assertEqual(dot_runs(module), [1])
    uncertain = {i.opcode for name in found.uncertain for i in module[name]}
    self.assertIn('dot', uncertain)

  def test_branches(self):
    def function(x, n):
      return lax.cond(n > 0, lambda x: x @ x, lambda x: jnp.sin(x) @ x, x)

    module = programs.module_of(function, jnp.ones((8, 8)), 1)
    self.assertEqual(dot_runs(module), [1, 1])

  def test_fusions(self):
    module = programs.module_of(
      lambda x: jnp.sin(x) * 2.0 + jnp.cos(x), jnp.ones(8)
    )
    found = execution.count(module)
    fused = {i.opcode for name in found.fused for i in module[name]}
    self.assertIn('sine', fused)
    self.assertNotIn(module.entry, found.fused)


# From a collective matrix product of libtpu 0.0.42: the limit of the inner loop
# and the step reach it through the state of the outer.
WINDOWED = """
%inner_cond (p.1: (u32[], u32[], u32[])) -> pred[] {
  %p.1 = (u32[]{:T(128)}, u32[]{:T(128)}, u32[]{:T(128)}) parameter(0)
  %i.1 = u32[]{:T(128)} get-tuple-element(%p.1), index=0
  %limit.1 = u32[]{:T(128)} get-tuple-element(%p.1), index=1
  ROOT %lt.1 = pred[]{:T(512)} compare(%i.1, %limit.1), direction=DIRECTION
}

%inner_body (p.2: (u32[], u32[], u32[])) -> (u32[], u32[], u32[]) {
  %p.2 = (u32[]{:T(128)}, u32[]{:T(128)}, u32[]{:T(128)}) parameter(0)
  %i.2 = u32[]{:T(128)} get-tuple-element(%p.2), index=0
  %step.2 = u32[]{:T(128)} get-tuple-element(%p.2), index=2
  %next.2 = u32[]{:T(128)} add(%i.2, %step.2)
  %limit.2 = u32[]{:T(128)} get-tuple-element(%p.2), index=1
  %limit.copy = u32[]{:T(128)S(6)} copy(%limit.2)
  ROOT %t.2 = (u32[], u32[], u32[]) tuple(%next.2, %limit.copy, %step.2)
}

%outer_cond (p.3: (s32[], u32[])) -> pred[] {
  %five = s32[] constant(5)
  %p.3 = (s32[], u32[]) parameter(0)
  %i.3 = s32[] get-tuple-element(%p.3), index=0
  ROOT %gt.3 = pred[] compare(%five, %i.3), direction=GT
}

%outer_body (p.4: (s32[], u32[])) -> (s32[], u32[]) {
  %p.4 = (s32[], u32[]) parameter(0)
  %i.4 = s32[] get-tuple-element(%p.4), index=0
  %one = s32[] constant(1)
  %next.4 = s32[] add(%one, %i.4)
  %limit.4 = u32[] get-tuple-element(%p.4), index=1
  %two = u32[] constant(2)
  %zero = u32[] constant(0)
  %t.4 = (u32[], u32[], u32[]) tuple(%zero, %limit.4, %two)
  %inner = (u32[], u32[], u32[]) while(%t.4),
    condition=%inner_cond, body=%inner_body
  %after = u32[] get-tuple-element(%inner), index=1
  ROOT %t.5 = (s32[], u32[]) tuple(%next.4, %after)
}
"""


class TpuLoopTest(parameterized.TestCase):
  @parameterized.parameters(('LT', 4), ('LE', 5), ('NE', 4))
  def test_limits_from_outside(self, direction, turns):
    module = programs.wrap(
      '%start = s32[] constant(0)',
      '%eight = u32[] constant(8)',
      '%t.6 = (s32[], u32[]) tuple(%start, %eight)',
      '%outer = (s32[], u32[]) while(%t.6), condition=%outer_cond, '
      'body=%outer_body',
      before=WINDOWED.replace('DIRECTION', direction),
    )
    found = execution.count(module)
    self.assertEqual(found.times['outer_body'], 5)
    self.assertEqual(found.times['outer_cond'], 6)
    self.assertEqual(found.times['inner_body'], 5 * turns)
    self.assertEmpty(found.uncertain)

  def test_start_unknown(self):
    module = programs.wrap(
      '%start = s32[] parameter(0)',
      '%eight = u32[] constant(8)',
      '%t.6 = (s32[], u32[]) tuple(%start, %eight)',
      '%outer = (s32[], u32[]) while(%t.6), condition=%outer_cond, '
      'body=%outer_body',
      before=WINDOWED.replace('DIRECTION', 'LT'),
    )
    found = execution.count(module)
    self.assertEqual(found.times['inner_body'], 4)
    self.assertEqual(
      found.uncertain, {'outer_body', 'outer_cond', 'inner_body', 'inner_cond'}
    )
