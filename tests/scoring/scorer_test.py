"""Ratings against unsplit prompts, and answers against a plain loop."""

from collections.abc import Sequence
import functools
import logging

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.data.hra import DIMENSIONS, LABELS, read_questions
from lift_jax.errors import UserError
from lift_jax.models.critic_tokens import (
  label_ids,
  questions_path,
  shared_prefix,
)
from lift_jax.models.critics import Critic, open_critic
from lift_jax.models.functional import functional
from lift_jax.models.vila.tokenizer import IMAGE_TOKEN, PromptTokenizer
from lift_jax.partitioning import MeshConfig
from lift_jax.scoring import scorer as scorer_lib
from lift_jax.scoring.rater import RatingTask, pad_prompts
from lift_jax.scoring.scorer import Prompts, Ratings, Scorer
from tests.models.selections import first_frames
from tests.scoring import tiny_critic

CAPTIONS = ('a red fox', 'two kites', 'rain', 'a bell rings', 'a lamp',
            'a river at night', 'a dog', 'snow')  # fmt: skip
NUM_FRAMES = (8, 5, 8, 1, 8, 8, 3, 8)
PREFIX, QUESTION, ANSWER = 128, 48, 10  # places
ONE = {'data': 1, 'fsdp': 1}
MESH = {'data': 2, 'fsdp': 2, 'tensor': 2}


class World:
  """A critic, and a batch of videos for it."""

  def __init__(self, folder):
    self.folder = folder
    self.critic: Critic = open_critic(tiny_critic.write(folder))
    self.tokenizer: PromptTokenizer = tiny_critic.tokenizer_of(folder)
    rng = np.random.default_rng(0)
    # Each video has a colour of its own, with noise over it.
    size = tiny_critic.CONFIG.vision_tower.image_size
    colours = rng.integers(0, 256, (len(CAPTIONS), 1, 1, 1, 3))
    noise = rng.integers(-60, 60, (len(CAPTIONS), 8, size, size, 3))
    self.frames = np.clip(colours + noise, 0, 255).astype(np.uint8)
    for row, num_frames in enumerate(NUM_FRAMES):
      self.frames[row, num_frames:] = 0

  @functools.cache  # noqa: B019
  def scorer(
    self, dtype: str = 'float32', quantize: str = 'none', **mesh: int
  ) -> Scorer:
    count = int(np.prod(list(mesh.values())))
    return Scorer(
      self.critic,
      partitioning.make_mesh(MeshConfig(**mesh), jax.devices()[:count]),
      dtype,
      'auto',
      quantize=quantize,
      label_ids=label_ids(self.tokenizer),
      stop_ids=self.tokenizer.stop_ids,
      pad_id=self.tokenizer.pad_id,
    )

  @functools.cache  # noqa: B019
  def whole_prompts(self) -> tuple[list[int], ...]:
    """Of each video the three prompts, in the order of DIMENSIONS."""
    questions = read_questions(questions_path())
    return tuple(
      self.tokenizer.inference(
        caption, questions[dimension], first_frames(num_frames)
      )
      for caption, num_frames in zip(CAPTIONS, NUM_FRAMES, strict=True)
      for dimension in DIMENSIONS
    )

  def prompts(
    self, rows: Sequence[int], prefix: int = PREFIX, question: int = QUESTION
  ) -> Prompts:
    """Of some videos, each in as many places."""
    tasks = []
    for row in rows:
      whole = self.whole_prompts()[3 * row : 3 * row + 3]
      length = shared_prefix(whole)
      rest = [ids[length:] for ids in whole]
      tasks.append(
        RatingTask(
          None, None, None, None, whole[0][:length], rest, prefix, question
        )
      )
    return pad_prompts(tasks, self.tokenizer.pad_id)

  def rate(self, rows=range(8), answer=0, **mesh: int) -> Ratings:
    return self.scorer(**(mesh or ONE))(
      self.frames[list(rows)], self.prompts(rows), answer
    )

  @functools.cache  # noqa: B019
  def rated(self) -> Ratings:
    """All videos on one device, with answers."""
    return self.rate(answer=ANSWER)

  @functools.cache  # noqa: B019
  def counted(self) -> '_Counted':
    return _Counted(self.scorer(**ONE)._model)

  @functools.cache  # noqa: B019
  def plain(self):
    """`logits(tokens [24, N], lengths [24])` at the last token of each prompt.

    No cache and no shared prefix: every prompt is computed in full.
    """
    model = functional(self.critic.build())
    mesh = partitioning.make_mesh(MeshConfig(**ONE), jax.devices()[:1])
    shardings = partitioning.param_shardings(
      self.critic.rules, model.abstract_params, mesh
    )
    params = self.critic.load(model, shardings, jnp.float32)
    frames = np.repeat(self.frames, 3, axis=0)

    @jax.jit
    def logits(params, frames, tokens_rn, lengths_r):
      hidden_rnd = model(params, frames, tokens_rn)
      rows = jnp.arange(len(tokens_rn))
      last_rd = hidden_rnd[rows, lengths_r - 1]
      return model(params, last_rd, method='logits')

    return lambda *args: np.asarray(logits(params, frames, *args))


