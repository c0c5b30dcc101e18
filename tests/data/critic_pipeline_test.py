"""The critic's batches: what is in them, how often, and from where they go on.

Clips are `tests.data.clips`, whose frames tell their numbers; the tokenizer is
one that gives each byte of a text its own id.
"""

import collections
import itertools
import json
import pathlib
from unittest import mock

from absl.testing import parameterized
import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from lift_jax import config_lib
from lift_jax.data import critic_pipeline, critic_records, global_batch
from lift_jax.errors import UserError
from lift_jax.models.vila.backbone import VilaFrames
from tests.data import clips, feedback

_SIZE = 16
_BATCH = 4
_IMAGE = -200
_TOKENS_PER_FRAME = 2
_PAD = 3
# Frames of the generated clips, then of the real ones.
_HRA_FRAMES = {'a': 8, 'b': 5, 'c': 15, 'd': 1, 'e': 9, 'f': 8}
_REAL_FRAMES = {'p': 16, 'q': 2, 'r': 8, 's': 12}
_ANSWERS = ('Good. It is fine.', 'Bad. It is not.', 'Normal', 'Bad.')
_LONG = 'It is seen from afar, in the light of the evening. ' * 3


_FRAMES = VilaFrames(_SIZE, _TOKENS_PER_FRAME)


class _Tokenizer:
  pad_id = _PAD

  def training(self, caption, question, frames, answer, *, where):
    del where
    prompt = [1] + [_IMAGE] * _TOKENS_PER_FRAME * len(frames.indices)
    prompt += [10 + byte for byte in (caption + question).encode()]
    answer = [10 + byte for byte in answer.encode()] + [2]
    return prompt + answer, [False] * len(prompt) + [True] * len(answer)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  """18 records of six generated clips and 4 of real ones."""
  root = tmp_path_factory.mktemp('feedback')
  (root / 'videos').mkdir()
  for name, num_frames in (_HRA_FRAMES | _REAL_FRAMES).items():
    clips.write_clip(root / f'videos/{name}.mp4', num_frames, 24, 32)
  answers = itertools.cycle(_ANSWERS)
  hra = [
    feedback.entry(
      f'videos/{name}.mp4',
      _LONG * (name in 'ab') + f'This is {name}.',
      dimension,
      next(answers),
    )
    for name in _HRA_FRAMES
    for dimension in feedback.QUESTIONS
  ]
  real = [
    feedback.entry(
      f'videos/{name}.mp4',
      _LONG * (name == 'p') + f'This is {name}.',
      'motion',
      'Good. It moves.',
    )
    for name in _REAL_FRAMES
  ]
  (root / 'hra.json').write_text(json.dumps(hra))
  (root / 'real.json').write_text(json.dumps(real))
  return root


class _PipelineTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, folder):
    self.root = folder
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ('data',))
    self.sharding = NamedSharding(mesh, PartitionSpec('data'))
    self.examples = self.make()

  def config(self, **changes):
    return feedback.config(self.root, **{'real': ('real.json',)} | changes)

  def make(self, **changes):
    """The examples of a config that trains on everything."""
    config = self.config(**changes)
    records = critic_records.read_critic_records(config)
    return critic_pipeline.make_examples(
      records.splits['train'], records, _Tokenizer(), _FRAMES, config
    ).records

  def iterator(self, examples=None, seed=0, **changes):
    return critic_pipeline.make_iterator(
      examples or self.examples,
      _Tokenizer(),
      _FRAMES,
      _BATCH,
      self.sharding,
      seed,
      self.config(**changes),
    )

  def take(self, count, iterator=None, **kwargs):
    iterator = iterator or self.iterator(**kwargs)
    return [next(iterator) for _ in range(count)]

  def numbers(self, batch) -> list[int]:
    """Which examples are in the rows of a batch."""
    known = {
      tuple(example.tokens): number
      for number, example in enumerate(self.examples)
    }
    return [
      known[tuple(tokens[segment_ids == 1])]
      for tokens, segment_ids in zip(
        batch['tokens'], batch['segment_ids'], strict=True
      )
    ]

  def assert_error(self, call, *words):
    with self.assertRaises(UserError) as raised:
      call()
    message = str(raised.exception)
    self.assertLen(message.splitlines(), 1)
    for word in words:
      self.assertIn(word, message)

  def assert_same(self, batches, others):
    for batch, other in zip(batches, others, strict=True):
      self.assertEqual(sorted(batch), sorted(other))
      for name, array in batch.items():
        np.testing.assert_array_equal(array, other[name])


