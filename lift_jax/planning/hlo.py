"""Parser of compiled programs, the HLO text of `compiled.as_text()`.

After partitioning the program is that of one device: shapes are those of its
shards, and partition p of a group is device p of the mesh, in order.

A module is a list of computations, one of them the entry; a computation is a
list of instructions:

  %dot.1 = bf16[64,32]{1,0} dot(%x, %w), lhs_contracting_dims={1}, ...

Operands are named without their types, which are where they are defined.
"""

from collections.abc import Mapping
import dataclasses
import math
import re

_ARRAY = re.compile(r'([a-z][a-z0-9]*)\[([\d,<=]*)\](?:\{([^}]*)\})?')
_NAME = re.compile(r'%([\w.\-]+)')
_HEAD = re.compile(r'(ENTRY )?%([\w.\-]+) \(.*\) -> .* \{')
_END = re.compile(r'\}(, execution_thread=.*)?')
_INSTRUCTION = re.compile(r'\s+(ROOT )?%([\w.\-]+) = ')
_SPACE = re.compile(r'S\((\d+)\)')
# Types whose name is not their number of bits.
_BITS = {'pred': 8, 'token': 0, 'opaque': 0}


@dataclasses.dataclass(frozen=True)
class Array:
  """An array type; `space` is its memory space, 0 for main memory."""

  dtype: str
  dims: tuple[int, ...]
  space: int = 0

  @property
  def size(self) -> int:
    return math.prod(self.dims)

  @property
  def bytes(self) -> int:
    bits = _BITS.get(self.dtype)
    if bits is None:
      bits = int(re.findall(r'\d+', self.dtype)[0])
    return (self.size * bits + 7) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction.

  Attributes:
    name: unique in the module.
    opcode: such as 'dot' or 'all-gather-start'.
    arrays: types of its value, tuples flattened.
    operands: names, all in the same computation.
    literal: the text in parentheses, for constants and parameters.
    attributes: the text after the parentheses.
  """

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  literal: str
  attributes: str

  @property
  def bytes(self) -> int:
    return sum(array.bytes for array in self.arrays)

  def attribute(self, key: str) -> str | None:
    """The value of `key=`, which is a word, a name or a braced list."""
    pattern = rf'\b{key}=(?:%([\w.\-]+)|(\{{[^}}]*\}})|([\w.\->]+))'
    match = re.search(pattern, self.attributes)
    return match and (match[1] or match[2] or match[3])

  def required(self, key: str) -> str:
    """An attribute that instructions of this opcode always have.

    Raises:
      ValueError: this one does not.
    """
    value = self.attribute(key)
    if value is None:
      raise ValueError(f'HLO: {self.name} has no {key}')
    return value

  def numbers(self, key: str) -> tuple[int, ...]:
    """The list of `key={1,2}`, empty if missing."""
    value = self.attribute(key) or ''
    return tuple(int(number) for number in re.findall(r'\d+', value))

  def called(self) -> tuple[str, ...]:
    """Computations that a fusion, call or conditional runs once."""
    if self.opcode == 'conditional':
      branches = re.search(
        r'branch_computations=\{([^}]*)\}', self.attributes
      ) or re.search(
        r'(true_computation=%\S+, false_computation=%\S+)', self.attributes
      )
      return tuple(_NAME.findall(branches[1])) if branches else ()
    # `to_apply` of a reduction is a scalar function, not counted.
    key = 'to_apply' if self.opcode == 'call' else 'calls'
    if self.opcode in ('call', 'fusion', 'async-start', 'custom-call'):
      name = self.attribute(key)
      return (name,) if name else ()
    return ()


@dataclasses.dataclass(frozen=True)
class Computation:
  """Instructions by name, in order; the root's value is returned."""

  name: str
  instructions: Mapping[str, Instruction]
  root: Instruction

  def __getitem__(self, name: str) -> Instruction:
    return self.instructions[name]

  def __iter__(self):
    return iter(self.instructions.values())

  def parameters(self) -> list[Instruction]:
    found = [i for i in self if i.opcode == 'parameter']
    return sorted(found, key=lambda i: int(i.literal))

  def operand(self, instruction: Instruction, index: int = 0) -> Instruction:
    return self[instruction.operands[index]]

  def users(self, name: str) -> list[Instruction]:
    return [i for i in self if name in i.operands]


@dataclasses.dataclass(frozen=True)
class Module:
  """A program.

  Attributes:
    computations: by name.
    entry: name of the entry computation.
    num_partitions: devices of the program; those of one slice if TPU slices are
      connected by the data center network.
    is_tiled: whether layouts are tiled, as on TPUs only.
  """

  computations: Mapping[str, Computation]
  entry: str
  num_partitions: int
  is_tiled: bool

  def __getitem__(self, name: str) -> Computation:
    return self.computations[name]


def _closing(text: str, start: int) -> int:
  """Index of the parenthesis that closes the one at `start`."""
  depth = 0
  for match in re.compile(r'[()]').finditer(text, start):
    depth += 1 if match[0] == '(' else -1
    if not depth:
      return match.start()
  raise ValueError(f'HLO: no closing parenthesis in {text[start : start + 80]}')


def parse_arrays(text: str) -> tuple[Array, ...]:
  """The arrays of a type, tuples flattened."""
  arrays = []
  for dtype, dims, layout in _ARRAY.findall(text):
    space = _SPACE.search(layout)
    sizes = tuple(int(dim) for dim in re.findall(r'\d+', dims))
    arrays.append(Array(dtype, sizes, int(space[1]) if space else 0))
  return tuple(arrays)


def _parse_instruction(line: str) -> tuple[Instruction, bool]:
  """An instruction, and whether it is the root."""
  head = _INSTRUCTION.match(line)
  if head is None:
    raise ValueError(f'HLO: no instruction in {line[:80]}')
  start = head.end()
  if line[start] == '(':
    type_end = _closing(line, start) + 1
  else:
    type_end = line.index(' ', start)
  opening = line.index('(', type_end)
  closing = _closing(line, opening)
  literal = line[opening + 1 : closing]
  instruction = Instruction(
    name=head[2],
    opcode=line[type_end:opening].strip(),
    arrays=parse_arrays(line[start:type_end]),
    operands=tuple(_NAME.findall(literal)),
    literal=literal,
    attributes=line[closing + 1 :],
  )
  return instruction, head[1] is not None


def _parse_computation(name: str, lines: list[str]) -> Computation:
  # Metadata of kernels may contain line breaks.
  joined = []
  for line in lines:
    if _INSTRUCTION.match(line):
      joined.append(line)
    elif joined:
      joined[-1] += line
  parsed = [_parse_instruction(line) for line in joined]
  root = next(instruction for instruction, is_root in parsed if is_root)
  return Computation(name, {i.name: i for i, _ in parsed}, root)


def parse(text: str) -> Module:
  """Parses a module.

  Raises:
    ValueError: the text has no entry computation.
  """
  computations, entry, name, lines = {}, None, None, []
  for line in text.splitlines():
    if name is None:
      head = _HEAD.fullmatch(line.rstrip())
      if head is not None:
        name, lines = head[2], []
        entry = name if head[1] else entry
    elif _END.fullmatch(line.rstrip()):
      computations[name] = _parse_computation(name, lines)
      name = None
    else:
      lines.append(line)
  if entry is None:
    raise ValueError('HLO: the text has no entry computation')
  partitions = re.search(r'\bnum_partitions=(\d+)', text)
  return Module(
    computations,
    entry,
    int(partitions[1]) if partitions else 1,
    ':T(' in text,
  )