@pytest.fixture(scope='module')
def world(tmp_path_factory) -> World:
  return World(tmp_path_factory.mktemp('critic') / 'model')


class _ScorerTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _world(self, world, caplog):
    self.world, self.caplog = world, caplog

  def assert_same(self, ratings: Ratings, rows, atol=1e-5):
    """The ratings of these videos, whatever the rest of the batch."""
    expected = self.world.rated()
    for name in ('probabilities_bql', 'mass_bq'):
      np.testing.assert_allclose(
        getattr(ratings, name),
        getattr(expected, name)[list(rows)],
        rtol=0,
        atol=atol,
        err_msg=name,
      )
    np.testing.assert_array_equal(ratings.first_bq, expected.first_bq[rows])


class RatingTest(_ScorerTest):
  def pad(self):
    """The unsplit prompts [24, N], and their lengths [24]."""
    whole = self.world.whole_prompts()
    tokens_rn = np.full((24, 160), self.world.tokenizer.pad_id, np.int32)
    for row, ids in enumerate(whole):
      tokens_rn[row, : len(ids)] = ids
    return tokens_rn, np.array([len(ids) for ids in whole], np.int32)

  def test_prompts_are_what_they_seem(self):
    """Frames are in the prefix, whose length differs between videos."""
    prompts = self.world.prompts(range(8))
    self.assertGreater(len(set(prompts.prefix_length_b)), 4)
    self.assertNotIn(IMAGE_TOKEN, prompts.question_bqm)
    num_images = (prompts.prefix_bn == IMAGE_TOKEN).sum(axis=1)
    self.assertEqual(tuple(num_images), NUM_FRAMES)

  def test_whole_prompts(self):
    """A shared prefix gives the same as three separate prompts."""
    logits_rv = self.world.plain()(*self.pad()).astype(np.float64)
    chances_rv = np.exp(logits_rv - logits_rv.max(axis=1, keepdims=True))
    chances_rv /= chances_rv.sum(axis=1, keepdims=True)
    ids = label_ids(self.world.tokenizer)
    chances_rl = chances_rv[:, [ids[label] for label in LABELS]]
    ratings = self.world.rated()
    np.testing.assert_allclose(
      ratings.mass_bq.ravel(), chances_rl.sum(axis=1), rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
      ratings.probabilities_bql.reshape(24, 3),
      chances_rl / chances_rl.sum(axis=1, keepdims=True),
      rtol=0,
      atol=1e-5,
    )
    first_r = ratings.first_bq.ravel()
    np.testing.assert_array_equal(first_r, logits_rv.argmax(axis=1))
    # The test would see little if all were rated alike.
    self.assertEqual(set(first_r.tolist()), set(ids.values()))
    spread_ql = ratings.probabilities_bql.std(axis=0)
    self.assertGreater(spread_ql.min(), 0.03)

  def test_answers(self):
    """Token by token without a cache, and nothing after the stop token."""
    (stop,), pad = self.world.tokenizer.stop_ids, self.world.tokenizer.pad_id
    tokens_rn, lengths_r = self.pad()
    start_r, rows = lengths_r.copy(), np.arange(24)
    expected_ra = np.full((24, ANSWER), pad, np.int32)
    for number in range(ANSWER):
      next_r = self.world.plain()(tokens_rn, lengths_r).argmax(axis=1)
      tokens_rn[rows, lengths_r] = next_r
      lengths_r += 1
      expected_ra[:, number] = next_r
    for row_a in expected_ra:
      (ends,) = np.nonzero(row_a == stop)
      if len(ends):
        row_a[ends[0] + 1 :] = pad
    np.testing.assert_array_equal(lengths_r, start_r + ANSWER)
    answers_ra = self.world.rated().answer_bqa.reshape(24, ANSWER)
    np.testing.assert_array_equal(answers_ra, expected_ra)
    # Some stop early, each at a place of its own, and some do not.
    lengths = [list(row_a).index(stop) if stop in row_a else None
               for row_a in answers_ra]  # fmt: skip
    self.assertGreater(len(set(lengths)), 3)
    self.assertIn(None, lengths)

  def test_no_answer_changes_no_rating(self):
    ratings = self.world.rate()
    self.assertIsNone(ratings.answer_bqa)
    self.assert_same(ratings, range(8))


