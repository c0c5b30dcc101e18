"""Memory of programs, and out-of-memory errors of compilers."""

from absl.testing import parameterized
import jax.numpy as jnp

from lift_jax.planning import memory
from tests.planning import programs


class MemoryTest(parameterized.TestCase):
  def test_donated(self):
    compiled = programs.compiled(
      lambda x, y: x + jnp.sum(y),
      jnp.zeros(256),
      jnp.zeros(64),
      donate_argnums=0,
    )
    found = memory.Memory.of(compiled)
    self.assertEqual(found.arguments, 1024 + 256)
    self.assertEqual(found.outputs, 1024)
    self.assertEqual(found.aliased, 1024)
    self.assertEqual(found.total, 1024 + 256 + found.temporaries)

  @parameterized.parameters(
    # Of libtpu 0.0.42 and of earlier ones.
    (
      'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required '
      'for HLO temporaries (48.00G) exceeds available HBM (31.25G).',
      (48 * 2**30, 31.25 * 2**30),
    ),
    (
      'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 19.74G '
      'of 15.48G hbm. Exceeded hbm capacity by 4.26G.',
      (19.74 * 2**30, 15.48 * 2**30),
    ),
    (
      'the total memory (1.50T) exceeds available HBM (512.0M)',
      (1.5 * 2**40, 2**29),
    ),
    ('INVALID_ARGUMENT: Mosaic failed to compile', None),
  )
  def test_refused(self, message, expected):
    self.assertEqual(memory.out_of_memory(message), expected)