class ExampleTest(_PipelineTest):
  def test_all_differ(self):
    """Or else `numbers` would not tell them apart."""
    self.assertLen({tuple(e.tokens) for e in self.examples}, 22)

  def test_frames(self):
    for example in self.examples:
      frames = (_HRA_FRAMES | _REAL_FRAMES)[example.path.stem]
      self.assertLen(example.selection.indices, min(frames, 8))
      self.assertEqual(
        np.sum(example.tokens == _IMAGE), _TOKENS_PER_FRAME * min(frames, 8)
      )
      self.assertEqual(example.is_real, example.path.stem in _REAL_FRAMES)

  @parameterized.parameters(
    (True, ('Good. It is fine.', 'Bad. It is not.', 'Normal.', 'Bad.')),
    (False, ('Good.', 'Bad.', 'Normal.', 'Bad.')),
  )
  def test_answers(self, with_rationale, wanted):
    examples = self.make(with_rationale=with_rationale)
    for example, answer in zip(examples, wanted, strict=False):
      target = example.tokens[example.is_target]
      self.assertEqual(bytes((target[:-1] - 10).tolist()).decode(), answer)

  def test_length(self):
    """Places of eight frames, and the smallest bucket that is enough."""
    images = 8 * _TOKENS_PER_FRAME
    for example in self.examples:
      longest = images + 160
      wanted = longest if len(example.tokens) <= longest else images + 320
      self.assertEqual(example.length, wanted)
    self.assertLen({example.length for example in self.examples}, 2)

  def test_fits_to_the_token(self):
    places = max(len(e.tokens) for e in self.examples) - 8 * _TOKENS_PER_FRAME
    self.make(text_buckets=(places,))
    self.assert_error(
      lambda: self.make(text_buckets=(places - 1,)),
      'hra.json record 0 (videos/a.mp4)',
      '1 more than the longest row',
      'data.text_buckets by 1',
    )

  def test_skip(self):
    broken = self.root / 'videos/c.mp4'
    content = broken.read_bytes()
    try:
      broken.write_bytes(b'no video')
      self.assert_error(self.make, 'hra.json record 6', 'videos/c.mp4')
      self.assertLen(self.make(on_bad_record='skip'), 19)
    finally:
      broken.write_bytes(content)

  def test_nothing_is_left(self):
    self.assert_error(
      lambda: self.make(on_bad_record='skip', text_buckets=(8,)),
      'no record is left',
      'hra.json record 0',
    )


