"""`lift align`: what it survives, what it refuses, what it leaves behind."""

import functools
import json
import os
import pathlib
import shutil
import signal
import struct
import time
from unittest import mock

from absl.testing import parameterized
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from lift_jax import config_lib
from lift_jax.data import cache as cache_lib
from lift_jax.data import global_batch
from lift_jax.data import video as video_lib
from lift_jax.errors import UserError
from lift_jax.jobs.align_config import AlignConfig
from tests.comparison import sets
from tests.jobs import jobs, runs, simulated_rounds


@pytest.fixture(scope='module')
def killed(world, tmp_path_factory) -> pathlib.Path:
  """The workdir of a run that was killed after step 5."""
  workdir = tmp_path_factory.mktemp('killed') / 'run'
  process = jobs.start(runs.DIE_AT_STEP_5, world.align(workdir))
  ((status, _, errors),) = jobs.finish(process)
  assert status == -signal.SIGKILL, errors
  return workdir


class _AlignTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, world, whole, tmp_path):
    self.world, self.whole, self.folder = world, whole, tmp_path
    self.workdir = tmp_path / 'run'

  def align(self, **settings) -> jobs.Outcome:
    return jobs.lift(*self.world.align(self.workdir, **settings))

  def assert_ended(self, outcome: jobs.Outcome):
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertEqual(
      jobs.steps_of(self.workdir), list(range(1, jobs.STEPS + 1))
    )
    self.assertEqual(jobs.checkpoints_of(self.workdir), ['4', '6'])
    self.assertEmpty(jobs.leftovers(self.workdir))

  def assert_refused(self, outcome: jobs.Outcome, *words: str):
    self.assertEqual(outcome.status, 2)
    self.assertLen(outcome.stderr.splitlines(), 1)
    self.assertStartsWith(outcome.stderr, 'lift align: error: ')
    for word in words:
      self.assertIn(word, outcome.stderr)

  def assert_compared(self, workdir):
    """Metrics of the clips, which are those of the base before step 1."""
    first, *others = (
      line for line in jobs.metrics_of(workdir) if 'loss' not in line
    )
    self.assertEqual([first['step'], *(o['step'] for o in others)], [0, 3, 6])
    changes = [name for name in first if name.endswith('_change')]
    self.assertIn('validation/own_temporal_flickering_change', changes)
    self.assertEqual(first['validation/distance_to_base'], 0)
    for name in changes:
      self.assertEqual(first[name], 0)
    distances = [line['validation/distance_to_base'] for line in others]
    self.assertBetween(distances[0], 1e-9, distances[1])
    self.assertTrue(any(others[1][name] for name in changes))
    base = sorted((workdir / 'validation' / 'base').glob('*.mp4'))
    self.assertLen(base, 2)
    for path in base:
      again = workdir / 'validation' / 'step_00000000' / path.name
      self.assertEqual(path.read_bytes(), again.read_bytes())


class ResumeTest(_AlignTest):
  @pytest.fixture(autouse=True)
  def _killed(self, killed):
    self.killed = killed

  def resume(self) -> jobs.Outcome:
    shutil.copytree(self.killed, self.workdir)
    return self.align()

  def test_killed(self):
    self.assertEqual(jobs.steps_of(self.killed), [1, 2, 3, 4, 5])
    self.assertNotIn('6', jobs.checkpoints_of(self.killed))

  def test_same_mesh(self):
    outcome = self.resume()
    self.assertTrue(outcome.has_logged('resumed at step'))
    self.assert_ended(outcome)
    runs.assert_same(
      jobs.state_of(self.workdir, 6), jobs.state_of(self.whole, 6)
    )

  def test_half_a_checkpoint(self):
    """What a kill in the middle of a save leaves is cleared away."""
    shutil.copytree(self.whole, self.workdir)
    folder = self.workdir / 'checkpoints'
    (folder / '6').rename(folder / '6.orbax-checkpoint-tmp')
    (folder / '6.orbax-checkpoint-tmp' / 'commit_success.txt').unlink()
    outcome = self.align()
    self.assertTrue(outcome.has_logged('resumed at step 4'))
    self.assert_ended(outcome)
    runs.assert_same(
      jobs.state_of(self.workdir, 6), jobs.state_of(self.whole, 6)
    )

  def test_again_after_the_end(self):
    shutil.copytree(self.whole, self.workdir)
    self.assert_ended(self.align())
    runs.assert_same(
      jobs.state_of(self.workdir, 6), jobs.state_of(self.whole, 6)
    )


