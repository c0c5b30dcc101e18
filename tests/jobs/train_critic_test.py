"""`lift train_critic`: what it leaves, survives and refuses; that it learns."""

import collections
import json
import os
import pathlib
import shutil
import signal
from unittest import mock

from absl.testing import parameterized
import jax
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.data import critic_prompts, splits
from lift_jax.data.hra import DIMENSIONS, read_hra
from lift_jax.models import critics
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.functional import functional
from lift_jax.training import critic
from lift_jax.training.critic_step import CriticStepConfig
from tests.data.clips import moving_square, write_encoded
from tests.jobs import critic_jobs, jobs, runs

_NUM_CLIPS = 10


def _first_step(workdir: pathlib.Path) -> dict:
  return jobs.metrics_of(workdir)[0]


@pytest.fixture(scope='module')
def clips(tmp_path_factory) -> pathlib.Path:
  root = tmp_path_factory.mktemp('critic') / 'clips'
  critic_jobs.make_clips(root, _NUM_CLIPS)
  return root


@pytest.fixture(scope='module')
def whole(clips, tmp_path_factory) -> dict[str, pathlib.Path]:
  """Workdirs of two runs that nothing disturbed, by what they trained.

  That of 'all' holds the random critic that every other run begins with.
  """
  workdirs = {}
  for trainable in ('all', 'lora'):
    workdir = tmp_path_factory.mktemp('critic') / trainable
    settings = {
      'data__root': clips,
      'train__trainable': trainable,
      'lora__dropout': 0.1,
    }
    if workdirs:
      settings['model__path'] = workdirs['all'] / 'model'
    outcome = jobs.lift(*critic_jobs.arguments(workdir, **settings))
    assert (outcome.status, outcome.stderr) == (0, '')
    workdirs[trainable] = workdir
  return workdirs


@pytest.fixture(scope='module')
def killed(clips, whole, tmp_path_factory) -> pathlib.Path:
  """The workdir of a run of 'all' that was killed after step 5."""
  workdir = tmp_path_factory.mktemp('critic') / 'killed'
  process = jobs.start(
    runs.DIE_AT_STEP_5,
    critic_jobs.arguments(
      workdir, data__root=clips, model__path=whole['all'] / 'model'
    ),
  )
  ((status, _, errors),) = jobs.finish(process)
  assert status == -signal.SIGKILL, errors
  return workdir


class _CriticTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, clips, whole, tmp_path):
    self.clips, self.whole, self.folder = clips, whole, tmp_path
    self.workdir = tmp_path / 'run'

  def arguments(self, **settings) -> list[str]:
    return critic_jobs.arguments(
      self.workdir,
      **{
        'data__root': self.clips,
        'model__path': self.whole['all'] / 'model',
      }
      | settings,
    )

  def train(self, **settings) -> jobs.Outcome:
    return jobs.lift(*self.arguments(**settings))

  def part(self, name: str) -> list[int]:
    """Numbers of the clips of a part of the split."""
    path = self.whole['all'] / 'splits' / f'{name}.json'
    videos = {item['video'] for item in json.loads(path.read_text())}
    return [
      index
      for index in range(_NUM_CLIPS)
      if critic_jobs.name_of(index) in videos
    ]

  def state(self, trainable: str):
    """Of the end of a run that nothing disturbed."""
    return jobs.state_of(self.whole[trainable], critic_jobs.STEPS)

  def assert_ended(self, outcome: jobs.Outcome):
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertEqual(
      jobs.steps_of(self.workdir), list(range(1, critic_jobs.STEPS + 1))
    )
    self.assertEqual(jobs.checkpoints_of(self.workdir), ['4', '6'])
    self.assertTrue((self.workdir / 'export' / 'prompts.json').exists())
    self.assertEmpty(jobs.leftovers(self.workdir))

  def assert_refused(self, outcome: jobs.Outcome, *words: str):
    self.assertEqual(outcome.status, 2, outcome.stderr)
    self.assertLen(outcome.stderr.splitlines(), 1)
    self.assertStartsWith(outcome.stderr, 'lift train_critic: error: ')
    for word in words:
      self.assertIn(word, outcome.stderr)

  def assert_nothing_written(self):
    self.assertEqual(list(self.workdir.glob('*')), [])