class BatchTest(_PipelineTest):
  def test_contents(self):
    lengths = set()
    for batch in self.take(8):
      length = batch['tokens'].shape[1]
      lengths.add(length)
      frames = batch['frames']
      self.assertEqual(frames.shape, (_BATCH, 8, _SIZE, _SIZE, 3))
      kinds = {name: array.dtype.name for name, array in batch.items()}
      self.assertEqual(
        kinds,
        {
          'frames': 'uint8',
          'tokens': 'int32',
          'is_target': 'bool',
          'segment_ids': 'int32',
          'weight': 'float32',
        },
      )
      for row, number in enumerate(self.numbers(batch)):
        example = self.examples[number]
        self.assertEqual(example.length, length)
        end = len(example.tokens)
        np.testing.assert_array_equal(
          batch['is_target'][row, :end], example.is_target
        )
        self.assertFalse(batch['is_target'][row, end:].any())
        self.assertTrue((batch['tokens'][row, end:] == _PAD).all())
        self.assertTrue((batch['segment_ids'][row, :end] == 1).all())
        self.assertFalse(batch['segment_ids'][row, end:].any())
        num_frames = (_HRA_FRAMES | _REAL_FRAMES)[example.path.stem]
        chosen = range(num_frames)
        if num_frames > 8:
          chosen = [int(i * (num_frames - 1) / 7) for i in range(8)]
        self.assertEqual(
          clips.frame_numbers(frames[row, : len(chosen)]), list(chosen)
        )
        self.assertFalse(frames[row, len(chosen) :].any())
    self.assertEqual(lengths, {176, 336})

  def test_on_the_mesh(self):
    (batch,) = self.take(1)
    placed = global_batch.to_global(batch, _BATCH, self.sharding)
    for name, array in batch.items():
      np.testing.assert_array_equal(np.asarray(placed[name]), array)

  def test_epochs(self):
    """Each record once in an epoch of its length, in another order each."""
    drawn = collections.defaultdict(list)
    for batch in self.take(44):
      drawn[batch['tokens'].shape[1]] += self.numbers(batch)
    for length, numbers in drawn.items():
      wanted = [
        number
        for number, example in enumerate(self.examples)
        if example.length == length
      ]
      # In eight epochs of all 22, with whole batches; less than one is left.
      self.assertGreater(len(numbers), 7 * len(wanted))
      epochs = [
        numbers[start : start + len(wanted)]
        for start in range(0, 7 * len(wanted), len(wanted))
      ]
      for epoch in epochs:
        self.assertEqual(sorted(epoch), wanted)
      self.assertLen({tuple(epoch) for epoch in epochs}, 7)

  @parameterized.parameters((None, 4 / 22), (0.5, 0.5), (0.1, 0.1))
  def test_shares(self, real_share, wanted):
    is_real, lengths = [], collections.Counter()
    for batch in self.take(60, real_share=real_share):
      numbers = self.numbers(batch)
      is_real += [self.examples[number].is_real for number in numbers]
      lengths[batch['tokens'].shape[1]] += 1
    # Streams take turns, so that the shares are kept to within a few rows.
    self.assertAlmostEqual(np.mean(is_real), wanted, delta=0.02)
    # 6 of 18 generated and 1 of 4 real records are long.
    long = (1 - wanted) / 3 + wanted / 4
    self.assertAlmostEqual(lengths[336] / 60, long, delta=0.02)

  def test_shares_keep_epochs(self):
    drawn = collections.Counter()
    for batch in self.take(60, real_share=0.5):
      drawn.update(self.numbers(batch))
    for real in (False, True):
      for length in (176, 336):
        counts = [
          drawn[number]
          for number, example in enumerate(self.examples)
          if (example.is_real, example.length) == (real, length)
        ]
        self.assertLessEqual(max(counts) - min(counts), 1)

  def test_share_of_nothing(self):
    generated = [e for e in self.examples if not e.is_real]
    self.assert_error(
      lambda: self.iterator(generated, real_share=0.5),
      'data.real_share', 'all 18 records', 'generated',
    )  # fmt: skip

  def test_seed(self):
    one, same, other = (
      [self.numbers(batch) for batch in self.take(4, seed=seed)]
      for seed in (0, 0, 1)
    )
    self.assertEqual(one, same)
    self.assertNotEqual(one, other)

  def test_length_with_fewer_than_a_batch(self):
    few = [e for e in self.examples if e.length == 336][:3]
    drawn = collections.Counter()
    for batch in self.take(3, examples=few):
      drawn.update(self.numbers(batch))
    self.assertEqual(list(drawn.values()), [4, 4, 4])


