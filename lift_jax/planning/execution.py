"""How often each computation of a program runs.

A computation runs once for each time that its caller runs, and the body of a
loop once for each turn. How many turns there are stands beside the loop on
CPUs and GPUs; on TPUs it has to be found: the loop counts from a constant, by
a constant, to a constant.
"""

import collections
from collections.abc import Callable
import dataclasses
import re

from lift_jax.planning.hlo import Computation, Instruction, Module

# An integer while a loop is examined: (element of the loop's state, offset),
# the element None where the number is known.
_Number = tuple[int | None, int]
# What a computation is given: the number in (parameter, element of the tuple
# or None).
_Given = Callable[[int, int | None], _Number | None]

_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# What leaves an integer as it is.
_SAME = frozenset(
  (
    'bitcast',
    'convert',
    'copy',
    'copy-done',
    'copy-start',
    'optimization-barrier',
    'reshape',
  )
)
_MIRRORED = {'LT': 'GT', 'GT': 'LT', 'LE': 'GE', 'GE': 'LE', 'NE': 'NE'}


@dataclasses.dataclass
class Executions:
  """What runs how often in one call of a program.

  Attributes:
    times: of each computation that runs; of all branches of a conditional, as
      if each were taken.
    uncertain: those within loops of unknown length, whose turns count once.
    fused: those whose values stay within the kernel of a fusion.
  """

  times: dict[str, int]
  uncertain: set[str]
  fused: set[str]


def count(module: Module) -> Executions:
  """Counts from the entry on."""
  result = Executions(collections.defaultdict(int), set(), set())
  _visit(module, module.entry, 1, False, False, lambda *_: None, result)
  return result


def _visit(
  module: Module,
  name: str,
  times: int,
  is_uncertain: bool,
  is_fused: bool,
  given: _Given,
  result: Executions,
) -> None:
  computation = module[name]
  result.times[name] += times
  if is_uncertain:
    result.uncertain.add(name)
  if is_fused:
    result.fused.add(name)
  for instruction in computation:
    if instruction.opcode == 'while':
      loop = _Loop(module, computation, instruction, given)
      trips = loop.trips()
      unknown = is_uncertain or trips is None
      # The condition is asked once more than it holds.
      turns, asked = (1, 1) if trips is None else (trips, trips + 1)
      for part, runs in ((loop.body, turns), (loop.condition, asked)):
        _visit(
          module,
          part.name,
          times * runs,
          unknown,
          is_fused,
          loop.given,
          result,
        )
      continue
    fused = is_fused or instruction.opcode == 'fusion'
    for called in instruction.called():
      _visit(
        module, called, times, is_uncertain, fused, lambda *_: None, result
      )


class _Loop:
  """A `while`, whose state is a tuple."""

  def __init__(
    self,
    module: Module,
    caller: Computation,
    instruction: Instruction,
    given: _Given,
  ):
    self.body = module[instruction.attribute('body')]
    self.condition = module[instruction.attribute('condition')]
    self._module = module
    self._caller = caller
    self._instruction = instruction
    self._outside = given

  def start(self, element: int) -> _Number | None:
    """The element of the state before the first turn."""
    operand = self._instruction.operands[0]
    return _element(self._module, self._caller, operand, element, self._outside)

  def given(self, _: int, element: int | None) -> _Number | None:
    """What a turn is given: known if no turn changes it, or itself."""
    if element is None:
      return None
    if _unchanged(self._module, self.body, element):
      start = self.start(element)
      if start is not None and start[0] is None:
        return start
    return (element, 0)

  def trips(self) -> int | None:
    known = _KNOWN_TRIPS.search(self._instruction.attributes)
    if known:
      return int(known[1])
    compared = _comparison(
      self._module, self.condition, self.condition.root, self.given
    )
    if compared is None:
      return None
    left, right, direction = compared
    if left[0] is None:
      left, right, direction = right, left, _MIRRORED.get(direction)
    if left[0] is None or right[0] is not None:
      return None
    counter, offset = left
    start = self.start(counter)
    after = _element(
      self._module, self.body, self.body.root.name, counter, self.given
    )
    if start is None or start[0] is not None:
      return None
    if after is None or after[0] != counter:
      return None
    return _turns(start[1] + offset, right[1], after[1], direction)


