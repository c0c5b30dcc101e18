"""`lift score`: whole jobs, killed and resumed ones, and bad input."""

import contextlib
import json
import logging
import pathlib
import re
import shutil
import signal
from unittest import mock

from absl.testing import parameterized
import jax
import numpy as np
import pytest

from lift_jax.cli import job_flags
from lift_jax.data.critic_prompts import NAME, write_prompts
from lift_jax.data.hra import DIMENSIONS, LABELS, conversation
from lift_jax.data.records import read_alignment
from lift_jax.errors import UserError
from lift_jax.evaluation.scores import read_scores
from lift_jax.jobs import score
from lift_jax.models import lora
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.critics import open_critic
from lift_jax.models.functional import functional
from lift_jax.runtime.journal import Journal
from lift_jax.scoring.output import PUBLISHED_KEYS
from lift_jax.weights import param_paths
from tests import hub_server
from tests.data import clips, feedback
from tests.jobs import jobs, runs, score_jobs
from tests.jobs.score_jobs import (
  BUCKETS,
  CLIPS,
  CONFIG,
  LESS,
  QUESTIONS,
  World,
  counting,
  lines_of,
  results_of,
  scores_of,
)


@pytest.fixture(scope='module')
def world(tmp_path_factory) -> World:
  return World(tmp_path_factory.mktemp('world'))


class _ScoreTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folders(self, tmp_path, world, caplog):
    self.folder, self.world, self.caplog = tmp_path, world, caplog
    self.workdir = tmp_path / 'run'

  def arguments(self, **settings) -> list[str]:
    return self.world.arguments(self.workdir, **settings)

  def score(self, **settings) -> jobs.Outcome:
    return jobs.lift(*self.arguments(**settings))

  def copy_data(self) -> pathlib.Path:
    """The clips once more, to be changed."""
    root = self.folder / 'data'
    shutil.copytree(self.world.root, root)
    return root

  def copy_undisturbed(self) -> None:
    shutil.copytree(self.world.undisturbed, self.workdir)

  def assert_ended(self, outcome: jobs.Outcome):
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertEmpty(jobs.leftovers(self.workdir))

  def assert_refused(self, outcome: jobs.Outcome, *words: str):
    self.assertEqual(outcome.status, 2)
    self.assertLen(outcome.stderr.splitlines(), 1)
    self.assertStartsWith(outcome.stderr, 'lift score: error: ')
    for word in words:
      self.assertIn(str(word), outcome.stderr)

  def assert_undisturbed(self):
    self.assertEqual(
      results_of(self.workdir), results_of(self.world.undisturbed)
    )

  def assert_same_scores(self, workdir):
    score_jobs.assert_same_scores(workdir, self.world.undisturbed)

  def write_adapter(self, questions, template) -> pathlib.Path:
    """A random adapter of the language model, as training leaves it."""
    target, rng = self.folder / 'adapter', np.random.default_rng(0)
    config = lora.LoRAConfig(2, 2.0, ('llm/blocks/attn/to_(q|v)',))
    critic = open_critic(self.world.critic)
    model = functional(lora.adapted(critic.build(), config))
    abstract, _ = param_paths.partition(model.abstract_params, lora.is_adapter)
    params = jax.tree.map(
      lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), abstract
    )
    critic.write_adapter(target, params, config, 'float32')
    write_prompts(target, questions, template)
    return target


class ListedTest(_ScoreTest):
  def test_for_another_job(self):
    """As validation of a training run does, again and again."""
    root = self.copy_data()
    flags = [flag for flag in self.arguments(**LESS) if '.videos.' not in flag]
    _, source = job_flags.read_config(
      f'{CONFIG}:smoke', flags[3:], score.ScoreConfig
    )
    logger = logging.getLogger('lift')
    with signals_noted() as noted:
      records, scale = score.rate_listed(source, root, 'test.json', logger)
    self.assertEqual(noted, [])
    self.assertEqual(scale.dimensions, DIMENSIONS)
    scores = scores_of(self.world.undisturbed)
    self.assertEqual(
      [record.caption for record in records],
      [record['caption'] for record in scores],
    )
    for record, expected in zip(records, scores, strict=True):
      for name, answer in record.answers.items():
        label = expected['labels'][name]
        self.assertEqual(scale.classes[answer.label], label)