class WholeTest(_CriticTest):
  @parameterized.parameters('all', 'lora')
  def test_metrics(self, trainable):
    lines = jobs.metrics_of(self.whole[trainable])
    self.assertEqual([line['step'] for line in lines], list(range(1, 7)))
    wanted = {
      'step', 'loss', 'label_loss', 'label_accuracy', 'token_accuracy',
      'grad_norm', 'learning_rate', 'videos_per_second_per_chip',
      'data_wait_seconds', 'step_seconds',
    }  # fmt: skip
    for line in lines:
      self.assertEqual(set(line), wanted)
      self.assertTrue(np.all(np.isfinite(list(line.values()))))
      self.assertGreater(line['videos_per_second_per_chip'], 0)
      np.testing.assert_allclose(
        line['videos_per_second_per_chip'] * line['step_seconds'], 1, rtol=1e-5
      )  # 8 videos on 8 devices
      for name in ('label_accuracy', 'token_accuracy'):
        self.assertBetween(line[name], 0, 1)
    rates = [line['learning_rate'] for line in lines]
    np.testing.assert_allclose(rates[:3], [0, 0.5e-3, 1e-3], atol=1e-9)
    # At first a guess among 512 tokens, with logits of variance 1.
    np.testing.assert_allclose(lines[0]['loss'], np.log(512) + 0.5, atol=0.3)
    self.assertEqual(
      jobs.checkpoints_of(self.whole[trainable]), ['4', str(critic_jobs.STEPS)]
    )
    self.assertEmpty(jobs.leftovers(self.whole[trainable]))

  def test_same_start(self):
    """Adapters change nothing before they have learnt something."""
    first, other = (_first_step(self.whole[name]) for name in ('all', 'lora'))
    np.testing.assert_allclose(first['loss'], other['loss'], rtol=1e-5)

  def test_splits(self):
    """Each is published feedback again, and all are the whole of it."""
    parts = {
      name: read_hra(
        self.clips, [str(self.whole['all'] / 'splits' / f'{name}.json')]
      ).records
      for name in ('train', 'validation', 'test')
    }
    splits.check_disjoint(parts)

    def said(records):
      return sorted(
        (r.video, r.caption, r.question, r.label, r.rationale) for r in records
      )

    for name, records in parts.items():
      self.assertNotEmpty(records, name)
    self.assertEqual(
      said(sum(parts.values(), [])),
      said(read_hra(self.clips, ['hra.json']).records),
    )
    train = parts['train']
    self.assertEqual(
      json.loads((self.whole['all'] / 'splits' / 'train.json').read_text()),
      [
        critic_jobs.entry(int(record.video[7:10]), record.dimension)
        for record in train
      ],
    )

  def test_config_is_kept(self):
    path = self.whole['lora'] / 'train_critic_config.json'
    config = json.loads(path.read_text())
    self.assertEqual(config['train']['trainable'], 'lora')
    self.assertEqual(config['data']['root'], str(self.clips))

  @parameterized.parameters('all', 'lora')
  def test_export(self, trainable):
    """Opens again, is not what it began with, and knows its questions."""
    base, export = self.whole['all'] / 'model', self.whole[trainable] / 'export'
    if trainable == 'lora':
      critic = critics.open_critic(base, [AdapterConfig(str(export))])
      folders = [export, base]
    else:
      critic = critics.open_critic(export)
      folders = [export]
    self.assertNotEqual(
      critic.fingerprint, critics.open_critic(base).fingerprint
    )
    prompts = critic_prompts.find_prompts('', folders)
    self.assertEqual(prompts.questions, critic_jobs.QUESTIONS)
    self.assertTrue(prompts.space_before_caption)
    critic.open_tokenizer('vicuna_v1')

  def test_export_is_what_was_trained(self):
    critic = critics.open_critic(self.whole['all'] / 'export')
    model = functional(critic.build())
    mesh = partitioning.make_mesh(partitioning.MeshConfig())
    shardings = partitioning.param_shardings(
      critic.rules, model.abstract_params, mesh
    )
    params = critic.load(model, shardings, np.float32)
    runs.assert_same(jax.device_get(params), self.state('all')['trainable'])


