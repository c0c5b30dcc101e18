"""FLOPs of convolutions in XLA programs.

On TPUs matrix products are convolutions, too. A batch dimension of both
operands becomes a window as long as the input, padded such that in each window
all elements but one meet only padding:

  bf16[17920,30,64] convolution(x, w),
    window={size=30 pad=29_29 rhs_reversal=1}, dim_labels=bf0_0oi->b0f

So products with padding must not be counted.
"""

import dataclasses
import math
import re

from lift_jax.planning.hlo import Instruction


@dataclasses.dataclass(frozen=True)
class _Window:
  """One spatial dimension."""

  size: int = 1
  stride: int = 1
  pad_low: int = 0
  lhs_dilate: int = 1
  rhs_dilate: int = 1


def convolution_flops(
  instruction: Instruction, lhs: tuple[int, ...], rhs: tuple[int, ...]
) -> float:
  """FLOPs of a convolution, a multiply-add being two.

  Args:
    instruction: with `dim_labels`, and optionally `window`.
    lhs: shape of the input.
    rhs: shape of the kernel.
  """
  labels = instruction.required('dim_labels')
  of_lhs, of_rhs, of_out = re.split('_|->', labels)
  out = instruction.arrays[0].dims
  products = (
    out[of_out.index('b')] * out[of_out.index('f')] * rhs[of_rhs.index('i')]
  )
  for index, window in enumerate(_windows(instruction)):
    label = str(index)
    products *= _num_products(
      window, lhs[of_lhs.index(label)], out[of_out.index(label)]
    )
  return 2.0 * products


def _windows(instruction: Instruction) -> list[_Window]:
  text = instruction.attribute('window')
  if text is None:
    return []
  fields = dict(re.findall(r'(\w+)=([\dx_\-]+)', text))
  split = {key: value.split('x') for key, value in fields.items()}
  windows = []
  for index in range(len(split.get('size', ()))):
    pads = split.get('pad')
    windows.append(
      _Window(
        pad_low=int(pads[index].split('_')[0]) if pads else 0,
        **{
          key: int(split[key][index])
          for key in ('size', 'stride', 'lhs_dilate', 'rhs_dilate')
          if key in split
        },
      )
    )
  return windows


def _num_products(window: _Window, inputs: int, outputs: int) -> int:
  """Number of (output, kernel element) pairs that meet an input element.

  Output o and kernel element k meet offset o * stride + k * rhs_dilate - pad of
  an input whose elements are lhs_dilate apart.
  """
  last = (inputs - 1) * window.lhs_dilate
  # With this period outputs have the same offset from an input element.
  period = window.lhs_dilate // math.gcd(window.lhs_dilate, window.stride)
  total = 0
  for k in range(window.size):
    shift = k * window.rhs_dilate - window.pad_low
    low = max(0, -(shift // window.stride))
    high = min(outputs - 1, (last - shift) // window.stride)
    for first in range(low, min(low + period, high + 1)):
      if (first * window.stride + shift) % window.lhs_dilate == 0:
        total += (high - first) // period + 1
  return total
