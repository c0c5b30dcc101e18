"""Pretraining of the toy critic: its examples, and the critic folder."""

import collections
import dataclasses
import itertools
import logging
import pathlib
import re
import tempfile

from absl.testing import parameterized
import jax
import numpy as np

from lift_jax import config_lib
from lift_jax.data.hra import DIMENSIONS, LABELS, read_questions
from lift_jax.models import critics
from lift_jax.models.critic_protocols import FrameSelection
from lift_jax.models.critic_tokens import label_tokens
from lift_jax.models.functional import functional
from lift_jax.models.vila import folder as folder_lib
from lift_jax.models.vila.tokenizer import PromptTokenizer
from lift_jax.toyworld import checkers, feedback, flaws, measures, scenes
from lift_jax.toyworld.flaws import Flaw
from lift_jax.toyworld.pretraining import config as pretraining_config
from lift_jax.toyworld.pretraining import critic_model
from lift_jax.toyworld.pretraining.video_model import StageConfig
from lift_jax.toyworld.scenes import Scene
from tests.models.selections import first_frames

_LOGGER = logging.getLogger(__name__)


def _config(is_smoke):
  return config_lib.resolve(
    pretraining_config.get_config(is_smoke)['critic'],
    critic_model.CriticPretrainConfig,
  )


def _shipped():
  """The config of the critic that comes with the package."""
  return _config(is_smoke=False)


def tiny_config(**changes):
  """The shipped critic's config with tiny networks."""
  config = _shipped()
  sizes = {
    'num_clips': 24,
    'num_eval_clips': 4,
    'vision_tower': dataclasses.replace(
      config.vision_tower, width=16, num_layers=2, num_heads=2, mlp_width=16
    ),
    'llm': dataclasses.replace(
      config.llm,
      width=16,
      num_layers=1,
      num_heads=2,
      num_kv_heads=2,
      head_dim=8,
      mlp_width=16,
    ),
    'vision': StageConfig(3, 8, config.vision.optimizer),
    'training': StageConfig(3, 8, config.training.optimizer),
  }
  return dataclasses.replace(config, **sizes | changes)


# Nine frames of four tokens each.
_SEEN = FrameSelection(tuple(range(9)), num_positions=36, is_short=False)


def _tokenizer(path):
  return PromptTokenizer(
    path / folder_lib.LLM, critic_model.TEMPLATE, 4, max_length=256
  )


class ExampleSamplerTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    scratch = cls.enterClassContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(scratch)
    critic_model.write_draft(path, tiny_config())
    cls.tokenizer = _tokenizer(path)
    cls.frames, cls.truths = critic_model.draw_clips(24, 0.5, seed=0)

  def sampler(self, **changes):
    return critic_model.ExampleSampler(
      self.frames, self.truths, self.tokenizer, _SEEN, tiny_config(**changes)
    )

  def drawn(self, num, **changes):
    sampler, rng = self.sampler(**changes), np.random.default_rng(0)
    truths = itertools.islice(itertools.cycle(self.truths), num)
    return [sampler.draw(truth, rng, 0.5) for truth in truths]

  def tokens_of(self, text):
    ids, is_target = self.tokenizer.training('', ' Why?', first_frames(0), text)
    return sum(is_target) - 1

  def test_words_are_tokens(self):
    for text in critic_model.texts():
      pieces = re.findall(r'\w+|[^\w\s]', text)
      # The first word of an answer has no space before it.
      self.assertEqual(self.tokens_of(f'Good. {text.strip()}'), 2 + len(pieces))

  def test_labels_are_tokens(self):
    ids = label_tokens(self.tokenizer)
    self.assertEqual([len(ids[label]) for label in LABELS], [1, 1, 1])

  def test_no_held_out_scenes(self):
    known = {scene.caption for scene in scenes.training_scenes()}
    for truth in self.truths:
      self.assertIn(Scene(**truth.shown).caption, known)
    for caption, question, answer in self.drawn(400):
      if question == critic_model.DESCRIBE:
        self.assertEqual(caption, '')
        self.assertIn(f'{answer.split(".")[0]}.', known)
      else:
        self.assertIn(caption, known)

  def test_labels_are_balanced(self):
    """Over new clips, as flaws are sampled with them."""
    count = collections.Counter()
    questions = read_questions(feedback.questions_path())
    dimensions = {text: name for name, text in questions.items()}
    _, truths = critic_model.draw_clips(300, 0.0, seed=1)
    sampler = self.sampler(describe_share=(0.0, 0.0), compare_share=(0.0, 0.0))
    rng = np.random.default_rng(0)
    for truth in truths * 6:
      _, question, answer = sampler.draw(truth, rng, 0.5)
      count[dimensions[question], answer.split('.')[0]] += 1
    self.assertLen(count, 9)
    for pair, times in count.items():
      self.assertBetween(times, 140, 260, pair)

  def test_descriptions_become_rare(self):
    sampler = self.sampler(describe_share=(0.8, 0.2))
    rng = np.random.default_rng(0)
    for progress, low, high in ((0, 0.7, 0.9), (0.5, 0.4, 0.6), (1, 0.1, 0.3)):
      asked = [
        sampler.draw(self.truths[k % 24], rng, progress)[1] for k in range(200)
      ]
      is_described = [text == critic_model.DESCRIBE for text in asked]
      self.assertBetween(np.mean(is_described), low, high)

  def test_steps(self):
    """A step seeds the sampling and determines the progress."""
    training = dataclasses.replace(tiny_config().training, steps=100)
    self.assertEqual(training.optimizer.cycles, 2)
    changes = {'describe_share': (1.0, 0.0), 'compare_share': (0.0, 0.0)}
    sampler = self.sampler(training=training, **changes)
    numbers = np.arange(24)
    later = sampler(numbers, 99)
    for one, other in zip(
      later,
      self.sampler(training=training, **changes)(numbers, 99),
      strict=True,
    ):
      np.testing.assert_array_equal(one, other)
    self.assertTrue(np.any(sampler(numbers, 98)[1] != later[1]))
    # The weight is 1 for descriptions alone.
    self.assertEqual(np.mean(sampler(numbers, 0)[3]), 1)
    self.assertGreater(np.mean(later[3]), 3)
    # Of each of two cycles.
    self.assertEqual(np.mean(sampler(numbers, 50)[3]), 1)
    self.assertGreater(np.mean(sampler(numbers, 49)[3]), 3)

  def test_compared(self):
    """About one attribute, ignoring the others; half the answers are Good."""
    sampler = self.sampler(describe_share=(0.0, 0.0), compare_share=(1.0, 1.0))
    count = collections.Counter()
    num_others = 0
    rng = np.random.default_rng(0)
    for number in range(1200):
      truth = self.truths[number % 24]
      caption, question, answer = sampler.draw(truth, rng, 0.5)
      (name,) = (
        name
        for name in scenes.ATTRIBUTES
        if question == critic_model.COMPARE.format(name)
      )
      asked, shown = Scene.from_caption(caption), Scene(**truth.shown)
      fits = getattr(asked, name) == getattr(shown, name)
      count[name, answer.split('.')[0]] += 1
      self.assertEqual(answer.startswith('Good.'), fits)
      wrong = flaws.mismatches(truth.shown, dataclasses.asdict(asked))
      num_others += len(wrong.keys() - {name})
      if not fits:
        self.assertIn(f'not {getattr(asked, name)}', answer)
        self.assertNotIn(' and the ', answer)
    self.assertGreater(num_others, 300)
    for name in scenes.ATTRIBUTES:
      for label in ('Good', 'Bad'):
        self.assertBetween(count[name, label], 75, 170, (name, label))

  def test_answers_are_the_checkers(self):
    """Verdicts on known flaws equal those on the pixels."""
    rng = np.random.default_rng(0)
    kinds = flaws.FIDELITY_KINDS, flaws.MOTION_KINDS
    for fidelity, motion in zip(*kinds, strict=True):
      scene = scenes.training_scenes()[rng.integers(1000)]
      known = Flaw(fidelity, 'Normal'), Flaw(motion, 'Bad')
      clip = flaws.make_clip(scene, scene, *known, rng)
      truth = measures.truth_of(scene, *known)
      self.assertEqual(
        checkers.judge(scene, truth),
        checkers.check(clip.caption, clip.frames_thw3),
      )

  def test_targets_are_the_answers(self):
    sampler, again = self.sampler(text_places=96), self.sampler(text_places=96)
    numbers = np.arange(24)
    frames, tokens_bn, is_target_bn, weight_b = sampler(numbers, 2)
    np.testing.assert_array_equal(frames, self.frames)
    self.assertEqual(tokens_bn.shape, (24, 36 + 96))
    rng = np.random.default_rng((tiny_config().seed, 1, 2))
    progress = 2 * 2 / tiny_config().training.steps % 1  # of two cycles
    drawn = [again.draw(truth, rng, progress) for truth in self.truths]
    for index, (_, question, answer) in enumerate(drawn):
      target = tokens_bn[index][is_target_bn[index]]
      self.assertEqual(self.tokenizer.decode(target.tolist()), answer)
      is_description = question == critic_model.DESCRIBE
      self.assertEqual(weight_b[index], 1.0 if is_description else 4.0)

  def test_long_answers_are_truncated(self):
    sequence = self.tokenizer.training(
      'A cat.', ' Why?', first_frames(9), 'Good.' + ' It is.' * 9
    )
    length = len(sequence[0]) - 36 - 5
    tokens_bn, is_target_bn = critic_model.pad_sequences(
      [sequence], self.tokenizer.pad_id, 36 + length
    )
    self.assertEqual(tokens_bn[0].tolist(), sequence[0][:-5])
    self.assertEqual(is_target_bn[0].tolist(), sequence[1][:-5])

  def test_few_answers_are_long(self):
    """At most one in six loses more than full stop and stop token."""
    length_limit = 36 + _shipped().text_places
    lengths = [
      len(self.tokenizer.training(*drawn[:2], _SEEN, drawn[2])[0])
      for drawn in self.drawn(300)
    ]
    self.assertLess(
      np.mean([length > length_limit + 2 for length in lengths]), 1 / 6
    )


class MakeCriticTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    scratch = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(scratch)

  def test_opens_and_answers(self):
    path = self.folder / 'critic'
    config = _config(is_smoke=True)
    with self.assertLogs(_LOGGER, logging.INFO) as logs:
      critic_model.make_critic(path, config, _LOGGER)
    self.assertIn('motion', logs.output[-1])
    self.assertEqual([path], list(self.folder.iterdir()))
    critic = critics.open_critic(path)
    self.assertEqual(critic.config.vision_tower, config.vision_tower)
    model = functional(critic.build())
    mesh = jax.make_mesh((1,), ('x',), devices=jax.devices()[:1])
    everywhere = jax.sharding.NamedSharding(mesh, jax.P())
    params = critic.load(
      model,
      jax.tree.map(lambda _: everywhere, model.abstract_params),
      np.float32,
    )
    rates = critic_model.label_accuracy(model, params, critic, config)
    self.assertEqual(set(rates), set(DIMENSIONS))

  def test_shipped_critic_is_small(self):
    critic = critic_model.write_draft(self.folder, _shipped())
    model = functional(critic.build())
    sizes = [x.size for x in jax.tree.leaves(model.abstract_params)]
    self.assertLess(2 * sum(sizes), 2.5e6)