class ResumeTest(_CriticTest):
  @pytest.fixture(autouse=True)
  def _killed(self, killed):
    self.killed = killed

  def test_killed(self):
    self.assertEqual(jobs.steps_of(self.killed), [1, 2, 3, 4, 5])
    self.assertNotIn('6', jobs.checkpoints_of(self.killed))

  def test_same_mesh(self):
    shutil.copytree(self.killed, self.workdir)
    outcome = self.train()
    self.assertTrue(outcome.has_logged('resumed at step'))
    self.assert_ended(outcome)
    runs.assert_same(jobs.state_of(self.workdir, 6), self.state('all'))

  def test_other_mesh(self):
    shutil.copytree(self.killed, self.workdir)
    outcome = self.train(mesh__data=2, mesh__fsdp=2, mesh__tensor=2)
    self.assertTrue(outcome.has_logged('data 2, fsdp 2, context 1, tensor 2'))
    self.assert_ended(outcome)
    runs.assert_same(
      jobs.state_of(self.workdir, 6)['trainable'],
      self.state('all')['trainable'],
      rtol=1e-5,
      atol=1e-5,
    )

  def test_clips_fail_meanwhile(self):
    """One is cut and one is deleted: others are trained on, and it is said."""
    shutil.copytree(self.killed, self.workdir)
    root = self.folder / 'clips'
    shutil.copytree(self.clips, root)
    cut, gone = map(critic_jobs.name_of, self.part('train')[:2])
    _cut(root / cut)
    (root / gone).unlink()
    outcome = self.train(data__root=root, data__on_bad_record='skip')
    self.assertTrue(outcome.has_logged('resumed at step'))
    self.assert_ended(outcome)
    skipped = json.loads((self.workdir / 'skipped.json').read_text())
    for name, reason in ((cut, 'cut short'), (gone, 'does not exist')):
      told = [line for line in skipped if f'({name}): ' in line]
      self.assertNotEmpty(told)
      for line in told:
        self.assertStartsWith(line, 'hra.json record ')
        self.assertIn(reason, line)
        self.assertRegex(line, r'; trained on hra.json record .* instead$')
        self.assertTrue(outcome.has_logged(line))

  @parameterized.parameters('all', 'lora')
  def test_sigterm(self, trainable):
    previous = signal.getsignal(signal.SIGTERM)
    with runs.after_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
      outcome = self.train(train__trainable=trainable, lora__dropout=0.1)
    self.assertEqual((outcome.status, outcome.stderr), (143, ''))
    self.assertTrue(outcome.has_logged('SIGTERM: saving step 3'))
    self.assertEqual(jobs.checkpoints_of(self.workdir), ['2', '3'])
    self.assertIs(signal.getsignal(signal.SIGTERM), previous)
    self.assertFalse((self.workdir / 'export').exists())
    outcome = self.train(train__trainable=trainable, lora__dropout=0.1)
    self.assertTrue(outcome.has_logged('resumed at step 3'))
    self.assert_ended(outcome)
    runs.assert_same(jobs.state_of(self.workdir, 6), self.state(trainable))

  @parameterized.parameters(
    ({'train__seed': 1}, 'seed is 0 there and 1 here'),
    ({'train__trainable': 'lora'}, 'lora is None there'),
    ({'train__ema_decay': 0.5}, 'has_ema is False there and True here'),
    ({'data__with_rationale': False}, 'data is'),
    ({'data__split.seed': 1}, 'data is'),
    (
      {'data__label_weight': 'balanced'},
      "label_weight is 'none' there and 'balanced' here",
    ),
    ({'train__steps': 4}, 'past the 4 steps', 'raise train.steps'),
  )
  def test_other_run(self, settings, *words):
    shutil.copytree(self.whole['all'], self.workdir)
    outcome = self.train(**settings)
    self.assert_refused(outcome, 'checkpoints/6', '--workdir', *words)
    for name in ('metrics.jsonl', 'train_critic_config.json'):
      self.assertEqual(
        (self.workdir / name).read_text(),
        (self.whole['all'] / name).read_text(),
      )

  def test_other_adapters(self):
    shutil.copytree(self.whole['lora'], self.workdir)
    outcome = self.train(
      train__trainable='lora', lora__rank=4, lora__dropout=0.1
    )
    self.assert_refused(
      outcome, 'checkpoints/6', '--workdir', 'lora is', "'rank': 4"
    )