def _turns(start: int, limit: int, step: int, direction: str) -> int | None:
  """Turns of `for (i = start; i DIRECTION limit; i += step)`."""
  if direction in ('GT', 'GE'):
    start, limit, step = -start, -limit, -step
    direction = _MIRRORED[direction]
  if direction == 'LE':
    limit, direction = limit + 1, 'LT'
  if direction == 'LT' and step > 0:
    return max(0, -((start - limit) // step))
  if direction == 'NE' and step and not (limit - start) % step:
    turns = (limit - start) // step
    return turns if turns >= 0 else None
  return None


def _unchanged(module: Module, body: Computation, element: int) -> bool:
  after = _element(
    module, body, body.root.name, element, lambda _, index: (index, 0)
  )
  return after == (element, 0)


def _element(
  module: Module,
  computation: Computation,
  name: str,
  element: int,
  given: _Given,
) -> _Number | None:
  """The integer that is an element of a tuple, if it can be told."""
  source = computation[name]
  while source.opcode in _SAME:
    source = computation.operand(source)
  if source.opcode == 'parameter':
    return given(int(source.literal), element)
  if source.opcode == 'tuple':
    return _number(module, computation, source.operands[element], given)
  if source.opcode == 'while':
    loop = _Loop(module, computation, source, given)
    if _unchanged(module, loop.body, element):
      return loop.start(element)
  return None


def _number(
  module: Module, computation: Computation, name: str, given: _Given
) -> _Number | None:
  """An integer, if it can be told."""
  instruction = computation[name]
  opcode = instruction.opcode

  def operand(index):
    return _number(module, computation, instruction.operands[index], given)

  if opcode == 'constant':
    is_integer = re.fullmatch(r'-?\d+', instruction.literal)
    return (None, int(instruction.literal)) if is_integer else None
  if opcode == 'parameter':
    return given(int(instruction.literal), None)
  if opcode in _SAME:
    return operand(0)
  if opcode == 'get-tuple-element':
    element = int(instruction.attribute('index'))
    source = instruction.operands[0]
    return _element(module, computation, source, element, given)
  if opcode in ('add', 'subtract'):
    return _sum(operand(0), operand(1), 1 if opcode == 'add' else -1)
  if opcode == 'fusion':
    fused = module[instruction.called()[0]]
    inner = _of_fusion(operand)
    return _number(module, fused, fused.root.name, inner)
  return None


def _of_fusion(operand: Callable[[int], _Number | None]) -> _Given:
  return lambda index, element: operand(index) if element is None else None


def _sum(left, right, sign: int) -> _Number | None:
  if left is None or right is None:
    return None
  if right[0] is None:
    return (left[0], left[1] + sign * right[1])
  if left[0] is None and sign == 1:
    return (right[0], left[1] + right[1])
  return None


def _comparison(
  module: Module,
  computation: Computation,
  instruction: Instruction,
  given: _Given,
) -> tuple[_Number, _Number, str] | None:
  """(left, right, direction) of the comparison that ends a loop."""
  while instruction.opcode in _SAME:
    instruction = computation.operand(instruction)

  def operand(index):
    return _number(module, computation, instruction.operands[index], given)

  if instruction.opcode == 'fusion':
    fused = module[instruction.called()[0]]
    return _comparison(module, fused, fused.root, _of_fusion(operand))
  if instruction.opcode != 'compare':
    return None
  left, right = operand(0), operand(1)
  if left is None or right is None:
    return None
  return left, right, instruction.attribute('direction')
