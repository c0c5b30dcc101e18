"""FLOPs and memory traffic of a program, with all iterations of loops.

XLA's own `compiled.cost_analysis()` counts the body of a loop once, whatever
its trip count, and is empty for programs compiled for absent GPUs.

Both are estimates. FLOPs are those of matrix products and convolutions only.
Traffic assumes that every kernel reads its operands from memory and writes its
result there: caches reduce it, kernels that read an operand twice increase it.
"""

import collections
import math
import re

from lift_jax.planning.convolution import convolution_flops
from lift_jax.planning.execution import Executions
from lift_jax.planning.hlo import Computation, Instruction, Module

# Matrix products of cuBLAS.
_CUBLAS = ('__cublas$gemm', '__cublas$lt$matmul', '__cublas$lt$matmul$f8')
_CUDNN_CONVOLUTIONS = (
  '__cudnn$convForward',
  '__cudnn$convBiasActivationForward',
)

# Custom calls that only annotate memory, layout or bounds.
_NOT_KERNELS = (
  'AllocateBuffer',
  'AssumeGatherIndicesInBound',
  'ConcatBitcast',
  'MoveToDevice',
  'MoveToHost',
  'Sharding',
)

# Opcodes that move no bytes: aliases of values, and callers whose callees are
# counted.
_NO_TRAFFIC = frozenset(
  (
    'add-dependency',
    'after-all',
    'async-done',
    'async-start',
    'async-update',
    'bitcast',
    'call',
    'conditional',
    'constant',
    'domain',
    'get-tuple-element',
    'optimization-barrier',
    'parameter',
    'partition-id',
    'replica-id',
    'tuple',
    'while',
  )
)
_SLICES = ('dynamic-slice', 'slice', 'gather')
_UPDATES = ('dynamic-update-slice', 'scatter')


def flops(module: Module, executions: Executions) -> float:
  """FLOPs of all products and convolutions, a multiply-add being two.

  Custom kernels (`kernels`), such as attention, are not counted, except for
  matrix products of cuBLAS and forward convolutions of cuDNN.
  """
  total = 0.0
  for name, times in executions.times.items():
    computation = module[name]
    total += times * sum(_flops(computation, i) for i in computation)
  return total


def _flops(computation: Computation, instruction: Instruction) -> float:
  opcode, target = instruction.opcode, _target(instruction)
  if opcode == 'convolution' or target in _CUDNN_CONVOLUTIONS:
    operands = [computation[name].arrays[0] for name in instruction.operands]
    return convolution_flops(instruction, operands[0].dims, operands[1].dims)
  if opcode == 'dot':
    contracted = instruction.numbers('lhs_contracting_dims')
  elif target in _CUBLAS:
    listed, *_ = re.findall(
      r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes
    )
    contracted = [int(dim) for dim in re.findall(r'\d+', listed)]
  else:
    return 0.0
  dims = computation.operand(instruction).arrays[0].dims
  summed = math.prod(dims[dim] for dim in contracted)
  return 2.0 * instruction.arrays[0].size * summed


def _target(instruction: Instruction) -> str | None:
  if instruction.opcode != 'custom-call':
    return None
  target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
  return target and target[1]


def kernels(module: Module, executions: Executions) -> dict[str, int]:
  """Number of calls of each kernel whose FLOPs are not counted, by name."""
  counted = (*_CUBLAS, *_CUDNN_CONVOLUTIONS, *_NOT_KERNELS)
  calls = collections.Counter()
  for name, times in executions.times.items():
    for instruction in module[name]:
      target = _target(instruction)
      if target is not None and target not in counted:
        calls[target] += times
  return dict(calls)


def hbm_bytes(module: Module, executions: Executions) -> float:
  """Bytes read from and written to the main memory of a device."""
  total = 0.0
  for name, times in executions.times.items():
    if name not in executions.fused:
      computation = module[name]
      total += times * sum(
        _traffic(module, computation, i) for i in computation
      )
  return total


def _in_hbm(module: Module, instruction: Instruction) -> int:
  """Bytes of a value in main memory; other TPU memories have numbers."""
  return sum(
    array.bytes
    for array in instruction.arrays
    if not (module.is_tiled and array.space)
  )


def _traffic(
  module: Module, computation: Computation, instruction: Instruction
) -> int:
  opcode = instruction.opcode
  if opcode in _NO_TRAFFIC or _target(instruction) in _NOT_KERNELS:
    return 0
  result = _in_hbm(module, instruction)
  # The first half of an asynchronous pair reads, the second writes.
  if opcode.endswith('-done'):
    return result
  operands = [computation[name] for name in instruction.operands]
  sizes = [_in_hbm(module, operand) for operand in operands]
  if opcode.endswith('-start') or opcode == 'send':
    return sum(sizes)
  if opcode in _SLICES:
    return (result if sizes[0] else 0) + result
  if opcode in _UPDATES:
    _, new = _updated(instruction)
    moved = sum(sizes[index] for index in new)
    return moved + (moved if result else 0)
  if opcode == 'fusion':
    return _fusion_traffic(module, instruction, sizes, result)
  return sum(sizes) + result


def _updated(instruction: Instruction) -> tuple[range, range]:
  """Operand indices of the updated arrays, and of the updates."""
  if instruction.opcode == 'dynamic-update-slice':
    return range(1), range(1, 2)
  # Arrays, indices, as many updates. The update is in place: the rest of the
  # arrays is neither read nor written.
  num = (len(instruction.operands) - 1) // 2
  return range(num), range(num + 1, 2 * num + 1)


def _fusion_traffic(
  module: Module, instruction: Instruction, sizes: list[int], result: int
) -> int:
  fused = module[instruction.called()[0]]
  read = sum(
    min(size, _read(module, fused, parameter))
    for size, parameter in zip(sizes, fused.parameters(), strict=True)
  )
  return read + min(result, _written(module, fused, fused.root))


def _read(module: Module, fused: Computation, value: Instruction) -> int:
  """Bytes of a value that a fusion reads: less if it only takes slices."""
  total = 0
  for user in fused.users(value.name):
    if user.opcode == 'bitcast':
      total += _read(module, fused, user)
    elif user.opcode in _SLICES and user.operands[0] == value.name:
      total += user.bytes
    elif user.opcode in _UPDATES and (
      user.operands.index(value.name) in _updated(user)[0]
    ):
      continue  # Updated in place.
    elif user.opcode == 'fusion':
      inner = module[user.called()[0]]
      index = user.operands.index(value.name)
      total += _read(module, inner, inner.parameters()[index])
    else:
      return value.bytes
  return total


def _written(module: Module, fused: Computation, value: Instruction) -> int:
  """Bytes of a value that a fusion writes: less if it updates a slice."""
  if value.opcode == 'tuple':
    parts = [fused[name] for name in value.operands]
    return sum(_written(module, fused, part) for part in parts)
  if value.opcode == 'bitcast':
    return _written(module, fused, fused.operand(value))
  if value.opcode in _UPDATES:
    _, new = _updated(value)
    return sum(fused.operand(value, index).bytes for index in new)
  if value.opcode == 'fusion':
    inner = module[value.called()[0]]
    return _written(module, inner, inner.root)
  return value.bytes