class SameScoreTest(_ScorerTest):
  def test_order(self):
    rows = [5, 2, 7, 0, 1, 6, 4, 3]
    self.assert_same(self.world.rate(rows), rows)

  def test_batch_size(self):
    self.assert_same(self.world.rate([6]), [6])

  def test_others_in_the_batch(self):
    frames, prompts = self.world.frames.copy(), self.world.prompts(range(8))
    frames[1::2] = 255 - frames[1::2]
    for array in (prompts.prefix_bn, prompts.question_bqm):
      array[1::2] = np.roll(array[1::2], 1, axis=0)
    ratings = self.world.scorer(**ONE)(frames, prompts, 0)
    rows = [0, 2, 4, 6]
    some = Ratings(*(x if x is None else x[rows] for x in ratings))
    self.assert_same(some, rows)
    others = ratings.probabilities_bql[1::2]
    there = self.world.rated().probabilities_bql[1::2]
    self.assertGreater(np.abs(others - there).max(), 0.05)

  def test_padding(self):
    """A larger bucket, and longer questions in the batch."""
    prompts = self.world.prompts(range(8), PREFIX + 16, QUESTION + 32)
    ratings = self.world.scorer(**ONE)(self.world.frames, prompts, 0)
    self.assert_same(ratings, range(8))

  def test_what_pads(self):
    """Frames that a clip lacks, and ids behind the end."""
    prompts, frames = self.world.prompts(range(8)), self.world.frames.copy()
    for row, num_frames in enumerate(NUM_FRAMES):
      frames[row, num_frames:] = 99
      prompts.prefix_bn[row, prompts.prefix_length_b[row] :] = 77
      for number, length in enumerate(prompts.question_length_bq[row]):
        prompts.question_bqm[row, number, length:] = 88
    ratings = self.world.scorer(**ONE)(frames, prompts, 0)
    self.assert_same(ratings, range(8))

  def test_mesh(self):
    ratings = self.world.rate(answer=ANSWER, **MESH)
    self.assert_same(ratings, range(8))
    np.testing.assert_array_equal(
      ratings.answer_bqa, self.world.rated().answer_bqa
    )

  def test_mesh_of_data_alone(self):
    self.assert_same(self.world.rate(data=8, fsdp=1), range(8))

  def test_everything_counts(self):
    """Otherwise the tests above would show nothing."""
    there = self.world.rated().probabilities_bql
    frames, prompts = self.world.frames, self.world.prompts(range(8))
    rate = self.world.scorer(**ONE)
    upside = rate(frames[:, ::-1].copy(), prompts, 0)
    long = np.array(NUM_FRAMES) == 8
    moved = np.abs(upside.probabilities_bql - there)[long]
    self.assertGreater(moved.max(axis=(1, 2)).min(), 1e-4)
    other = prompts._replace(question_bqm=prompts.question_bqm[:, ::-1].copy())
    other = other._replace(
      question_length_bq=prompts.question_length_bq[:, ::-1].copy()
    )
    swapped = rate(frames, other, 0).probabilities_bql
    np.testing.assert_allclose(swapped[:, ::-1], there, rtol=0, atol=1e-5)

  def test_bfloat16(self):
    """The same but for the few digits of the type."""
    ratings = self.world.rate(dtype='bfloat16', **ONE)
    self.assertEqual(ratings.probabilities_bql.dtype, np.float32)
    expected = self.world.rated().probabilities_bql
    error = np.abs(ratings.probabilities_bql - expected)
    self.assertBetween(error.max(), 1e-5, 0.1)
    self.assertLess(error.mean(), 0.02)

  def test_int8(self):
    """On a mesh, whose devices have parts of the int8 kernels."""
    pytest.importorskip('qwix')
    ratings = self.world.rate(quantize='int8', **MESH)
    kernel = self.world.scorer(quantize='int8', **MESH)._params['llm'][
      'blocks'
    ]['mlp']['gate']['kernel']
    self.assertEqual(kernel.qvalue.dtype, jnp.int8)
    self.assertEqual(
      kernel.qvalue.sharding.shard_shape(kernel.shape), (2, 16, 24)
    )
    expected = self.world.rated().probabilities_bql
    error = np.abs(ratings.probabilities_bql - expected)
    self.assertBetween(error.max(), 1e-5, 0.1)
    self.assertLess(error.mean(), 0.02)