@contextlib.contextmanager
def signals_noted():
  """The signals that get handlers meanwhile."""
  caught = []
  with mock.patch.object(
    signal, 'signal', lambda number, handler: caught.append(number)
  ):
    yield caught


class WholeTest(_ScoreTest):
  def test_outcome(self):
    outcome = self.world.outcome
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertTrue(outcome.has_logged('score: 0 of 7 videos are rated'))
    self.assertTrue(outcome.has_logged('score: 7 videos in '))
    self.assertTrue(outcome.has_logged('3 of them flagged'))
    self.assertEqual(
      {path.name for path in self.world.undisturbed.iterdir()},
      {'ratings.jsonl', 'scores.json', 'score_config.json'},
    )
    # Five of one length, two of the other.
    self.assertEqual(self.world.num_batches, [4, 4, 4])

  def test_scores(self):
    records = scores_of(self.world.undisturbed)
    critic = open_critic(self.world.critic).fingerprint
    worth = {'Good': 0.9, 'Normal': 0.2, 'Bad': 0.05}
    labels = set()
    for record, (name, (_, caption)) in zip(
      records, CLIPS.items(), strict=True
    ):
      self.assertEqual(record['video'], f'videos/{name}.mp4')
      self.assertEqual(record['caption'], caption)
      self.assertEqual(record['critic'], critic)
      for dimension in DIMENSIONS:
        chances = record['probabilities'][dimension]
        self.assertEqual(tuple(chances), LABELS)
        self.assertAlmostEqual(sum(chances.values()), 1, places=5)
        label = max(chances, key=chances.get)
        self.assertEqual(record['labels'][dimension], label)
        self.assertStartsWith(record[PUBLISHED_KEYS[dimension]], label)
        labels.add(label)
      total = sum(worth[label] for label in record['labels'].values())
      self.assertEqual(record['score'], round(total / 3, 2))
    self.assertEqual(labels, set(LABELS))
    self.assertGreater(len({record['score'] for record in records}), 2)
    flags_of = {record['caption']: record['flags'] for record in records}
    self.assertEqual(
      [flags_of[CLIPS[name][1]] for name in ('a', 'b', 'd', 'black')],
      [[], ['5 frames'], ['single frame'], ['black']],
    )

  def test_other_jobs_read_it(self):
    path = self.world.undisturbed / 'scores.json'
    records = scores_of(self.world.undisturbed)
    aligned = read_alignment(self.world.root, [str(path)])
    self.assertEmpty(aligned.skipped)
    self.assertEqual(
      [(r.video, r.caption, r.reward) for r in aligned.records],
      [(r['video'], r['caption'], r['score']) for r in records],
    )
    evaluated = read_scores(self.world.root, [str(path)])
    self.assertEqual(
      [(r.video, r.caption, r.flags) for r in evaluated.records],
      [(r['video'], r['caption'], tuple(r['flags'])) for r in records],
    )

  def test_conversations_and_manifest(self):
    """The same videos, listed by other jobs: nothing is rated again."""
    self.copy_undisturbed()
    entries = [
      conversation(f'videos/{name}.mp4', caption, question, 'Good', 'Yes.')
      for name, (_, caption) in CLIPS.items()
      for question in QUESTIONS.values()
    ]
    hra = self.folder / 'hra.json'
    hra.write_text(json.dumps(entries))
    manifest = self.folder / 'manifest.jsonl'
    manifest.write_text('\n'.join(
      json.dumps({
        'files': {f'latents/{name}.npy': '0f', f'videos/{name}.mp4': '1e'},
        'prompt': caption,
      })
      for name, (_, caption) in CLIPS.items()
    ))  # fmt: skip
    with counting() as calls:
      for file in (hra, manifest):
        (self.workdir / 'scores.json').unlink()
        self.assert_ended(self.score(videos__files=(str(file),)))
        self.assert_undisturbed()
    self.assertEmpty(calls)

  def test_compiled_once(self):
    """Nothing after the first batch of a bucket, and its last is not full."""
    with jax.log_compiles(), self.caplog.at_level(logging.WARNING):
      self.assert_ended(self.score())
    names = re.findall(r'Compiling jit\((\w+)\)', self.caplog.text)
    for name in ('rate', 'answer'):
      self.assertEqual(names.count(name), len(BUCKETS), names)
    self.assert_undisturbed()

  @parameterized.parameters(
    (1, {'mesh__data': 1, 'run__batch_per_shard': 3}),
    (8, {'mesh__data': 8, 'run__read_ahead': 3}),
  )
  def test_other_layout(self, num_devices, settings):
    mesh = {f'mesh__{axis}': 1 for axis in ('fsdp', 'context', 'tensor')}
    with runs.local_devices(num_devices):
      self.assert_ended(self.score(**LESS | mesh | settings))
    self.assert_same_scores(self.workdir)

  def test_rewards(self):
    """Made anew from the ratings, which stay."""
    self.copy_undisturbed()
    with counting() as calls:
      self.assert_ended(
        self.score(reward__kind='soft', reward__decimals=None, reward__good=1.0)
      )
    self.assertEmpty(calls)
    for record in scores_of(self.workdir):
      self.assertEqual(record['score'], record['soft_reward'])
      expected = np.mean([
        1.0 * chances['Good'] + 0.2 * chances['Normal'] + 0.05 * chances['Bad']
        for chances in record['probabilities'].values()
      ])  # fmt: skip
      self.assertAlmostEqual(record['score'], expected)
    self.assert_ended(self.score())
    self.assert_undisturbed()