class PairsTest(_AlignTest):
  def test_dpo(self):
    """At the reference, no clip is preferred; then the winners are."""
    root = self.folder / 'clips'
    shutil.copytree(self.world.root, root)
    names = [f'videos/wide_{index}.mp4' for index in range(4)]
    labels = ('Good', 'Bad', 'Normal', 'Normal')
    items = [
      {
        'video': name,
        'caption': f'caption {index // 2}',
        'score': 0.9 - 0.2 * index,
        'labels': {'semantic': label},
      }
      for index, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    (root / 'pairs.json').write_text(json.dumps(items))
    outcome = self.align(
      data__root=root,
      data__cache='',
      data__synthetic='pairs.json',
      objective__name='dpo',
      pairs__min_motion=0.0,
      mesh__fsdp=4,
      mesh__tensor=2,
      train__steps=4,
      train__log_every=1,
    )
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    pairs = json.loads((self.workdir / 'pairs.json').read_text())
    self.assertEqual(
      [(pair['winner'], pair['loser']) for pair in pairs],
      [(names[0], names[1]), (names[2], names[3])],
    )
    self.assertTrue(outcome.has_logged('2 pairs of clips from 2 prompts'))
    lines = jobs.metrics_of(self.workdir)
    self.assertEqual(lines[0]['winner_change'], 0)
    self.assertEqual(lines[0]['implicit_accuracy'], 0.5)
    np.testing.assert_allclose(lines[0]['loss'], np.log(2), rtol=1e-6)
    self.assertGreater(lines[-1]['logit'], 0)

  def test_batch_would_split_a_pair(self):
    outcome = self.align(objective__name='dpo')
    self.assert_refused(outcome, 'a batch of 8 videos in pairs')


class TopologyTest(_AlignTest):
  def align_on(self, num_devices: int, **settings) -> jobs.Outcome:
    with runs.mesh_devices(num_devices):
      outcome = self.align(train__steps=8, **{'mesh__fsdp': 1} | settings)
    devices = f'{num_devices} cpu device' + 's' * (num_devices > 1)
    self.assertTrue(outcome.has_logged(f'align: {devices}: '))
    return outcome

  def test_other_devices(self):
    """On 8, 4, 1 and again 8, two steps each: as if all were done on 1."""
    self.assertEqual(self.align_on(1).status, 0)
    whole, self.workdir = self.workdir, self.folder / 'moved'
    topologies = (
      (8, {'mesh__data': 2, 'mesh__fsdp': 2, 'mesh__tensor': 2}),
      (4, {'mesh__fsdp': 4}),
      (1, {}),
      (8, {'mesh__fsdp': 2, 'mesh__context': 4}),
    )
    stop = functools.partial(os.kill, os.getpid(), signal.SIGTERM)
    for number, (num_devices, mesh) in enumerate(topologies):
      # What it hears at the end of a step it does after the next one.
      with runs.after_step(2 * number + 1, stop if number < 3 else int):
        outcome = self.align_on(num_devices, **mesh)
      self.assertEqual(outcome.status, 143 if number < 3 else 0)
      resumed = f'align: resumed at step {2 * number}'
      self.assertEqual(outcome.has_logged(resumed), number > 0)
    lines, expected = map(jobs.metrics_of, (self.workdir, whole))
    self.assertEqual([line['step'] for line in lines], list(range(1, 9)))
    np.testing.assert_allclose(
      [line['loss'] for line in lines],
      [line['loss'] for line in expected],
      rtol=1e-5,
    )
    runs.assert_same(
      jobs.state_of(self.workdir, 8)['trainable'],
      jobs.state_of(whole, 8)['trainable'],
      rtol=1e-5,
      atol=1e-5,
    )


class StopTest(_AlignTest):
  def test_sigterm(self):
    previous = signal.getsignal(signal.SIGTERM)
    with runs.after_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
      outcome = self.align()
    self.assertEqual((outcome.status, outcome.stderr), (143, ''))
    self.assertTrue(outcome.has_logged('SIGTERM: saving step 3'))
    self.assertEqual(jobs.checkpoints_of(self.workdir), ['2', '3'])
    self.assertEqual(jobs.steps_of(self.workdir), [1, 2, 3])
    self.assertIs(signal.getsignal(signal.SIGTERM), previous)
    outcome = self.align()
    self.assertTrue(outcome.has_logged('resumed at step 3'))
    self.assert_ended(outcome)
    runs.assert_same(
      jobs.state_of(self.workdir, 6), jobs.state_of(self.whole, 6)
    )

  def test_loss_is_nan(self):
    """Right at a checkpoint: that of step 4 is not written."""
    calls = []
    to_global = global_batch.to_global

    def spoilt(arrays, *args):
      calls.append(None)
      if len(calls) == 4:
        arrays = arrays | {'mean': np.full_like(arrays['mean'], np.nan)}
      return to_global(arrays, *args)

    with mock.patch.object(global_batch, 'to_global', spoilt):
      outcome = self.align()
    self.assert_refused(
      outcome, 'loss is nan at step 4', 'checkpoints', 'learning rate'
    )
    self.assertEqual(jobs.checkpoints_of(self.workdir), ['2'])
    self.assertEmpty(jobs.leftovers(self.workdir))
    self.assertEqual(jobs.steps_of(self.workdir), [1, 2, 3])

  def test_parameters_overflow(self):
    """The loss of the step that spoils them is still good."""
    outcome = self.align(optimizer__learning_rate=1e30)
    self.assert_refused(
      outcome, 'the norm of the parameters is inf at step 2', 'learning rate'
    )
    self.assertEqual(jobs.checkpoints_of(self.workdir), [])

  def test_disk_full(self):
    def fill_after_the_first_checkpoint():
      while not (self.workdir / 'checkpoints' / '2').exists():
        time.sleep(0.01)
      fill(20_000)

    with (
      jobs.full_disk() as fill,
      runs.after_step(3, fill_after_the_first_checkpoint),
    ):
      outcome = self.align()
    self.assert_refused(
      outcome, 'checkpoints', 'could not be written', 'make room',
      'to resume from step 2',
    )  # fmt: skip
    self.assertEmpty(jobs.leftovers(self.workdir))
    outcome = self.align()
    self.assertTrue(outcome.has_logged('resumed at step 2'))
    self.assert_ended(outcome)
    runs.assert_same(
      jobs.state_of(self.workdir, 6), jobs.state_of(self.whole, 6)
    )


class RefuseTest(_AlignTest):
  def copy_whole(self):
    shutil.copytree(self.whole, self.workdir)

  def assert_unchanged(self):
    """The run that was there is as it was."""
    for name in ('align_config.json', 'metrics.jsonl'):
      self.assertEqual(
        (self.workdir / name).read_text(), (self.whole / name).read_text()
      )
    self.assertEqual(jobs.checkpoints_of(self.workdir), ['4', '6'])
    self.assertEmpty(jobs.leftovers(self.workdir))

  @parameterized.parameters(
    ({'train__seed': 1}, 'seed is 0 there and 1 here'),
    ({'train__trainable': 'all'}, "trainable is 'blocks' there and 'all' here"),
    ({'train__batch_size': 16}, 'batch_size is 8 there and 16 here'),
    ({'train__ema_decay': 0.5}, 'has_ema is False there and True here'),
    ({'data__synthetic': 'all.json'}, 'data is'),
    ({'train__steps': 4}, 'past the 4 steps', 'raise train.steps'),
  )
  def test_other_run(self, settings, *words):
    self.copy_whole()
    outcome = self.align(**settings)
    self.assert_refused(outcome, 'checkpoints/6', '--workdir', *words)
    self.assert_unchanged()

  def test_other_model(self):
    self.copy_whole()
    model = self.folder / 'model'
    shutil.copytree(self.world.workdir / 'model', model)
    path = model / 'transformer' / 'diffusion_pytorch_model.safetensors'
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    outcome = self.align(model__path=model)
    self.assert_refused(outcome, 'checkpoints/6', 'model is', '--workdir')
    self.assert_unchanged()

  def test_damaged_checkpoint(self):
    self.copy_whole()
    for path in (self.workdir / 'checkpoints' / '6' / 'state').rglob('d/*'):
      path.unlink()
    outcome = self.align()
    self.assert_refused(outcome, 'checkpoints/6', 'cannot be read', 'delete it')
    shutil.rmtree(self.workdir / 'checkpoints' / '6')
    self.assert_ended(self.align())

  @parameterized.parameters(
    ({'train__batch_size': 6}, 'batch of 6 videos', '8 devices'),
    ({'train__profile': '7:1'}, 'starts at step 7', 'the run has only 6'),
    ({'train__grad_accum': 3}, 'batch of 8 videos', 'grad_accum = 3'),
    ({'mesh__fsdp': 3}, 'fsdp 3', 'the 8 devices'),
    ({'mesh__data': -1}, 'data -1', 'at most one axis'),
    ({'mesh__fsdp': 1, 'mesh__context': 0}, 'context 0', 'positive'),
    ({'mesh__tensor': 8}, 'mesh.tensor is 8', 'the 2 attention heads'),
  )
  def test_mesh(self, settings, *words):
    self.assert_refused(self.align(**settings), *words)
    self.assertEqual(list(self.workdir.iterdir()), [])

  def test_model_of_other_sizes(self):
    """The random model of an earlier run is not passed off as another."""
    shutil.copytree(self.world.workdir / 'model', self.workdir / 'model')
    outcome = self.align(
      model__path='', **{'model.random.transformer.num_layers': 2}
    )
    self.assert_refused(
      outcome, 'transformer.num_layers = 1', 'now 2', '--workdir'
    )


class MetricsTest(_AlignTest):
  def test_tensorboard(self):
    """A reward of 0.9 or less than 0.1 falls into a range of its own."""
    (path,) = (self.whole / 'tensorboard').glob('events.*')
    tags = {}
    for event in _events(path):
      for value in event.summary.value:
        tags.setdefault(value.tag, []).append((event.step, value.simple_value))
    wanted = {
      'loss', 'loss/reward_to_0.1', 'loss/reward_to_0.3', 'loss/reward_to_0.5',
      'loss/reward_to_0.7', 'grad_norm', 'learning_rate', 'reward',
      'effective_sample_share', 'videos_per_second_per_chip',
      'data_wait_seconds', 'step_seconds', 'mfu',
    }  # fmt: skip
    self.assertEqual(set(tags), wanted)
    for tag, points in tags.items():
      self.assertEqual([step for step, _ in points], list(range(1, 7)), tag)
      self.assertTrue(np.all(np.isfinite([value for _, value in points])), tag)
    for line in jobs.metrics_of(self.whole):
      for tag, points in tags.items():
        np.testing.assert_allclose(
          dict(points)[line['step']], line[tag], rtol=1e-6
        )

  def test_values(self):
    """Against what is known without the network."""
    scores = np.arange(8) / 10
    for line in jobs.metrics_of(self.whole):
      np.testing.assert_allclose(line['reward'], scores.mean(), rtol=1e-5)
      np.testing.assert_allclose(
        line['effective_sample_share'],
        scores.sum() ** 2 / (8 * (scores**2).sum()),
        rtol=1e-5,
      )
      np.testing.assert_allclose(
        line['videos_per_second_per_chip'] * line['step_seconds'], 1, rtol=1e-5
      )
    rates = [line['learning_rate'] for line in jobs.metrics_of(self.whole)]
    np.testing.assert_allclose(rates[:3], [0, 0.5e-3, 1e-3], atol=1e-9)

  def test_profile(self):
    """Of the last step; the run is the same with it."""
    shutil.copytree(self.whole, self.workdir)
    shutil.rmtree(self.workdir / 'checkpoints' / '6')
    self.assert_ended(self.align(train__profile='6:1'))
    self.assertLen(list((self.workdir / 'profile').rglob('*.xplane.pb')), 1)
    runs.assert_same(
      jobs.state_of(self.workdir, 6), jobs.state_of(self.whole, 6)
    )

  def test_config_is_kept(self):
    config = json.loads((self.whole / 'align_config.json').read_text())
    self.assertEqual(config['train']['steps'], jobs.STEPS)
    self.assertEqual(config['data']['root'], str(self.world.root))


def _events(path: pathlib.Path):
  """Events of a TensorBoard file: length, its sum, the event, its sum."""
  content = path.read_bytes()
  while content:
    (length,) = struct.unpack('<Q', content[:8])
    event = event_pb2.Event()
    event.ParseFromString(content[12 : 12 + length])
    yield event
    content = content[16 + length :]


# Two prompts, looked at before the first step, after the third and the last.
_VALIDATION = {
  'validation__every_steps': 3,
  'validation__video.height': 16,
  'validation__video.width': 32,
  'validation__video.num_frames': 9,
  'validation__sampler.num_steps': 2,
  'validation__compare_to': 'base',
  'validation__draws': 1,
}


class ValidationTest(_AlignTest):
  def test_videos_on_the_way(self):
    """Also through a stop and a resume; training does not notice."""
    stop = functools.partial(os.kill, os.getpid(), signal.SIGTERM)
    with runs.after_step(4, stop):
      self.assertEqual(self.align(**_VALIDATION).status, 143)
    self.assertEqual(steps_with_videos(self.workdir), [0, 3])
    with runs.known_peak():
      self.assertEqual(self.align(**_VALIDATION).status, 0)
    self.assertEqual(steps_with_videos(self.workdir), [0, 3, 6])
    runs.assert_same(
      jobs.state_of(self.workdir, 6), jobs.state_of(self.whole, 6)
    )
    first, last = (
      _frames(self.workdir, step, '01-a blue square') for step in (0, 6)
    )
    self.assertGreater(np.abs(np.int32(first) - last).max(), 0)
    images, scalars = {}, {}
    for path in (self.workdir / 'tensorboard').iterdir():
      for event in _events(path):
        for value in event.summary.value:
          shown = images if value.HasField('image') else scalars
          shown.setdefault(value.tag, []).append(event.step)
    self.assertLen(images, 2)
    for steps in images.values():
      self.assertEqual(sorted(steps), [0, 3, 6])
    for name in ('distance_to_base', 'static', 'block_motion_change'):
      self.assertEqual(sorted(scalars[f'validation/{name}']), [0, 3, 6])
    self.assert_compared(self.workdir)

  def test_adapters_against_base(self):
    settings = {'train__trainable': 'lora', 'lora__rank': 2}
    outcome = self.align(**_VALIDATION, **settings)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assert_compared(self.workdir)


@pytest.mark.fast
class ComparisonConfigTest(parameterized.TestCase):
  def config(self, critic=False, **settings):
    config = config_lib.load_module(jobs.CONFIG).get_config('smoke')
    config.validation.update(settings)
    if critic:  # as docs/compare.md says
      score = config_lib.load_beside(str(jobs.CONFIG), 'score.py').get_config()
      score.model.path = 'critic'
      with config.validation.ignore_type():
        config.validation.critic = score
    return config_lib.resolve(config, AlignConfig).validation

  def test_critic(self):
    config = self.config(critic=True, compare_to='base')
    self.assertEqual(config.critic.model.path, 'critic')

  @parameterized.parameters(
    ({'compare_to': 'first'}, "validation.compare_to is 'first'"),
    ({'compare_to': 'base', 'every_steps': 0}, 'but there are no clips'),
    ({'compare_to': 'base', 'draws': 0}, 'validation.draws must be above 0'),
    ({'critic': True}, 'validation.critic is given'),
  )
  def test_refused(self, settings, message):
    with self.assertRaisesRegex(UserError, message):
      self.config(**settings)


def steps_with_videos(workdir: pathlib.Path) -> list[int]:
  return sorted(
    int(path.name.removeprefix('step_'))
    for path in (workdir / 'validation').glob('step_*')
    if len(list(path.glob('*.mp4'))) == 2
  )


def _frames(workdir: pathlib.Path, step: int, name: str) -> np.ndarray:
  path = workdir / 'validation' / f'step_{step:08d}' / f'{name}.mp4'
  return video_lib.decode(path, where=name).frames


class BucketTest(_AlignTest):
  def test_every_bucket_trains(self):
    names = [f'videos/wide_{index}.mp4' for index in range(2)]
    names += [f'videos/tall_{index}.mp4' for index in range(2)]
    path = self.folder / 'two.json'
    jobs.write_alignment(path, names)
    outcome = self.align(data__synthetic=path)
    self.assert_ended(outcome)
    for latents in ('2x2x4', '1x4x2'):
      self.assertTrue(outcome.has_logged(f'2 videos with latents {latents}'))
      self.assertTrue(
        outcome.has_logged(f'compiled the step for latents 8x{latents}x16')
      )

  @parameterized.parameters((1, 16, 17), (2, 20, 22))
  def test_batches_by_cost(self, num_devices, batch_size, of_tall):
    """A run that resumes between batches of two sizes ends with the same bits.

    Of 2 x 2 x 4 latents there are 20 tokens with those of the text, of
    1 x 4 x 2 there are 18: 1.12 x cheaper.
    """
    path = self.folder / 'six.json'
    jobs.write_alignment(
      path,
      [f'videos/{kind}_{n}.mp4' for kind in ('wide', 'tall') for n in range(3)],
    )
    settings = {
      'data__synthetic': path,
      'train__batch_by': 'cost',
      'train__batch_size': batch_size,
      'mesh__fsdp': num_devices,
    }
    with runs.mesh_devices(num_devices):
      outcome = self.align(**settings)
      self.assert_ended(outcome)
      for line in (
        f'batches of {batch_size} with latents 2x2x4 each: 1.0',
        f'batches of {of_tall} with latents 1x4x2 each: ',
        f'compiled the step for latents {batch_size}x2x2x4x16',
        f'compiled the step for latents {of_tall}x1x4x2x16',
        'the slowest bucket took',
      ):
        self.assertTrue(outcome.has_logged(line), line)
      self.assertIn('step_seconds_spread', jobs.metrics_of(self.workdir)[-1])
      whole = jobs.state_of(self.workdir, 6)
      shutil.rmtree(self.workdir / 'checkpoints' / '6')
      outcome = self.align(**settings)
      self.assertTrue(outcome.has_logged('resumed at step 4'))
      runs.assert_same(jobs.state_of(self.workdir, 6), whole)
      refused = self.align(**settings | {'train__batch_by': 'clips'})
    self.assert_refused(refused, 'batch_sizes')


# Two hosts, one after the other: a whole run; a cache; a cache with a bad clip
# in the share of the second host; a comparison of clips; rounds of simulated
# jobs; a run of which the second host alone gets SIGTERM.
_HOST = """
import json, os, signal, sys, time
from lift_jax.cli import main
from lift_jax.training import loop
from tests.jobs import simulated_rounds

whole, cache, bad, compared, rounds, stopped = map(json.loads, sys.argv[1:])
status = [main.main([*whole, '--multihost'])]
status += [main.main(cache), main.main(bad), main.main(compared)]
with simulated_rounds.World().patched():
  status += [main.main(rounds)]
is_due = loop.TrainCheckpoints.is_due

def stop_at_1(self, step):
  if step == 1 and os.environ['JAX_PROCESS_ID'] == '1':
    os.kill(os.getpid(), signal.SIGTERM)
  # JAX looks once a second whether it has come; then all agree on a step.
  time.sleep(5 if step == 1 else 1)
  return is_due(self, step)

loop.TrainCheckpoints.is_due = stop_at_1
status += [main.main(stopped)]
print(json.dumps(status))
"""


class MultihostTest(_AlignTest):
  def test_two_hosts(self):
    root = self.folder / 'clips'
    shutil.copytree(self.world.root, root)
    talls = [f'videos/tall_{index}.mp4' for index in range(2)]
    jobs.write_alignment(root / 'tall.json', talls)
    (root / 'videos' / 'bad.mp4').write_text('not a video')
    jobs.write_alignment(root / 'bad.json', [talls[0], 'videos/bad.mp4'])

    def prepare(name):
      return ['prepare', *jobs.flags(
        self.folder / name, data__root=root, data__synthetic=f'{name}.json',
        model__path=self.world.workdir / 'model',
      )]  # fmt: skip

    calls = [
      self.world.align(self.workdir, **_VALIDATION),
      prepare('tall'),
      prepare('bad'),
      self.compare(),
      self.rounds(),
      self.world.align(self.folder / 'stopped'),
    ]
    hosts = jobs.two_hosts(_HOST, [json.dumps(call) for call in calls], 2)
    for status, output, errors in hosts:
      print(status, output, errors)
      self.assertEqual(status, 0, errors)
      self.assertEqual(
        json.loads(output.splitlines()[-1]), [0, 0, 2, 0, 0, 143]
      )
      self.assertIn('bad.json record 1 (videos/bad.mp4)', errors)
    self.assertEqual(
      jobs.steps_of(self.workdir), list(range(1, jobs.STEPS + 1))
    )
    self.assertEqual(jobs.checkpoints_of(self.workdir), ['4', '6'])
    self.assertEqual(steps_with_videos(self.workdir), [0, 3, 6])
    self.assert_compared(self.workdir)
    runs.assert_same(
      jobs.state_of(self.workdir, 6)['trainable'],
      jobs.state_of(self.whole, 6)['trainable'],
      rtol=1e-5,
      atol=1e-5,
    )
    one_host = jobs.records_of(self.world.workdir / 'cache')
    two_hosts = jobs.records_of(self.folder / 'tall' / 'cache')
    self.assertEqual(sorted(two_hosts), talls)
    for video in talls:
      (bucket, data), (other_bucket, other) = two_hosts[video], one_host[video]
      self.assertEqual(bucket, other_bucket)
      runs.assert_same(
        cache_lib.unpack(data), cache_lib.unpack(other), rtol=1e-5, atol=1e-5
      )
    stopped = [
      int(name) for name in jobs.checkpoints_of(self.folder / 'stopped')
    ]
    self.assertBetween(max(stopped), 2, jobs.STEPS - 1)
    self.assertFalse((self.folder / 'bad' / 'cache' / 'index.json').exists())
    self.assert_all_measured()
    simulated_rounds.World().run(self.folder / 'one', **self.ONE_ROUND)
    self.assertEqual(
      simulated_rounds.contents(self.folder / 'rounds'),
      simulated_rounds.contents(self.folder / 'one'),
    )

  ONE_ROUND = {'budget__rounds': 1, 'budget__clips': 8, 'guards__prompts': 2}

  def rounds(self) -> list[str]:
    """Arguments of a round, each of whose jobs has tests on two hosts."""
    workdir = self.folder / 'rounds'
    return [
      'rounds',
      f'--config={simulated_rounds.CONFIG}:smoke',
      f'--workdir={workdir}',
      *simulated_rounds.flags(workdir, **self.ONE_ROUND),
    ]

  def compare(self) -> list[str]:
    """Arguments of a comparison of two models with three clips of each."""
    folders = [
      sets.write_model(
        self.folder / name, 'abc',
        frames=lambda prompt, _: sets.noise(seed=ord(prompt)),
      )
      for name in 'xy'
    ]  # fmt: skip
    return [
      'compare',
      f'--config={jobs.REPOSITORY / "configs" / "compare.py"}',
      f'--workdir={self.folder / "compared"}',
      f'--config.models.folders={tuple(map(str, folders))}',
      '--config.statistics.permutations=20',
      '--config.statistics.bootstrap.draws=20',
    ]

  def assert_all_measured(self):
    """The shares of both hosts are in one file, in the order of the clips."""
    folder = self.folder / 'compared'
    lines = (folder / 'metrics_y.jsonl').read_text().splitlines()
    self.assertEqual(
      [json.loads(line)['video'] for line in lines],
      [f'videos/{name}-0.mp4' for name in 'abc'],
    )
    self.assertEmpty(list(folder.glob('.*.jsonl')))
    result = json.loads((folder / 'comparison.json').read_text())
    for row in result['comparisons'][0]['rows']:
      self.assertEqual(row['num_clips'], 3)
      self.assertEqual(row['difference']['value'], 0)
    self.assertTrue((folder / 'report.html').exists())
