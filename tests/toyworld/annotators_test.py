"""Simulated annotators: their errors, and majority votes."""

import collections
import json
import pathlib
import tempfile

from absl.testing import parameterized
import numpy as np

from lift_jax.data.hra import DIMENSIONS, LABELS, read_hra
from lift_jax.errors import UserError
from lift_jax.toyworld import annotators
from lift_jax.toyworld.annotators import Annotator, Rated
from lift_jax.toyworld.checkers import Verdict

QUESTIONS = {
  'semantic': ' Does it show what the text says? Judge the semantic match.',
  'motion': ' Does it move as it should? Judge the motion.',
  'fidelity': ' Is it clean and sharp? Judge the fidelity.',
}
CAPTION = 'A small red cross moves upwards over a grey background.'


def _verdicts(label):
  verdict = Verdict(label, f'It is {label}.', ('x',))
  return dict.fromkeys(DIMENSIONS, verdict)


def _rated(num_clips, raters=annotators.ANNOTATORS):
  return [
    annotators.rate_clip(
      f'{index}.mp4', CAPTION, _verdicts(LABELS[index % 3]), raters, (5, index)
    )
    for index in range(num_clips)
  ]


class AnnotatorTest(parameterized.TestCase):
  def rates(self, annotator, label, num=400):
    """How often each label is given if `label` is true."""
    rng = np.random.default_rng(0)
    given = [
      verdict.label
      for _ in range(num)
      for verdict in annotator.rate(_verdicts(label), rng).values()
    ]
    return [given.count(name) / len(given) for name in LABELS]

  def test_rates(self):
    annotator = Annotator('x', too_strict=0.2, too_lenient=0.1, careless=0.06)
    rates = self.rates(annotator, 'Normal')
    np.testing.assert_allclose(rates, (0.12, 0.66, 0.22), atol=0.04)
    # From the ends there is one direction only, and errors by two are rare.
    np.testing.assert_allclose(
      self.rates(annotator, 'Good'), (0.78, 0.22, 0.02), atol=0.04
    )
    np.testing.assert_allclose(
      self.rates(annotator, 'Bad'), (0.02, 0.12, 0.86), atol=0.04
    )

  def test_bias(self):
    strict, even, lenient = (
      self.rates(annotator, 'Normal') for annotator in annotators.ANNOTATORS
    )
    self.assertGreater(strict[2], even[2])
    self.assertGreater(even[2], lenient[2])
    self.assertGreater(lenient[0], even[0])
    self.assertGreater(even[0], strict[0])

  def test_flawless(self):
    annotator = Annotator('x', 0, 0, 0)
    verdicts = _verdicts('Bad')
    rng = np.random.default_rng(0)
    self.assertEqual(annotator.rate(verdicts, rng), verdicts)

  def test_own_words(self):
    annotator = Annotator('x', too_strict=1, too_lenient=0, careless=0)
    given = annotator.rate(_verdicts('Good'), np.random.default_rng(0))
    self.assertEqual(
      given['motion'], Verdict('Normal', 'The motion is a little odd.', ())
    )

  @parameterized.parameters((-0.1, 0, 0), (0.6, 0.5, 0), (float('nan'), 0, 0))
  def test_bad_rates(self, *rates):
    with self.assertRaisesRegex(UserError, 'annotator x: rates .* at most 1'):
      Annotator('x', *rates)

  def test_deterministic(self):
    self.assertEqual(_rated(20), _rated(20))
    # One more annotator does not change the ratings of the others.
    more = _rated(20, (*annotators.ANNOTATORS, Annotator('fourth')))
    for item, other in zip(_rated(20), more, strict=True):
      self.assertEqual(item.ratings, other.ratings[:3])


class SettleTest(parameterized.TestCase):
  @parameterized.parameters(
    (['Good'], 'Good'),
    (['Good', 'Good', 'Bad'], 'Good'),
    (['Bad', 'Good', 'Good'], 'Good'),
    (['Good', 'Bad'], 'Bad'),
    (['Normal', 'Good'], 'Normal'),
    (['Good', 'Normal', 'Bad'], 'Bad'),
    (['Good', 'Normal', 'Good', 'Normal', 'Bad'], 'Normal'),
  )
  def test_majority(self, labels, expected):
    self.assertEqual(annotators.settle(labels), expected)

  def test_no_labels(self):
    with self.assertRaisesRegex(UserError, 'at least one annotator'):
      annotators.settle([])

  def test_agreement(self):
    good, bad = _verdicts('Good'), _verdicts('Bad')
    rated = [
      Rated('a.mp4', CAPTION, (good, good, good)),
      Rated('b.mp4', CAPTION, (good, bad, good)),
      Rated('c.mp4', CAPTION, (good,)),
    ]
    for rates in annotators.agreement(rated).values():
      self.assertEqual(rates, {'pairs': 4 / 6, 'all': 0.5})
    with self.assertRaisesRegex(UserError, 'let at least two rate'):
      annotators.agreement(rated[2:])

  def test_rationale_names_the_flaw(self):
    vague = {name: Verdict('Bad', 'Bad it is.', ()) for name in DIMENSIONS}
    rated = [Rated('a.mp4', CAPTION, (vague, _verdicts('Bad')))]
    entry = annotators.settled_entries(rated, QUESTIONS)[0]
    self.assertEqual(entry['conversations'][1]['value'], 'Bad. It is Bad.')


class RecordsTest(parameterized.TestCase):
  def read(self, entries):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / 'hra.json'
      path.write_text(json.dumps(entries))
      return read_hra(folder, [path.name], QUESTIONS, require_files=False)

  def test_settled(self):
    rated = _rated(30)
    records = self.read(annotators.settled_entries(rated, QUESTIONS)).records
    self.assertLen(records, 30 * 3)
    for index, record in enumerate(records):
      item, dimension = rated[index // 3], DIMENSIONS[index % 3]
      labels = [rating[dimension].label for rating in item.ratings]
      self.assertEqual(
        (record.video, record.caption, record.dimension, record.label),
        (item.video, CAPTION, dimension, annotators.settle(labels)),
      )
      self.assertNotEmpty(record.rationale)
      self.assertEqual(record.votes, collections.Counter(labels))

  def test_all(self):
    entries = annotators.all_entries(_rated(30), QUESTIONS)
    self.assertLen(entries, 30 * 3 * 3)
    with self.assertRaisesRegex(UserError, 'settle on one label'):
      self.read(entries)
