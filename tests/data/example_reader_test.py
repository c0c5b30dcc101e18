"""Frames of examples: those of another clip, where a clip fails."""

import json
from unittest import mock

import numpy as np

from lift_jax.data import critic_pipeline
from lift_jax.data.critic_units import single_units
from tests.data import critic_clips


class ReplaceTest(critic_clips.PipelineTest):
  @property
  def everything(self):
    return range(len(self.examples))

  def bad(self, *names):
    return [n for n in self.everything if self.examples[n].path.stem in names]

  def replaced(self, **settings):
    """{index: that of the substitute} of what is not read itself."""
    read = self.reader(**settings).read(self.everything)
    return {
      wanted: index
      for wanted, (index, _) in zip(self.everything, read, strict=True)
      if index != wanted
    }

  def test_nothing_fails(self):
    report = mock.Mock()
    self.assertEqual(self.replaced(report=report), {})
    report.assert_not_called()

  def test_substitute(self):
    """Of the same shape and kind, with its own frames, and reported."""
    wanted = self.reader().read(self.everything)
    self.spoil('c', 'q')
    report = mock.Mock()
    read = self.reader(report=report).read(self.everything)
    bad = self.bad('c', 'q')
    self.assertLen(bad, 4)
    calls = {
      self.examples.index(failed): (self.examples.index(other), reason)
      for failed, other, reason in (call.args for call in report.mock_calls)
    }
    self.assertCountEqual(calls, bad)
    for number, (index, frames) in enumerate(read):
      np.testing.assert_array_equal(frames, wanted[index][1])
      if number not in bad:
        self.assertEqual(index, number)
        continue
      self.assertEqual(calls[number][0], index)
      example, other = self.examples[number], self.examples[index]
      self.assertEqual(example.shape, other.shape)
      self.assertEqual(example.is_real, other.is_real)
      self.assertNotIn(other.path.stem, 'cq')
      reason = calls[number][1]
      self.assertStartsWith(reason, f'{example.record.where}: ')
      self.assertIn('cannot be decoded', reason)
      self.assertNotIn('delete the record', reason)

  def test_depends_on_the_seed_alone(self):
    """Not on time or threads; other seeds choose others."""
    self.spoil('c', 'd', 'e', 'q')
    report = mock.Mock()
    wanted = self.replaced(report=report)
    self.assertCountEqual(wanted, self.bad('c', 'd', 'e', 'q'))
    for _ in range(3):
      self.assertEqual(self.replaced(report=report), wanted)
    self.assertNotEqual(self.replaced(report=report, seed=1), wanted)
    # Permanently: runs of earlier versions resume.
    self.assertEqual(list(wanted.values())[:3], KNOWN)

  def test_other_kind(self):
    """If no other clip of the same kind can be decoded."""
    self.spoil('q', 'r', 's')
    replaced = self.replaced(report=mock.Mock())
    self.assertCountEqual(replaced, self.bad('q', 'r', 's'))
    for index in replaced.values():
      self.assertFalse(self.examples[index].is_real)

  def test_nothing_is_left(self):
    """'p' is the only long real record; 'a' and 'b' are long too."""
    self.spoil('a', 'b', 'p')
    self.assert_error(
      lambda: self.replaced(report=mock.Mock()),
      'hra.json record 0 (videos/a.mp4)', 'no clip that could take its place',
      'restore the files',
    )  # fmt: skip

  def test_error(self):
    self.spoil('c')
    self.assert_error(
      self.replaced,
      'hra.json record 6 (videos/c.mp4)', 'cannot be decoded',
      'restore the file', "data.on_bad_record to 'skip'",
    )  # fmt: skip


# Substitutes for the three questions about clip c, by hand with hashlib.
KNOWN = [17, 16, 15]


class BatchesTest(critic_clips.PipelineTest):
  def setUp(self):
    super().setUp()
    self.report = mock.Mock()

  def test_resumes(self):
    """With the same substitutes, wherever the run was stopped."""
    whole = self.take(10, label_weight='balanced')
    numbers = [self.numbers(batch) for batch in whole]
    self.spoil('c', 'q')
    changes = {'report': self.report, 'label_weight': 'balanced'}
    iterator = self.iterator(**changes)
    batches = self.take(4, iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    batches += self.take(6, iterator)
    self.assert_same(batches, self.take(10, **changes))
    resumed = self.iterator(**changes)
    resumed.set_state(state)
    self.assert_same(batches[4:], self.take(6, resumed))
    # Only the slots of bad clips are others, with the weight of what is there.
    weights = critic_pipeline.label_weights(
      single_units(self.examples), self.examples, None, 'balanced'
    )
    num_replaced = 0
    for batch, wanted in zip(batches, numbers, strict=True):
      for slot, number in enumerate(self.numbers(batch)):
        is_bad = self.examples[wanted[slot]].path.stem in 'cq'
        self.assertEqual(number != wanted[slot], is_bad)
        self.assertEqual(batch['weight'][slot], weights[number])
        num_replaced += is_bad
    self.assertGreater(num_replaced, 3)

  def test_hosts(self):
    """Each finds the substitutes that one host would have found."""
    self.spoil('c', 'q')
    wanted = self.take(6, report=self.report)
    for local in ([0, 1], [2, 3]):
      with mock.patch.object(
        critic_pipeline, 'local_indices', return_value=np.array(local)
      ):
        part = self.take(6, report=self.report)
      self.assert_same(
        [{name: a[local] for name, a in batch.items()} for batch in wanted],
        part,
      )

  def test_validation(self):
    """A bad clip counts for nothing; each other one counts once."""
    self.spoil('c', 'q')
    seen = []
    for batch in critic_pipeline.validation_batches(
      self.examples,
      critic_clips.Tokenizer(),
      self.reader(report=self.report),
      critic_clips.BATCH,
      self.sharding,
    ):
      is_new = batch['is_target'].any(axis=1)
      numbers = self.numbers(batch)
      seen += [n for n, new in zip(numbers, is_new, strict=True) if new]
    self.assertCountEqual(
      seen,
      [n for n, e in enumerate(self.examples) if e.path.stem not in 'cq'],
    )