class BadClipTest(_ScoreTest):
  def test_undecodable(self):
    """Refused by name; or left without a score, until it is mended."""
    root = self.copy_data()
    clip = root / 'videos' / 'e.mp4'
    clip.write_bytes(clip.read_bytes()[:-400])
    outcome = self.score(videos__root=root)
    self.assert_refused(outcome, 'test.json record 4 (videos/e.mp4)', 'delete')
    self.assertFalse((self.workdir / 'scores.json').exists())
    skip = {'videos__root': root, 'videos__on_bad_record': 'skip'}
    outcome = self.score(**skip)
    self.assert_ended(outcome)
    self.assertTrue(outcome.has_logged('1 videos have an "error" and no score'))
    (error,) = (line for line in scores_of(self.workdir) if 'error' in line)
    self.assertEqual(error['video'], 'videos/e.mp4')
    self.assertNotIn('score', error)
    path = self.workdir / 'scores.json'
    with self.assertRaisesRegex(UserError, 'record 4: no "score"'):
      read_alignment(root, [str(path)])
    self.assertEqual(
      [record.error != '' for record in read_scores(root, [str(path)]).records],
      [name == 'e' for name in CLIPS],
    )
    shutil.copy2(self.world.root / 'videos' / 'e.mp4', clip)
    with adding() as added:
      self.assert_ended(self.score(**skip))
    self.assertEqual(added, ['videos/e.mp4'])
    self.assert_undisturbed()

  def test_long_caption(self):
    """Rated once there is room for it, by the same command otherwise."""
    small = {'prompts__text_buckets': BUCKETS[:1]}
    self.assert_ended(self.score(videos__on_bad_record='skip', **small))
    errors = [record.get('error', '') for record in scores_of(self.workdir)]
    self.assertEqual(
      [name for name, text in zip(CLIPS, errors, strict=True) if text],
      ['c', 'e'],
    )
    self.assertIn('the caption takes', errors[2])
    with adding() as added:
      self.assert_ended(self.score())
    self.assertEqual(added, ['videos/c.mp4', 'videos/e.mp4'])
    self.assert_undisturbed()

  def test_records_that_name_no_clip(self):
    root = self.copy_data()
    items = json.loads((root / 'test.json').read_text())
    items.insert(2, {'video': 'videos/gone.mp4', 'caption': 'A ghost.'})
    (root / 'test.json').write_text(json.dumps(items))
    self.copy_undisturbed()
    outcome = self.score(videos__root=root)
    self.assert_refused(outcome, "test.json record 2: no video file 'videos/go")
    outcome = self.score(videos__root=root, videos__on_bad_record='skip')
    self.assert_ended(outcome)
    self.assertTrue(outcome.has_logged('1 of 8 records were skipped'))
    (skipped,) = json.loads((self.workdir / 'skipped.json').read_text())
    self.assertStartsWith(skipped, 'test.json record 2: ')
    self.assertLen(scores_of(self.workdir), 7)
    self.assert_ended(self.score())
    self.assert_undisturbed()