class _Counted:
  """A model that counts how often it extends what it has read."""

  def __init__(self, model):
    self._model = model
    self.count = 0

  def _add(self):
    self.count += 1

  def __call__(self, params, *args, method, **kwargs):
    if method == 'extend':
      jax.debug.callback(self._add)
    return self._model(params, *args, method=method, **kwargs)


class AnswerTest(_ScorerTest):
  def answer(self, first_r):
    """Answers that begin so, and how often the loop went round for them."""
    tokenizer = self.world.tokenizer
    scorer, counted = self.world.scorer(**ONE), self.world.counted()
    prompts = Prompts(*map(jnp.asarray, self.world.prompts(range(8))))
    with jax.set_mesh(scorer.mesh):
      _, cache = scorer_lib.rate(
        scorer._model,
        scorer._params,
        jnp.asarray(self.world.frames),
        prompts,
        label_ids=scorer._label_ids,
        max_length=PREFIX + QUESTION + ANSWER,
      )
      before = counted.count
      answers, _ = scorer_lib.answer(
        counted,
        scorer._params,
        jnp.asarray(first_r, jnp.int32),
        cache,
        stop_ids=tokenizer.stop_ids,
        pad_id=tokenizer.pad_id,
        max_tokens=ANSWER,
      )
    answers = np.asarray(answers)
    jax.effects_barrier()
    return answers, counted.count - before

  def lengths(self) -> np.ndarray:
    """Of all answers, stop tokens included; ANSWER + 1 without one."""
    answers = self.world.rated().answer_bqa.reshape(24, ANSWER)
    is_stop = answers == self.world.tokenizer.stop_ids[0]
    return np.where(is_stop.any(axis=1), is_stop.argmax(axis=1), ANSWER) + 1

  @parameterized.parameters(1, 3, 5, ANSWER + 1)
  def test_ends_with_the_last_row(self, longest):
    """Whoever has stopped writes nothing more."""
    (stop,), pad = self.world.tokenizer.stop_ids, self.world.tokenizer.pad_id
    begins = self.world.rated().first_bq.ravel()
    goes_on = self.lengths() <= longest
    answers, count = self.answer(np.where(goes_on, begins, stop))
    expected = max(self.lengths()[goes_on], default=1)
    self.assertEqual(count, min(expected, ANSWER))
    self.assertTrue((answers[~goes_on, 0] == stop).all())
    self.assertTrue((answers[~goes_on, 1:] == pad).all())
    np.testing.assert_array_equal(
      answers[goes_on],
      self.world.rated().answer_bqa.reshape(24, ANSWER)[goes_on],
    )


class CompileTest(_ScorerTest):
  def compiled(self, scorer, *batches) -> list[str]:
    """Names of the programs that these batches compile."""
    self.caplog.clear()
    with (
      jax.log_compiles(),
      self.caplog.at_level(logging.WARNING),
    ):
      for rows in batches:
        prompts = self.world.prompts(rows)
        scorer(self.world.frames[list(rows)], prompts, ANSWER)
    texts = [record.getMessage() for record in self.caplog.records]
    return sorted(
      text.split('jit(')[1].split(')')[0]
      for text in texts
      if text.startswith('Compiling jit(')
    )

  def test_once(self):
    """Whatever the batch contains; the last batch of a job is padded."""
    scorer = self.world.scorer(**MESH)
    self.compiled(scorer, range(8))
    again = self.compiled(scorer, [7, 6, 5, 4, 3, 2, 1, 0], [5] * 7 + [2])
    self.assertEqual(again, [])
    # Its message is what is looked for.
    self.assertIn('rate', self.compiled(scorer, [0, 1, 2, 3]))


class RefuseTest(_ScorerTest):
  def test_mesh(self):
    with self.assertRaisesRegex(UserError, 'mesh.tensor') as caught:
      self.world.scorer(data=1, fsdp=1, tensor=8)
    self.assertLen(str(caught.exception).splitlines(), 1)