class StepTest(_CriticTest):
  """What settings do to the first step, whose learning rate is 0."""

  def first_step(self, **settings) -> dict:
    outcome = self.train(
      train__steps=1, train__export=False, checkpoint__every_steps=6, **settings
    )
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    return _first_step(self.workdir)

  def test_gradient_accumulation(self):
    """Two halves of the batch, on one device."""
    with runs.mesh_devices(1):
      outcome = self.train(train__grad_accum=2)
    self.assertTrue(outcome.has_logged('1 cpu device:'))
    self.assert_ended(outcome)
    runs.assert_same(
      jobs.state_of(self.workdir, 6)['trainable'],
      self.state('all')['trainable'],
      rtol=1e-5,
      atol=1e-5,
    )
    for line, other in zip(
      jobs.metrics_of(self.workdir),
      jobs.metrics_of(self.whole['all']),
      strict=True,
    ):
      for name in ('loss', 'label_loss', 'grad_norm', 'token_accuracy'):
        np.testing.assert_allclose(line[name], other[name], rtol=1e-4)

  def test_without_rationale(self):
    """The same rows, of which less is learnt: label, full stop and end."""
    with mock.patch.object(
      critic, 'CriticStepConfig', wraps=CriticStepConfig
    ) as step_config:
      first = self.first_step(data__with_rationale=False)
    self.assertEqual(step_config.call_args.args[0], 3)
    whole = _first_step(self.whole['all'])
    np.testing.assert_allclose(
      first['label_loss'], whole['label_loss'], rtol=1e-5
    )
    self.assertGreater(abs(first['loss'] - whole['loss']), 1e-4)

  def test_balanced_labels(self):
    """Weights change what is learnt, not what is counted."""
    first = self.first_step(data__label_weight='balanced')
    whole = _first_step(self.whole['all'])
    for name in ('label_loss', 'label_accuracy', 'token_accuracy'):
      np.testing.assert_allclose(first[name], whole[name], rtol=1e-5)
    self.assertGreater(abs(first['loss'] - whole['loss']), 1e-4)


def _change(items: list, index: int, **changes: str):
  """Other words of an entry: `video`, or a `gpt` or `human` turn."""
  item = items[index]
  if 'video' in changes:
    item['video'] = changes['video']
  for turn in item['conversations']:
    turn['value'] = changes.get(turn['from'], turn['value'])


