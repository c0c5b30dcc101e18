"""Contents and frequencies of training batches of a critic, and resuming."""

import collections
import dataclasses
import json
from unittest import mock

from absl.testing import parameterized
import jax
import numpy as np

from lift_jax.data import critic_pipeline, global_batch
from lift_jax.data.critic_units import Unit, pair_units, shape_of, single_units
from lift_jax.data.pair_records import PairRecord
from lift_jax.data.rubric import LABELS
from tests.data import clips, critic_clips


class BatchTest(critic_clips.PipelineTest):
  def test_contents(self):
    lengths = set()
    for batch in self.take(8):
      length = batch['tokens'].shape[1]
      lengths.add(length)
      frames = batch['frames']
      self.assertEqual(
        frames.shape,
        (critic_clips.BATCH, 8, critic_clips.SIZE, critic_clips.SIZE, 3),
      )
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
        self.assertTrue((batch['tokens'][row, end:] == critic_clips.PAD).all())
        self.assertTrue((batch['segment_ids'][row, :end] == 1).all())
        self.assertFalse(batch['segment_ids'][row, end:].any())
        num_frames = (critic_clips.HRA_FRAMES | critic_clips.REAL_FRAMES)[
          example.path.stem
        ]
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
    placed = global_batch.to_global(batch, critic_clips.BATCH, self.sharding)
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
    # Streams take turns, so that the shares are kept to within a few examples.
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
      'data.real_share', 'all 18 training records', 'generated',
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


class BatchSizesTest(critic_clips.PipelineTest):
  def setUp(self):
    super().setUp()
    # Of shorter sequences, three times as many.
    self.sizes = {e.shape: 4 if e.length == 336 else 12 for e in self.examples}

  @parameterized.parameters(None, 0.5)
  def test_shares(self, real_share):
    """Examples are drawn as often as in batches of one size."""
    units = single_units(self.examples)
    found = critic_pipeline.units_by_shape(units, self.examples, real_share)
    self.assertCountEqual(sum((own for own, _ in found.values()), []), units)
    for shape, (own, _) in found.items():
      self.assertEqual({shape_of(unit, self.examples) for unit in own}, {shape})
    shares = {shape: share for shape, (_, share) in found.items()}
    self.assertAlmostEqual(sum(shares.values()), 1)
    drawn = collections.Counter()
    for batch in self.take(16, batch_sizes=self.sizes, real_share=real_share):
      size, length = batch['tokens'].shape
      self.assertEqual(size, 4 if length == 336 else 12)
      drawn[length] += size
    for (*_, length), share in shares.items():
      self.assertAlmostEqual(drawn[length] / drawn.total(), share, delta=0.06)

  def test_state(self):
    iterator = self.iterator(batch_sizes=self.sizes)
    self.take(2, iterator)
    state = iterator.get_state()
    wanted = self.take(4, iterator)
    self.assertLen({len(batch['tokens']) for batch in wanted}, 2)
    resumed = self.iterator(batch_sizes=self.sizes)
    resumed.set_state(state)
    self.assert_same(wanted, self.take(4, resumed))


class DamageTest(critic_clips.PipelineTest):
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
    self.assert_error(lambda: self.take(12), 'videos/c.mp4', 'has 5 frames')


class LabelWeightTest(critic_clips.PipelineTest):
  def test_none(self):
    for batch in self.take(4):
      np.testing.assert_array_equal(
        batch['weight'], np.ones(critic_clips.BATCH)
      )

  @parameterized.parameters((None,), (0.4,))
  def test_balanced(self, real_share):
    """Mean 1 over sampled examples; each label contributes the same."""
    total, num_examples = collections.Counter(), 0
    for batch in self.take(110, label_weight='balanced', real_share=real_share):
      for number, weight in zip(
        self.numbers(batch), batch['weight'], strict=True
      ):
        total[self.examples[number].record.label] += float(weight)
        num_examples += 1
    for label in ('Good', 'Normal', 'Bad'):
      self.assertAlmostEqual(total[label] / num_examples, 1 / 3, delta=0.02)

  def test_values(self):
    weights = critic_pipeline.label_weights(
      single_units(self.examples), self.examples, None, 'balanced'
    )
    count = collections.Counter(e.record.label for e in self.examples)
    self.assertEqual(count, {'Good': 9, 'Bad': 9, 'Normal': 4})
    for example, weight in zip(self.examples, weights, strict=True):
      wanted = 22 / (3 * count[example.record.label])
      self.assertAlmostEqual(weight, wanted, places=6)

  def test_label_that_is_absent(self):
    good = [e for e in self.examples if e.record.label == 'Good']
    np.testing.assert_array_equal(
      critic_pipeline.label_weights(single_units(good), good, None, 'balanced'),
      np.ones(9),
    )