class DamageTest(_PipelineTest):
  """What turns up only when frames are decoded."""

  def spoilt(self, content):
    path = self.root / 'videos/c.mp4'
    before = path.read_bytes()
    self.addCleanup(path.write_bytes, before)
    path.write_bytes(content(before))

  def test_cut_short(self):
    self.spoilt(lambda content: content[: len(content) // 2])
    self.assert_error(lambda: self.take(12), 'hra.json record ', 'c.mp4')

  def test_other_number_of_frames(self):
    other = (self.root / 'videos/b.mp4').read_bytes()
    self.spoilt(lambda _: other)
    self.assert_error(lambda: self.take(12), 'videos/c.mp4', 'shows 5 frames')


class LabelWeightTest(_PipelineTest):
  def test_none(self):
    for batch in self.take(4):
      np.testing.assert_array_equal(batch['weight'], np.ones(_BATCH))

  @parameterized.parameters((None,), (0.4,))
  def test_balanced(self, real_share):
    """Mean 1 over what is drawn, to which each label adds the same."""
    total, num_rows = collections.Counter(), 0
    for batch in self.take(110, label_weight='balanced', real_share=real_share):
      for number, weight in zip(
        self.numbers(batch), batch['weight'], strict=True
      ):
        total[self.examples[number].record.label] += float(weight)
        num_rows += 1
    for label in ('Good', 'Normal', 'Bad'):
      self.assertAlmostEqual(total[label] / num_rows, 1 / 3, delta=0.02)

  def test_values(self):
    weights = critic_pipeline.label_weights(self.examples, None, 'balanced')
    count = collections.Counter(e.record.label for e in self.examples)
    self.assertEqual(count, {'Good': 9, 'Bad': 9, 'Normal': 4})
    for example, weight in zip(self.examples, weights, strict=True):
      wanted = 22 / (3 * count[example.record.label])
      self.assertAlmostEqual(weight, wanted, places=6)

  def test_label_that_is_absent(self):
    good = [e for e in self.examples if e.record.label == 'Good']
    np.testing.assert_array_equal(
      critic_pipeline.label_weights(good, None, 'balanced'), np.ones(9)
    )


class ResumeTest(_PipelineTest):
  @parameterized.product(taken=(0, 1, 5), real_share=(None, 0.5))
  def test_state(self, taken, real_share):
    changes = {'real_share': real_share, 'label_weight': 'balanced'}
    iterator = self.iterator(**changes)
    self.take(taken, iterator)
    state = iterator.get_state()
    self.assertEqual(json.loads(json.dumps(state)), state)
    wanted = self.take(6, iterator)
    for resumed in (self.iterator(**changes), iterator):
      resumed.set_state(state)
      self.assert_same(wanted, self.take(6, resumed))

  @parameterized.parameters(None, 0.5)
  def test_state_of_single_rows(self, real_share):
    def single():
      sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
      config = self.config(real_share=real_share)
      return critic_pipeline.make_iterator(
        self.examples, _Tokenizer(), _FRAMES, 1, sharding, 0, config
      )

    iterator = single()
    before = self.take(22, iterator)
    if real_share is None:
      numbers = sum((self.numbers(batch) for batch in before), [])
      self.assertCountEqual(numbers, range(22))
    state = iterator.get_state()
    wanted = self.take(6, iterator)
    resumed = single()
    resumed.set_state(state)
    self.assert_same(wanted, self.take(6, resumed))


class HostsTest(_PipelineTest):
  @parameterized.parameters(1, 2, 4)
  def test_rows(self, num_hosts):
    """Hosts decode their rows of the batches that one host would have."""
    wanted = self.take(6, real_share=0.5)
    parts = []
    for host in range(num_hosts):
      rows = np.arange(_BATCH).reshape(num_hosts, -1)[host]
      with mock.patch.object(critic_pipeline, 'local_rows', return_value=rows):
        parts.append(self.take(6, real_share=0.5))
    for part in parts:
      self.assertLen(part[0]['tokens'], _BATCH // num_hosts)
    self.assert_same(
      wanted,
      [
        {
          name: np.concatenate([part[name] for part in batch])
          for name in batch[0]
        }
        for batch in zip(*parts, strict=True)
      ],
    )

  def test_state_on_another_number_of_hosts(self):
    iterator = self.iterator()
    self.take(3, iterator)
    state = iterator.get_state()
    wanted = self.take(2, iterator)
    with mock.patch.object(
      critic_pipeline, 'local_rows', return_value=np.array([2, 3])
    ):
      other = self.iterator()
    other.set_state(state)
    for batch, part in zip(wanted, self.take(2, other), strict=True):
      for name, array in batch.items():
        np.testing.assert_array_equal(array[2:], part[name])


class ConfigTest(_PipelineTest):
  @parameterized.parameters(
    ({'hra': ()}, 'data.hra'),
    ({'label_weight': 'inverse'}, 'data.label_weight'),
    ({'real_share': 0.0}, 'data.real_share'),
    ({'real_share': 1.0}, 'data.real_share'),
    ({'text_buckets': ()}, 'data.text_buckets'),
    ({'text_buckets': (64, 0)}, 'data.text_buckets'),
    ({'num_threads': 0}, 'data.num_threads'),
  )
  def test_refused(self, changes, name):
    self.assert_error(lambda: self.config(**changes), name)

  def test_from_a_section(self):
    section = {
      'root': '', 'hra': ['a.json'], 'real': [], 'held_out': [],
      'questions': '', 'on_bad_record': 'skip',
      'split': {
        'validation': 0.1, 'test': 0.1, 'seed': 1, 'by_content': False
      },
      'real_share': None, 'with_rationale': True, 'label_weight': 'none',
      'text_buckets': [128, 256], 'num_threads': 4,
    }  # fmt: skip
    config = config_lib.resolve(section, critic_pipeline.CriticDataConfig)
    self.assertEqual(config.text_buckets, (128, 256))
    self.assertAlmostEqual(config.split.fractions['train'], 0.8)


class InOrderTest(_PipelineTest):
  @parameterized.parameters(4, 8)
  def test_every_example_once(self, batch_size):
    """Batches of one length; rows that only fill one up have no target."""
    seen = []
    for batch in critic_pipeline.in_order(
      self.examples, _Tokenizer(), _FRAMES, batch_size, self.sharding, 2
    ):
      self.assertEqual(batch['frames'].shape[:2], (batch_size, 8))
      self.assertEqual(batch['frames'].dtype, np.uint8)
      is_new = batch['is_target'].any(axis=1)
      self.assertTrue(is_new.any())
      numbers = self.numbers(batch)
      seen += [n for n, new in zip(numbers, is_new, strict=True) if new]
      lengths = {self.examples[number].length for number in numbers}
      self.assertEqual(lengths, {batch['tokens'].shape[1]})
    self.assertCountEqual(seen, range(len(self.examples)))