@contextlib.contextmanager
def adding():
  """The videos that are noted meanwhile."""
  add, videos = Journal.add, []

  def note(self, line):
    videos.append(line['video'])
    add(self, line)

  with mock.patch.object(Journal, 'add', note):
    yield videos


# Killed by a signal once some videos are rated.
_STOPPED = """
import os, signal, sys
from lift_jax.cli import main
from lift_jax.runtime.journal import Journal

add = Journal.add
number, name = int(sys.argv[1]), sys.argv[2]
count = 0

def add_and_stop(self, line):
  global count
  add(self, line)
  count += 1
  if count == number:
    os.kill(os.getpid(), getattr(signal, name))

Journal.add = add_and_stop
sys.exit(main.main(sys.argv[3:]))
"""


class ResumeTest(_ScoreTest):
  def test_stopped(self):
    """Amid a batch, which SIGTERM lets come to its end."""
    names = ('SIGKILL', 'SIGTERM')
    processes = [
      jobs.start(
        _STOPPED, ['3', name, *self.world.arguments(self.folder / name)]
      )
      for name in names
    ]
    expected = ((-signal.SIGKILL, 3), (143, 4))
    for name, (status, num_rated), result in zip(
      names, expected, jobs.finish(*processes), strict=True
    ):
      self.assertEqual(result[0], status, result[2])
      self.assertEqual('SIGTERM' in result[1], name == 'SIGTERM')
      self.assertNotIn('Traceback', result[2])
      self.workdir = self.folder / name
      there = [line['video'] for line in lines_of(self.workdir)]
      self.assertLen(there, num_rated)
      if name == 'SIGTERM':
        self.assertLen(scores_of(self.workdir), num_rated)
      with adding() as added:
        outcome = self.score()
      self.assert_ended(outcome)
      self.assertTrue(outcome.has_logged(f'{num_rated} of 7 videos are rated'))
      self.assertCountEqual(
        [*there, *added], [f'videos/{name}.mp4' for name in CLIPS]
      )
      self.assert_undisturbed()

  def test_killed_at_the_end(self):
    """All ratings are there, and the scores are half written."""
    self.copy_undisturbed()
    scores = self.workdir / 'scores.json'
    scores.unlink()
    ((status, _, errors),) = jobs.finish(
      jobs.start(
        runs.DIE_AT_THE_END, [scores.name, *self.world.arguments(self.workdir)]
      )
    )
    self.assertEqual(status, -signal.SIGKILL, errors)
    self.assertLen(jobs.leftovers(self.workdir), 1)
    with adding() as added:
      self.assert_ended(self.score())
    self.assertEmpty(added)
    self.assertEmpty(jobs.leftovers(self.workdir))
    self.assert_undisturbed()

  def test_torn_and_missing_lines(self):
    self.copy_undisturbed()
    path = self.workdir / 'ratings.jsonl'
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b''.join(lines[:2] + lines[4:])[:-20])
    with adding() as added:
      self.assert_ended(self.score())
    self.assertCountEqual(
      added, ['videos/c.mp4', 'videos/d.mp4', 'videos/g.mp4']
    )
    self.assert_undisturbed()

  def test_nothing_to_do(self):
    self.copy_undisturbed()
    with counting() as calls:
      outcome = self.score()
    self.assertTrue(outcome.has_logged('7 of 7 videos are rated'))
    self.assertEmpty(calls)
    self.assert_undisturbed()

  def test_replaced_video(self):
    """It is rated again, and no other."""
    self.copy_undisturbed()
    root = self.copy_data()
    clip = root / 'videos' / 'e.mp4'
    clips.write_clip(clip, 12, 48, 32, seed=99)
    with adding() as added:
      self.assert_ended(self.score(videos__root=root))
    self.assertEqual(added, ['videos/e.mp4'])
    for record, expected in zip(
      scores_of(self.workdir), scores_of(self.world.undisturbed), strict=True
    ):
      is_new = record['video'] == 'videos/e.mp4'
      self.assertEqual(record != expected, is_new, record['video'])
    shutil.copy2(self.world.root / 'videos' / 'e.mp4', clip)
    self.assert_ended(self.score(videos__root=root))
    self.assert_undisturbed()

  def test_more_videos(self):
    """What is rated stays, also where the list no longer has it."""
    self.copy_undisturbed()
    items = [
      {'video': 'videos/a.mp4', 'caption': 'Something else.'},
      {'video': 'videos/g.mp4', 'caption': 'A potter.'},
    ]
    file = self.folder / 'more.json'
    file.write_text(json.dumps(items))
    with adding() as added:
      self.assert_ended(self.score(videos__files=(str(file),)))
    self.assertEqual(added, ['videos/a.mp4'])
    new, old = scores_of(self.workdir)
    self.assertEqual(new['caption'], 'Something else.')
    self.assertEqual(old, scores_of(self.world.undisturbed)[-1])
    self.assertLen(lines_of(self.workdir), 8)

  def test_full_disk(self):
    """A few of the lines fit."""
    size = len((self.world.undisturbed / 'ratings.jsonl').read_bytes())
    with jobs.full_disk() as fill:
      fill(size // 3)
      outcome = self.score()
    self.assert_refused(
      outcome, 'ratings.jsonl cannot be written (File too large)', 'make room'
    )
    self.assert_ended(self.score())
    self.assert_undisturbed()


class OtherSettingTest(_ScoreTest):
  def assert_differs(self, *words, **settings):
    self.copy_undisturbed()
    before = results_of(self.workdir)
    self.assert_refused(
      self.score(**settings),
      'ratings.jsonl: videos/a.mp4 was rated with ',
      'give another --workdir',
      *words,
    )
    self.assertEqual(results_of(self.workdir), before)

  @parameterized.parameters(
    (
      {'prompts__max_answer_tokens': 7},
      'made_by.max_answer_tokens = 6, which is now 7',
    ),
    (
      {'model__compute_dtype': 'bfloat16'},
      "made_by.compute_dtype = 'float32', which is now 'bfloat16'",
    ),
  )
  def test_setting(self, settings, words):
    self.assert_differs(words, **settings)

  def test_questions(self):
    path = self.folder / 'others.json'
    value = json.loads((self.world.critic / NAME).read_text())
    value['questions']['motion'] = ' Does it move?'
    path.write_text(json.dumps(value))
    self.assert_differs(
      'made_by.questions.motion',
      "now ' Does it move?'",
      prompts__questions=path,
    )

  def test_form_of_the_prompt(self):
    path = self.folder / 'published.json'
    path.write_text(json.dumps({'questions': QUESTIONS}))
    self.assert_differs(
      'made_by.space_before_caption = True, which is now False',
      prompts__questions=path,
    )

  def test_critic(self):
    """Its weights count, not where they lie."""
    self.copy_undisturbed()
    copy = self.folder / 'copy'
    shutil.copytree(self.world.critic, copy)
    self.assert_ended(self.score(model__path=copy))
    self.assert_undisturbed()
    path = copy / 'vision_tower' / 'model.safetensors'
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    shutil.rmtree(self.workdir)
    self.assert_differs('critic = ', model__path=copy)


class HubTest(_ScoreTest):
  @pytest.fixture(autouse=True)
  def _hub(self, tmp_path):
    with hub_server.serve() as self.server:
      with hub_server.use(self.server.url, tmp_path / 'hub'):
        yield

  def test_critic_and_videos(self):
    self.server.add_folder('models/org/critic', self.world.critic)
    self.server.add_folder('datasets/org/clips', self.world.root)
    settings = {'model__path': 'org/critic', 'videos__root': 'org/clips'}
    self.assert_ended(self.score(**settings, **LESS))
    self.assert_same_scores(self.workdir)

  def test_adapter(self):
    """With its questions, and without what PEFT leaves beside it."""
    adapter = self.write_adapter(feedback.QUESTIONS, 'vicuna_v1')
    (adapter / 'non_lora_trainables.bin').write_bytes(b'a pickle')
    self.server.add_folder('models/org/adapter', adapter)
    ours, theirs = (
      open_critic(self.world.critic, [AdapterConfig(str(one))])
      for one in ('org/adapter', adapter)
    )
    self.assertEqual(ours.fingerprint, theirs.fingerprint)
    self.assertEqual(
      {path.name for path in ours.adapters[0].folder.iterdir()},
      {'adapter_config.json', 'adapter_model.safetensors', 'prompts.json'},
    )

  def test_other_model(self):
    """It is refused before its weights are downloaded."""
    config = json.dumps({'model_type': 'llama'}).encode()
    self.server.add_folder(
      'models/org/llm', self.world.critic, **{'config.json': config}
    )
    self.assert_refused(
      self.score(model__path='org/llm'), "model_type is 'llama'"
    )
    self.assertEqual(self.server.downloads(), ['config.json', 'prompts.json'])


class PromptsTest(_ScoreTest):
  def test_of_the_adapter(self):
    """It was trained last, and the critic with it is another one."""
    others = feedback.QUESTIONS
    adapter = self.write_adapter(others, 'vicuna_v1')
    outcome = self.score(model__adapter=adapter, **LESS)
    self.assert_ended(outcome)
    self.assertTrue(
      outcome.has_logged(f'adapter {adapter}: rank 2, alpha 2, scale 1: W + 1')
    )
    for line, there in zip(
      lines_of(self.workdir), lines_of(self.world.undisturbed), strict=True
    ):
      self.assertEqual(line['made_by']['questions'], others)
      self.assertTrue(line['made_by']['space_before_caption'])
      self.assertNotEqual(line['critic'], there['critic'])
      self.assertNotEqual(line['probabilities'], there['probabilities'])

  def test_other_template(self):
    """That of the training is taken; the config takes precedence over it."""
    adapter = self.write_adapter(QUESTIONS, 'hermes-2')
    self.assert_refused(
      self.score(model__adapter=adapter), 'no token <|im_end|>'
    )
    settings = LESS | {'videos__files': ('one.json',)}
    (self.world.root / 'one.json').write_text(
      json.dumps([{'video': 'videos/a.mp4', 'caption': 'A red fox.'}])
    )
    outcome = self.score(
      model__adapter=adapter, model__template='vicuna_v1', **settings
    )
    self.assertTrue(
      outcome.has_logged(
        'model.template is vicuna_v1, but this critic was trained with hermes-2'
      )
    )
    (record,) = scores_of(self.workdir)
    self.assertEqual(record['template'], 'vicuna_v1')

  def test_none(self):
    critic = self.folder / 'critic'
    shutil.copytree(self.world.critic, critic)
    (critic / NAME).unlink()
    self.assert_refused(
      self.score(model__path=critic), critic, 'prompts.questions=FILE.json'
    )
    self.assertFalse((self.workdir / 'ratings.jsonl').exists())


class RefuseTest(_ScoreTest):
  @parameterized.parameters(
    ({'model__path': '/no/critic'}, '/no/critic', 'no such file'),
    ({'model__adapter': '/no/adapter'}, '/no/adapter', 'no such file'),
    ({'videos__root': ''}, 'videos.root is empty', '--config.videos.root'),
    ({'videos__root': '/no/data'}, '/no/data', 'no such folder'),
    ({'videos__files': ('no.json',)}, 'no.json', 'no such file'),
    ({'videos__on_bad_record': 'stop'}, 'videos.on_bad_record', 'skip'),
    ({'prompts__text_buckets': ()}, 'prompts.text_buckets is ()'),
    ({'prompts__text_buckets': (9, 0)}, 'prompts.text_buckets is (9, 0)'),
    ({'prompts__text_buckets': (80,)}, 'record 2 (videos/c.mp4)', 'raise it'),
    ({'prompts__text_buckets': (480,)}, 'the critic reads 512', 'lower'),
    ({'prompts__max_answer_tokens': -1}, 'prompts.max_answer_tokens'),
    ({'prompts__max_answer_tokens': 500}, 'the critic reads 512', 'lower'),
    ({'prompts__questions': '/no/q.json'}, '/no/q.json', 'no such file'),
    ({'reward__kind': 'hard'}, 'reward.kind', 'soft'),
    ({'reward__decimals': -1}, 'reward.decimals'),
    ({'reward__good': 0.1}, 'gives a worse label a higher score'),
    ({'reward__bad': -0.1}, 'bad = -0.1'),
    ({'run__num_readers': 0}, 'run.num_readers must be above 0'),
    ({'run__quantize': 'int4'}, 'run.quantize', 'int8'),
    ({'frames__fps': 2.0}, 'frames.fps: VILA takes evenly spaced frames'),
    ({'mesh__data': 3}, 'mesh of data 3', '8 devices'),
    ({'mesh__data': 1, 'mesh__fsdp': 1, 'mesh__tensor': 8}, 'mesh.tensor'),
    ({'model__template': 'hermes-2'}, 'no token <|im_end|>, <|im_start|>'),
    ({'model__template': 'vicuna'}, 'model.template', 'hermes-2'),
  )  # fmt: skip
  def test_settings(self, settings, *words):
    with counting() as calls:
      self.assert_refused(self.score(**settings), *words)
    self.assertEmpty(calls)
    self.assertFalse((self.workdir / 'scores.json').exists())


# Two hosts: a whole job; one in which the second host cannot read its clips;
# the first again. The second is at work long after the first has ended.
_HOST = """
import json, os, sys, time
from lift_jax.cli import main
from lift_jax.errors import UserError
from lift_jax.scoring import rater

whole, broken = map(json.loads, sys.argv[1:])
is_second = os.environ['JAX_PROCESS_ID'] == '1'
read = rater.read_frames

def read_late(*args):
  time.sleep(2 * is_second)
  return read(*args)

def read_never(task, *args):
  if is_second:
    raise UserError(f'{task.video.where}: cannot be decoded; delete the record')
  return read(task, *args)

rater.read_frames = read_late
status = [main.main([*whole, '--multihost'])]
rater.read_frames = read_never
status += [main.main(broken)]
rater.read_frames = read
status += [main.main(broken)]
print(json.dumps(status))
"""


class MultihostTest(_ScoreTest):
  def test_two_hosts(self):
    broken = self.folder / 'broken'
    calls = [
      self.world.arguments(
        workdir, mesh__data=4, mesh__fsdp=1, mesh__tensor=1, **LESS
      )
      for workdir in (self.workdir, broken)
    ]
    hosts = jobs.two_hosts(_HOST, [json.dumps(call) for call in calls], 4)
    for status, output, errors in hosts:
      self.assertEqual(status, 0, errors)
      self.assertEqual(json.loads(output.splitlines()[-1]), [0, 2, 0], errors)
      self.assertIn('cannot be decoded', errors)
    for workdir in (self.workdir, broken):
      self.assert_same_scores(workdir)
      self.assertEmpty(jobs.leftovers(workdir))
      self.assertEmpty(list(workdir.glob('.ratings-*')))
      self.assertEqual(
        [line['video'] for line in lines_of(workdir)],
        [f'videos/{name}.mp4' for name in CLIPS],
      )


class ExampleTest(_ScoreTest):
  def test_example(self):
    """That of the help text, but smaller: a critic that knows nothing."""
    from lift_jax.jobs import score

    *_, last = score.__doc__.strip().splitlines()
    words = last.split()
    self.assertEqual(words[:3], ['example:', 'lift', 'score'])
    config, workdir = words[3:]
    self.assertEqual(config, '--config=configs/score.py:smoke')
    self.assertStartsWith(workdir, '--workdir=')
    sizes = {
      'vision_tower.image_size': 28,
      'vision_tower.width': 16,
      'vision_tower.mlp_width': 32,
      'vision_tower.num_layers': 2,
      'llm.width': 32,
      'llm.num_layers': 1,
      'llm.num_heads': 2,
      'llm.head_dim': 16,
      'llm.mlp_width': 32,
      'llm.max_length': 512,
    }
    small = [
      f'--config.model.random.{name}={value}' for name, value in sizes.items()
    ]
    outcome = jobs.lift(
      'score',
      f'--config={CONFIG}:smoke',
      f'--workdir={self.workdir}',
      '--config.toy_clips=3',
      '--config.run.batch_per_shard=1',
      *small,
    )
    self.assert_ended(outcome)
    self.assertTrue(outcome.has_logged('3 videos have an "error" and no score'))
    for record in scores_of(self.workdir):
      self.assertRegex(record['error'], 'the answer begins with .*, not with')
      self.assertIn('low label mass', record['flags'])
      self.assertNotIn('score', record)
    with self.assertRaisesRegex(UserError, 'record 0: no "score"'):
      read_alignment(
        self.workdir / 'toy_clips', [str(self.workdir / 'scores.json')]
      )

  def test_help_names_what_is_there(self):
    """The files that a job leaves, and no other."""
    from lift_jax.jobs import score

    named = set(re.findall(r'(\w+\.jsonl?)', score.__doc__))
    self.assertEqual(named, {'scores.json', 'ratings.jsonl'})
