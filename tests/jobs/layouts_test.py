"""What devices send one another in a step of `lift align`, for each layout.

Bytes that a ring of n devices sends: (n - 1) / n of an array that is gathered,
twice that of one that is summed. Gradients are summed whole here: compilers for
CPUs do not turn a sum of which each device keeps a part into a reduce-scatter,
as those for TPUs and GPUs do.
"""

import collections
import json
import math

from absl.testing import parameterized
import jax

from lift_jax.cli import job_flags
from lift_jax.models.generator_config import declare_chosen
from lift_jax.planning import job_programs
from lift_jax.sampling.config import VideoConfig
from lift_jax.sampling.sizes import latent_shape
from tests.jobs import jobs

_LAYERS, _BATCH = 2, 8
_FLAGS = (
  f'--config.model.random.transformer.num_layers={_LAYERS}',
  '--config.model.random.transformer.max_text_length=80',
  f'--config.train.batch_size={_BATCH}',
  '--config.train.remat=none',
)
_CONFIG = f'{jobs.CONFIG}:smoke'


def _sent(**axes: int) -> dict[str, dict[str, float]]:
  """Bytes that a device sends in a step, by axes and kind."""
  mesh = {'data': 1, 'fsdp': 1, 'context': 1, 'tensor': 1} | axes
  outcome = jobs.lift(
    'plan', '--json', f'--config={_CONFIG}', *_FLAGS,
    f'--topology=cpu:{math.prod(axes.values())}',
    *(f'--config.mesh.{axis}={size}' for axis, size in mesh.items()),
  )  # fmt: skip
  assert (outcome.status, outcome.stderr) == (0, ''), outcome
  (program,) = json.loads(outcome.stdout)['programs']
  found = collections.defaultdict(dict)
  for row in program['collectives']:
    assert row['is_certain'], row
    found[' '.join(row['axes'])][row['kind']] = row['ici_bytes']
  return dict(found)


class LayoutTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    config_class, _ = job_programs.JOBS['align']
    config, _ = job_flags.read_config(_CONFIG, _FLAGS, config_class)
    model = declare_chosen(config.model)
    params = model.declare('transformer').abstract_params
    # Bytes of all parameters, and of those in blocks: these alone train.
    cls.params, cls.blocks = (
      sum(4 * leaf.size for leaf in jax.tree.leaves(tree))
      for tree in (params, params['blocks'])
    )
    height, width = config.data.sizes[0]
    video = VideoConfig(height, width, config.data.max_frames, tiling=False)
    *size, _ = latent_shape(model, video)
    num_tokens = model.transformer.num_tokens(*size)
    # Of the activations between two layers.
    cls.tokens = 4 * _BATCH * num_tokens * model.transformer.width

  def assert_about(self, value: float, expected: float, most: float = 1.02):
    self.assertBetween(value / expected, 0.98, most)

  def test_data(self):
    """Gradients are summed, and nothing else is sent."""
    sent = _sent(data=4)
    self.assertEqual(
      {a: set(k) for a, k in sent.items()}, {'data': {'all-reduce'}}
    )
    self.assert_about(sent['data']['all-reduce'], 2 * 3 / 4 * self.blocks)

  def test_fsdp(self):
    """Besides, parameters are gathered: those of blocks in both directions."""
    sent = _sent(fsdp=4)
    self.assertEqual(
      {a: set(k) for a, k in sent.items()},
      {'fsdp': {'all-reduce', 'all-gather'}},
    )
    self.assert_about(sent['fsdp']['all-reduce'], 2 * 3 / 4 * self.blocks)
    gathered = sent['fsdp']['all-gather'] / (3 / 4)
    self.assertBetween(
      gathered, 0.9 * self.blocks, 1.02 * (self.params + self.blocks)
    )

  def test_context(self):
    """As fsdp; and keys and values are gathered once in each layer."""
    sent = _sent(context=4)
    self.assertEqual(set(sent), {'context'})
    sent = sent['context']
    # Queries never are.
    keys_and_values = 2 * _LAYERS * self.tokens
    # The rest is what goes in and out of the blocks, and kernels that the
    # backward pass gathers again: here some, since memory is not short.
    self.assertBetween(
      sent['all-gather'] / (3 / 4),
      keys_and_values + 0.9 * self.blocks,
      1.15 * keys_and_values + 1.5 * self.blocks,
    )
    self.assertBetween(
      sent['all-reduce'] / (2 * 3 / 4),
      0.98 * self.blocks,
      1.02 * (self.blocks + keys_and_values),
    )
    # Text and video are joined and taken apart once, not in each layer.
    moved = sent.get('all-to-all', 0) + sent.get('collective-permute', 0)
    self.assertLess(moved, 1.5 * self.tokens)

  def test_tensor(self):
    """Activations are summed where a layer comes back to their width."""
    sent = _sent(tensor=2)
    self.assertEqual(
      {a: set(k) for a, k in sent.items()},
      {'tensor': {'all-reduce', 'all-gather'}},
    )
    sent = sent['tensor']
    # Forward after attention and feed-forward. Backward before feed-forward,
    # queries, keys and values; TPUs make one sum of these three.
    self.assertBetween(
      sent['all-reduce'], 4 * _LAYERS * self.tokens, 6.5 * _LAYERS * self.tokens
    )
    # Shifts, scales and gates alone.
    self.assertLess(sent['all-gather'], 0.1 * self.tokens * _LAYERS)

  def test_all(self):
    """Together they send what each sends by itself, of smaller parts."""
    sent = _sent(data=2, fsdp=2, context=2)
    for axes, kinds in sent.items():
      with self.subTest(axes):
        self.assertNotIn('tensor', axes)
        # Two devices may hold the same part of a kernel in another order.
        self.assertLess(
          kinds.get('collective-permute', 0), self.params / 2 + self.tokens / 4
        )
        self.assertLess(kinds.get('all-to-all', 0), self.tokens / 4)
    gathered = sum(kinds.get('all-gather', 0) for kinds in sent.values())
    self.assertLess(
      gathered, self.params + self.blocks + 2 * _LAYERS * self.tokens / 4
    )