def _cut(path: pathlib.Path):
  """Cuts the data of a clip; its header stays sound."""
  content = path.read_bytes()
  assert content.index(b'moov') < content.index(b'mdat')
  path.write_bytes(content[: len(content) * 7 // 10])


class RefuseTest(_CriticTest):
  @pytest.fixture(autouse=True)
  def _own_clips(self, _setting):
    self.root = self.folder / 'clips'
    shutil.copytree(self.clips, self.root)
    self.items = critic_jobs.entries(range(_NUM_CLIPS))
    self.last = self.part('train')[-1]  # that trains, and no test breaks else

  def train(self, **settings) -> jobs.Outcome:
    critic_jobs.write(self.root / 'hra.json', self.items)
    return super().train(data__root=self.root, **settings)

  def refuse(self, *words: str, **settings):
    self.assert_refused(self.train(**settings), *words)
    self.assert_nothing_written()

  def test_unknown_label(self):
    _change(self.items, 4, gpt='Great. I saw it.')
    self.refuse('hra.json record 4', "'Great. I saw it", 'Good, Normal, Bad')

  def test_no_answer(self):
    del self.items[4]['conversations'][1]
    self.refuse('hra.json record 4', 'no gpt turn', 'write one')

  def test_answers_disagree(self):
    label = self.items[4]['conversations'][1]['value'].split('.')[0]
    other = 'Bad' if label == 'Good' else 'Good'
    self.items.append(critic_jobs.entry(1, DIMENSIONS[1], other))
    self.refuse(
      'hra.json record 30', f'{other} for the motion dimension',
      f'hra.json record 4 (videos/001.mp4) says {label}', 'delete one',
    )  # fmt: skip

  def test_missing_video(self):
    _change(self.items, 4, video='videos/none.mp4')
    self.refuse('hra.json record 4', 'videos/none.mp4')

  def test_undecodable_video(self):
    """That nobody has opened until the frames are counted."""
    (self.root / critic_jobs.name_of(self.last)).write_text('not a video')
    self.refuse('hra.json record', critic_jobs.name_of(self.last), 'delete')

  def test_held_out_caption(self):
    """The test set has a clip of its own, of a caption that trains."""
    shutil.copy(self.root / 'videos/000.mp4', self.root / 'videos/copy.mp4')
    leak = critic_jobs.entry(self.last, 'motion')
    leak['video'] = 'videos/copy.mp4'
    critic_jobs.write(self.root / 'test.json', [leak])
    self.refuse(
      'test.json record 0', 'in test', 'in train', 'the caption "a square',
      data__held_out=('test.json',),
    )  # fmt: skip

  def test_held_out_video(self):
    leak = critic_jobs.entry(self.last, 'motion')
    human = leak['conversations'][0]['value'].replace('a square', 'no square')
    leak['conversations'][0]['value'] = human
    critic_jobs.write(self.root / 'test.json', [leak])
    self.refuse(
      'test.json record 0', 'the video', 'in test', 'in train',
      data__held_out=('test.json',),
    )  # fmt: skip

  def test_long_caption(self):
    self.refuse(
      'hra.json record', 'more than the longest sequence', 'data.text_buckets',
      data__text_buckets=(80,),
    )  # fmt: skip

  def test_longer_than_the_critic_reads(self):
    human = f'<video>\n {"z" * 1000}{critic_jobs.QUESTIONS["semantic"]}'
    _change(self.items, 3 * self.last, human=human)
    self.refuse(
      f'hra.json record {3 * self.last}', 'at most 1024',
      'shorten the texts', data__text_buckets=(4000,),
    )  # fmt: skip

  @parameterized.parameters(
    (
      {'train__trainable': 'blocks'},
      'train.trainable', "['lora', 'all', 'parts']",
    ),
    (
      {'mesh__tensor': 8},
      'mesh.tensor is 8', 'the 2 query heads', 'choose another mesh',
    ),
    ({'train__batch_size': 6}, 'batch of 6 videos', '8 devices'),
    (
      {'data__root': '', 'toy_clips': 0},
      'data.root is empty', '--config.data.root=FOLDER',
    ),
    (
      {'data__split.test': 0.0, 'data__split.validation': 0.001},
      'falls into validation', 'raise its fraction',
    ),
    ({'model__template': 'chatml'}, 'model.template', 'vicuna_v1'),
    ({'model__template': 'hermes-2'}, '<|im_end|>', 'prompt template'),
    (
      {'train__trainable': 'lora', 'lora__targets': ('nothing',)},
      'lora.targets', 'nothing',
    ),
    ({'data__real_share': 0.5}, 'data.real_share', 'generated'),
    ({'model__path': '', 'model__random': None}, 'model.path is empty'),
  )  # fmt: skip
  def test_settings(self, settings, *words):
    outcome = _CriticTest.train(self, **({'data__root': self.root} | settings))
    self.assert_refused(outcome, *words)
    self.assert_nothing_written()

  def test_skip(self):
    """Bad records are listed and left out; the others train."""
    _change(self.items, 1, gpt='Great.')
    _change(self.items, 4, video='videos/none.mp4')
    bad = critic_jobs.name_of(self.last)
    (self.root / bad).write_text('not a video')
    flagged = critic_jobs.name_of(self.part('train')[0])
    write_encoded(
      self.root / flagged,
      moving_square(5, 16, 16),
      times=[0, 1, 2, 3, 6],
    )
    other = self.part('train')[-2]
    cut = critic_jobs.name_of(other)
    _cut(self.root / cut)
    outcome = self.train(data__on_bad_record='skip', train__steps=1)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    listed = json.loads((self.workdir / 'flagged.json').read_text())
    self.assertEqual(list(listed), [flagged])
    self.assertStartsWith(listed[flagged][0], 'variable frame rate: ')
    self.assertTrue(outcome.has_logged(f'8 of {len(self.items)} records were'))
    skipped = json.loads((self.workdir / 'skipped.json').read_text())
    self.assertLen(skipped, 8)
    wanted = (
      ('hra.json record 1: ', "'Great.'", 'write one of'),
      ('hra.json record 4: ', "'videos/none.mp4'", 'delete the record'),
      *(
        (f'hra.json record {3 * other + k} ({cut}): ', 'cut short')
        for k in range(3)
      ),
      *(
        (f'hra.json record {3 * self.last + k} ({bad}): ', 'cannot be decoded')
        for k in range(3)
      ),
    )
    for line, (where, *words) in zip(skipped, wanted, strict=True):
      self.assertStartsWith(line, where)
      self.assertEqual(line.count('hra.json'), 1)
      for word in words:
        self.assertIn(word, line)
    lost = {1, 4} | {
      3 * index + k for index in (self.last, other) for k in range(3)
    }
    left = [
      3 * index + k
      for index in self.part('train')
      for k in range(3)
      if 3 * index + k not in lost
    ]
    self.assertTrue(outcome.has_logged(f'{len(left)} sequences of'))

  def test_clip_is_cut(self):
    """Found before anything is written."""
    path = self.root / critic_jobs.name_of(self.last)
    content = path.read_bytes()
    _cut(path)
    outcome = self.train()
    self.assert_refused(
      outcome, 'hra.json record', path.name, 'cut short', 'delete the record'
    )
    self.assert_nothing_written()
    # Mended, it goes on as if nothing had been.
    path.write_bytes(content)
    self.assert_ended(self.train())
    runs.assert_same(jobs.state_of(self.workdir, 6), self.state('all'))


class ValidationTest(_CriticTest):
  def test_on_the_way(self):
    """Training does not notice, nor does it learn from them."""
    outcome = self.train(validation__every_steps=3)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    runs.assert_same(jobs.state_of(self.workdir, 6), self.state('all'))
    lines = [
      line
      for line in jobs.metrics_of(self.workdir)
      if 'validation/loss' in line
    ]
    self.assertEqual([line['step'] for line in lines], [0, 3, 6])
    self.assertLess(lines[-1]['validation/loss'], lines[0]['validation/loss'])
    for line in lines:
      self.assertBetween(line['validation/label_accuracy'], 0, 1)

  def test_bad_clip(self):
    """Of the validation part: found before anything is written."""
    root = self.folder / 'clips'
    shutil.copytree(self.clips, root)
    bad = critic_jobs.name_of(self.part('validation')[0])
    (root / bad).write_text('not a video')
    outcome = self.train(data__root=root, validation__every_steps=3)
    self.assert_refused(outcome, 'hra.json record', bad, 'delete the record')
    self.assert_nothing_written()


class LearnTest(_CriticTest):
  def test_beats_the_majority(self):
    """On clips that it never saw, by what `lift score` makes of it.

    All three answers differ by the question alone, two also by the pixels. The
    caption tells nothing.
    """
    root = self.folder / 'flawed'
    critic_jobs.make_flawed_clips(root, 160)
    with runs.mesh_devices(1):
      outcome = jobs.lift(
        *critic_jobs.arguments(
          self.workdir, data__root=root, **critic_jobs.LEARNING
        )
      )
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    test = self.workdir / 'splits' / 'test.json'
    with runs.mesh_devices(1):
      outcome = jobs.lift(
        'score',
        f'--config={jobs.REPOSITORY / "configs" / "score.py"}:smoke',
        f'--workdir={self.folder / "scores"}',
        f'--config.model.path={self.workdir / "export"}',
        f'--config.videos.root={root}',
        f'--config.videos.files={(str(test),)}',
        '--config.toy_clips=0',
        f'--config.prompts.text_buckets={(112,)}',
      )
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    scores = json.loads((self.folder / 'scores' / 'scores.json').read_text())
    rated = {record['video']: record['labels'] for record in scores}
    records = read_hra(root, [str(test)]).records
    for dimension in DIMENSIONS:
      own = [r for r in records if r.dimension == dimension]
      self.assertGreaterEqual(len(own), 30)
      right = np.mean([rated[r.video][dimension] == r.label for r in own])
      counts = collections.Counter(r.label for r in own)
      majority = max(counts.values()) / len(own)
      if dimension == 'semantic':
        self.assertEqual((majority, right), (1, 1))
      else:
        self.assertLess(majority, 0.7)
        self.assertGreaterEqual(right, majority + 0.25, dimension)


class MultihostTest(_CriticTest):
  def test_two_hosts(self):
    """They make the random critic together, too."""
    argv = self.arguments(model__path='')
    hosts = jobs.two_hosts(
      'import sys; from lift_jax.cli import main; sys.exit(main.main())',
      [*argv, '--multihost'],
      2,
    )
    for status, _, errors in hosts:
      self.assertEqual((status, errors), (0, ''))
    self.assertEqual(
      jobs.steps_of(self.workdir), list(range(1, critic_jobs.STEPS + 1))
    )
    runs.assert_same(
      jobs.state_of(self.workdir, 6)['trainable'],
      self.state('all')['trainable'],
      rtol=1e-5,
      atol=1e-5,
    )
    self.assertEmpty(jobs.leftovers(self.workdir))
    base, export = (
      critics.open_critic(self.workdir / name) for name in ('model', 'export')
    )
    self.assertEqual(
      base.fingerprint,
      critics.open_critic(self.whole['all'] / 'model').fingerprint,
    )
    self.assertNotEqual(base.fingerprint, export.fingerprint)
    self.assertTrue((export.path / 'prompts.json').exists())


class ToyClipsTest(_CriticTest):
  def test_without_data(self):
    """Clips and feedback are made where none are named."""
    outcome = self.train(
      data__root='',
      data__text_buckets=(224,),
      toy_clips=20,
      train__steps=1,
    )
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    export = self.workdir / 'export'
    prompts = critic_prompts.find_prompts('', [export])
    # A part may be too small for the questions to be found in it.
    parts = [
      read_hra(
        self.workdir / 'toy_clips',
        [str(self.workdir / 'splits' / f'{name}.json')],
        prompts.questions,
      ).records
      for name in ('train', 'validation', 'test')
    ]
    self.assertEqual(sum(map(len, parts)), 3 * 20)
    self.assertEqual(
      {r.dimension: r.question for r in parts[0]}, prompts.questions
    )