class PairTest(critic_clips.PipelineTest):
  def batches(self, count, reader=None):
    records = PairRecord(
      'This is c.',
      ('c', 'd'),
      tuple(self.example(name).path for name in 'cd'),
      'same',
      {'motion': 'first'},
      '',
      {},
      '',
    )
    # The caption of one is the caption of both.
    examples = [
      dataclasses.replace(
        example,
        record=dataclasses.replace(example.record, caption='This is c.'),
      )
      if example.path.stem == 'd'
      else example
      for example in self.examples
    ]
    units = pair_units(examples, [records], LABELS, use_ratings=False, seed=0)
    iterator = critic_pipeline.make_iterator(
      examples,
      critic_clips.Tokenizer(),
      reader or self.reader(),
      critic_clips.UNIFORM,
      jax.sharding.SingleDeviceSharding(jax.devices()[0]),
      0,
      self.config(),
      units,
      LABELS,
    )
    return examples, units, [next(iterator) for _ in range(count)]

  def example(self, name):
    return next(e for e in self.examples if e.path.stem == name)

  def test_side_by_side(self):
    examples, units, batches = self.batches(12)
    self.assertEqual(sum(len(unit.pairs) for unit in units), 1)
    num_pairs = 0
    for batch in batches:
      ratings = batch['ratings']
      for row, number in enumerate(self.numbers(batch)):
        example = examples[number]
        answer = np.flatnonzero(batch['is_target'][row])[0]
        self.assertEqual(ratings['position'][row], answer - 1)
        np.testing.assert_array_equal(
          ratings['shares'][row],
          [float(example.label == label) for label in LABELS],
        )
      preference = ratings['preference']
      np.testing.assert_array_equal(preference[::2], preference[1::2])
      for row in np.flatnonzero(preference[::2].any(axis=1)):
        first, second = (
          examples[self.numbers(batch)[2 * row + k]] for k in range(2)
        )
        self.assertEqual((first.path.stem, second.path.stem), ('c', 'd'))
        self.assertEqual(first.record.dimension, 'motion')
        self.assertEqual(list(preference[2 * row]), [1, 0, 0])
        num_pairs += 1
    self.assertGreater(num_pairs, 0)

  def test_overall(self):
    """Units of two dimensions, each with its pair, and what is preferred."""
    shape = self.examples[0].shape
    same = [n for n, e in enumerate(self.examples) if e.shape == shape][:4]
    first, none, tie = (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    batch = next(
      critic_pipeline.make_iterator(
        self.examples,
        critic_clips.Tokenizer(),
        self.reader(),
        critic_clips.UNIFORM,
        jax.sharding.SingleDeviceSharding(jax.devices()[0]),
        0,
        self.config(),
        [Unit(tuple(same), (first, none), tie)],
        LABELS,
      )
    )
    self.assertEqual(self.numbers(batch), same)
    ratings = batch['ratings']
    np.testing.assert_array_equal(
      ratings['preference'], [first, first, none, none]
    )
    np.testing.assert_array_equal(ratings['overall'], [tie] * 4)

  def test_substitutes_are_no_pair(self):
    first, none, tie = (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    is_own = np.array([True, False, True, True])
    for size, expected in ((2, [none] * 2 + [tie] * 2), (4, [none] * 4)):
      np.testing.assert_array_equal(
        critic_pipeline._without_substitutes(
          [first] * 2 + [tie] * 2, is_own, size
        ),
        expected,
      )


class ResumeTest(critic_clips.PipelineTest):
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
  def test_state_of_single_examples(self, real_share):
    def single():
      sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
      config = self.config(real_share=real_share)
      return critic_pipeline.make_iterator(
        self.examples,
        critic_clips.Tokenizer(),
        self.reader(),
        collections.defaultdict(lambda: 1),
        sharding,
        0,
        config,
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


class HostsTest(critic_clips.PipelineTest):
  @parameterized.parameters(1, 2, 4)
  def test_local_examples(self, num_hosts):
    """Hosts decode their part of the batches that one host would have."""
    wanted = self.take(6, real_share=0.5)
    parts = []
    for host in range(num_hosts):
      local = np.arange(critic_clips.BATCH).reshape(num_hosts, -1)[host]
      with mock.patch.object(
        critic_pipeline, 'local_indices', return_value=local
      ):
        parts.append(self.take(6, real_share=0.5))
    for part in parts:
      self.assertLen(part[0]['tokens'], critic_clips.BATCH // num_hosts)
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
      critic_pipeline, 'local_indices', return_value=np.array([2, 3])
    ):
      other = self.iterator()
    other.set_state(state)
    for batch, part in zip(wanted, self.take(2, other), strict=True):
      for name, array in batch.items():
        np.testing.assert_array_equal(array[2:], part[name])


class ValidationBatchesTest(critic_clips.PipelineTest):
  @parameterized.parameters(4, 8)
  def test_every_example_once(self, batch_size):
    """Batches of one length; examples that only pad it have no target."""
    seen = []
    for batch in critic_pipeline.validation_batches(
      self.examples,
      critic_clips.Tokenizer(),
      self.reader(),
      batch_size,
      self.sharding,
      LABELS,
    ):
      self.assertEqual(batch['frames'].shape[:2], (batch_size, 8))
      self.assertEqual(batch['frames'].dtype, np.uint8)
      is_new = batch['is_target'].any(axis=1)
      self.assertTrue(is_new.any())
      numbers = self.numbers(batch)
      seen += [n for n, new in zip(numbers, is_new, strict=True) if new]
      np.testing.assert_array_equal(
        batch['index'], np.where(is_new, numbers, -1)
      )
      ratings = batch['ratings']
      for slot, number in enumerate(numbers):
        example = self.examples[number]
        self.assertEqual(ratings['position'][slot], example.rating_position)
        np.testing.assert_array_equal(
          ratings['shares'][slot],
          [float(is_new[slot] and example.label == name) for name in LABELS],
        )
      lengths = {self.examples[number].length for number in numbers}
      self.assertEqual(lengths, {batch['tokens'].shape[1]})
    self.assertCountEqual(seen, range(len(self.examples)))
