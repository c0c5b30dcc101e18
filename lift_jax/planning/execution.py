"""Number of executions of each computation of a program.

A computation runs once per execution of its caller, the body of a loop once per
iteration. For CPUs and GPUs the trip count is an attribute of the loop; for
TPUs it must be derived: the loop counts from a constant, by a constant, to a
constant.
"""

import collections
from collections.abc import Callable
import dataclasses
import re

from lift_jax.planning.hlo import Computation, Instruction, Module

# A symbolic integer in a loop: (element of the loop's state or None, offset); a
# constant if the element is None.
_Number = tuple[int | None, int]
# Arguments of a computation: (parameter, tuple element or None) to its value.
_Arguments = Callable[[int, int | None], _Number | None]

_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# Opcodes that do not change an integer.
_IDENTITY = frozenset(
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
  """Executions in one run of a program, by computation.

  Attributes:
    times: number of executions; all branches of a conditional count as taken.
    uncertain: computations in loops of unknown trip count, which count once.
    fused: computations whose values stay within the kernel of a fusion.
  """

  times: dict[str, int]
  uncertain: set[str]
  fused: set[str]


def count(module: Module) -> Executions:
  """Counts the executions, starting from the entry computation."""
  result = Executions(collections.defaultdict(int), set(), set())
  _visit(module, module.entry, 1, False, False, lambda *_: None, result)
  return result


def _visit(
  module: Module,
  name: str,
  times: int,
  is_uncertain: bool,
  is_fused: bool,
  arguments: _Arguments,
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
      loop = _Loop(module, computation, instruction, arguments)
      trips = loop.trips()
      unknown = is_uncertain or trips is None
      # The condition is evaluated once more than the body.
      body_runs, condition_runs = 1, 1
      if trips is not None:
        body_runs, condition_runs = trips, trips + 1
      for part, runs in (
        (loop.body, body_runs),
        (loop.condition, condition_runs),
      ):
        _visit(
          module,
          part.name,
          times * runs,
          unknown,
          is_fused,
          loop.arguments,
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
    arguments: _Arguments,
  ):
    self.body = module[instruction.required('body')]
    self.condition = module[instruction.required('condition')]
    self._module = module
    self._caller = caller
    self._instruction = instruction
    self._outer_arguments = arguments

  def start(self, element: int) -> _Number | None:
    """The initial value of an element of the state."""
    operand = self._instruction.operands[0]
    return _element(
      self._module, self._caller, operand, element, self._outer_arguments
    )

  def arguments(self, _: int, element: int | None) -> _Number | None:
    """State of an iteration: constant if loop-invariant, else symbolic."""
    if element is None:
      return None
    if _unchanged(self._module, self.body, element):
      start = self.start(element)
      if start is not None and start[0] is None:
        return start
    return (element, 0)

  def trips(self) -> int | None:
    """The trip count, or None if unknown."""
    known = _KNOWN_TRIPS.search(self._instruction.attributes)
    if known:
      return int(known[1])
    compared = _comparison(
      self._module, self.condition, self.condition.root, self.arguments
    )
    if compared is None:
      return None
    left, right, direction = compared
    if left[0] is None:
      left, right, direction = right, left, _MIRRORED.get(direction, direction)
    counter, offset = left
    if counter is None or right[0] is not None:
      return None
    start = self.start(counter)
    after = _element(
      self._module, self.body, self.body.root.name, counter, self.arguments
    )
    if start is None or start[0] is not None:
      return None
    if after is None or after[0] != counter:
      return None
    return _trip_count(start[1] + offset, right[1], after[1], direction)


def _trip_count(
  start: int, limit: int, step: int, direction: str
) -> int | None:
  """Iterations of `for (i = start; i DIRECTION limit; i += step)`."""
  if direction in ('GT', 'GE'):
    start, limit, step = -start, -limit, -step
    direction = _MIRRORED[direction]
  if direction == 'LE':
    limit, direction = limit + 1, 'LT'
  if direction == 'LT' and step > 0:
    return max(0, -((start - limit) // step))
  if direction == 'NE' and step and not (limit - start) % step:
    trips = (limit - start) // step
    return trips if trips >= 0 else None
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
  arguments: _Arguments,
) -> _Number | None:
  """The integer in an element of a tuple, or None if it cannot be derived."""
  source = computation[name]
  while source.opcode in _IDENTITY:
    source = computation.operand(source)
  if source.opcode == 'parameter':
    return arguments(int(source.literal), element)
  if source.opcode == 'tuple':
    return _number(module, computation, source.operands[element], arguments)
  if source.opcode == 'while':
    loop = _Loop(module, computation, source, arguments)
    if _unchanged(module, loop.body, element):
      return loop.start(element)
  return None


def _number(
  module: Module, computation: Computation, name: str, arguments: _Arguments
) -> _Number | None:
  """The value of an integer, or None if it cannot be derived."""
  instruction = computation[name]
  opcode = instruction.opcode

  def operand(index):
    return _number(module, computation, instruction.operands[index], arguments)

  if opcode == 'constant':
    is_integer = re.fullmatch(r'-?\d+', instruction.literal)
    return (None, int(instruction.literal)) if is_integer else None
  if opcode == 'parameter':
    return arguments(int(instruction.literal), None)
  if opcode in _IDENTITY:
    return operand(0)
  if opcode == 'get-tuple-element':
    element = int(instruction.required('index'))
    source = instruction.operands[0]
    return _element(module, computation, source, element, arguments)
  if opcode in ('add', 'subtract'):
    return _sum(operand(0), operand(1), 1 if opcode == 'add' else -1)
  if opcode == 'fusion':
    fused = module[instruction.called()[0]]
    inner = _fusion_arguments(operand)
    return _number(module, fused, fused.root.name, inner)
  return None


def _fusion_arguments(operand: Callable[[int], _Number | None]) -> _Arguments:
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
  arguments: _Arguments,
) -> tuple[_Number, _Number, str] | None:
  """(left, right, direction) of the comparison that ends a loop."""
  while instruction.opcode in _IDENTITY:
    instruction = computation.operand(instruction)

  def operand(index):
    return _number(module, computation, instruction.operands[index], arguments)

  if instruction.opcode == 'fusion':
    fused = module[instruction.called()[0]]
    return _comparison(module, fused, fused.root, _fusion_arguments(operand))
  if instruction.opcode != 'compare':
    return None
  left, right = operand(0), operand(1)
  if left is None or right is None:
    return None
  return left, right, instruction.required('direction')
