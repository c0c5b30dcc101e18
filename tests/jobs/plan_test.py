"""`lift plan`: what it compiles is what the jobs run."""

import dataclasses
import json
import os
import tempfile
from unittest import mock

from absl.testing import parameterized
import jax
import pytest

from lift_jax import chips
from lift_jax.cli import job_flags
from lift_jax.jobs.score import ScoreConfig
from lift_jax.models import critic_config
from lift_jax.planning import inference_programs, report
from lift_jax.training import loop
from tests.jobs import jobs

_SMOKE = (f'--config={jobs.CONFIG}:smoke', '--topology=cpu:8')


def _plan(*flags: str) -> jobs.Outcome:
  return jobs.lift('plan', *flags)


def _planned(*flags: str) -> dict:
  outcome = _plan('--json', *flags)
  assert (outcome.status, outcome.stderr) == (0, ''), outcome
  return json.loads(outcome.stdout)


class SameProgramTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, world, tmp_path, monkeypatch):
    self.folder, self.monkeypatch = tmp_path, monkeypatch
    self.model = world.workdir / 'model'

  @parameterized.parameters(
    {'mesh.fsdp': 8},
    {
      'mesh.context': 2,
      'mesh.tensor': 2,
      'train.remat': 'full',
      'objective.name': 'dpo',  # with a copy of what trains as the reference
    },
    {
      'mesh.fsdp': 8,
      'train.trainable': 'lora',
      'train.ema_decay': 0.9,
      'objective.name': 'kto',  # without
    },
  )
  def test_align(self, **settings):
    """Memory and FLOPs are those of the step that `lift align` compiles."""
    seen = []

    def note(compiled):
      stats = compiled.memory_analysis()
      seen.append(
        (
          stats.argument_size_in_bytes,
          stats.temp_size_in_bytes,
          compiled.cost_analysis()['flops'],
        )
      )
      return ''

    self.monkeypatch.setattr(loop, '_memory', note)
    root = self.folder / 'clips'
    jobs.make_clips(root)
    items = json.loads((root / 'wide.json').read_text())
    for index, item in enumerate(items):
      item['caption'] = f'caption {index // 2}'
    (root / 'wide.json').write_text(json.dumps(items))
    overrides = {
      'model__path': self.model,
      'data__root': root,
      'data__synthetic': ('wide.json',),
      'data__sizes': ((16, 32),),
      'pairs__min_motion': 0.0,
      'train__batch_size': 8,
      'train__steps': 1,
      **{key.replace('.', '__'): value for key, value in settings.items()},
    }
    argv = jobs.flags(self.folder / 'run', **overrides)
    outcome = jobs.lift('align', *argv)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    argv = [flag for flag in argv if not flag.startswith('--workdir')]
    (program,) = _planned('--topology=cpu:8', *argv)['programs']
    memory = program['memory']
    ((arguments, temporaries, flops),) = seen
    self.assertEqual(memory['arguments'], arguments)
    self.assertEqual(memory['temporaries'], temporaries)
    # The learning rate depends on how many steps there are.
    self.assertAlmostEqual(program['xla_flops'] / flops, 1, delta=1e-4)


class OutputTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path, monkeypatch, capfd):
    self.temporary, self.capfd = tmp_path, capfd
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))

  def test_lines(self):
    outcome = _plan(*_SMOKE)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    lines = outcome.stdout.splitlines()
    self.assertStartsWith(lines[0], 'lift align on cpu:8: 8 cpu devices: ')
    self.assertEqual(lines[1], 'attention: xla (configured: auto)')
    self.assertTrue(any('all-gather' in line for line in lines))
    self.assertIn('unknown for this device', lines[-1])

  def test_does_not_fit(self):
    """Then it says what would help, and what is done already is no help."""
    small = dataclasses.replace(chips.CHIPS['cpu'], hbm_bytes=1000)
    with mock.patch.dict(chips.CHIPS, {'cpu': small}):
      for settings, helps, does_not in (
        ((), 'train.trainable=lora', 'mesh.fsdp='),
        (
          (
            '--config.train.trainable=lora',
            '--config.mesh.data=2',
            '--config.mesh.fsdp=4',
          ),
          'mesh.fsdp=8, mesh.data=1',
          'train.trainable=lora',
        ),
      ):
        outcome = _plan(*_SMOKE, *settings)
        self.assertEqual(outcome.status, 0)
        text, advice = outcome.stdout.split('What would help:')
        self.assertIn('too much', text)
        self.assertIn(helps, advice)
        self.assertNotIn(does_not, advice)
        self.assertIn('mesh.tensor=2', advice)

  @parameterized.parameters(RuntimeError, jax.errors.JaxRuntimeError)
  def test_without_cudnn(self, fault):
    """JAX or the compiler misses it: another kernel, and the plan says so."""
    make, asked = report.make, []

    def make_or_refuse(program, topology):
      asked.append(program)
      if len(asked) == 1:
        raise fault('cuDNN not found.')
      return make(program, topology)

    with mock.patch.object(report, 'make', make_or_refuse):
      outcome = _plan(*_SMOKE)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertLen(asked, 2)
    attention = outcome.stdout.splitlines()[1]
    self.assertStartsWith(attention, 'attention: xla in place of cudnn')

  def test_compilers_print_to_a_log(self):
    """What C++ writes to standard error is in a file, and nothing else is."""
    make = report.make

    def make_loudly(program, topology):
      os.write(2, b'WARNING: no hosts')
      return make(program, topology)

    with mock.patch.object(report, 'make', make_loudly):
      outcome = _plan(*_SMOKE)
    self.assertEqual((outcome.status, self.capfd.readouterr().err), (0, ''))
    (log,) = self.temporary.glob('lift_plan_*.log')
    self.assertEqual(log.read_text(), 'WARNING: no hosts')
    self.assertEqual(_plan(*_SMOKE).status, 0)
    self.assertEqual(list(self.temporary.glob('lift_plan_*')), [log])

  def test_questions_of_the_rubric(self):
    """Scoring is planned for as many questions as there are."""

    questions = {f'dimension {n}': f' Question {n}?' for n in range(7)}
    file = self.temporary / 'rubric.json'
    file.write_text(
      json.dumps(
        {
          'questions': questions,
          'labels': ['A', 'B'],
          'rewards': {'A': 1.0, 'B': 0.0},
        }
      )
    )
    found = []
    for settings in ([], [f'--config.prompts.questions={file}']):
      config, _ = job_flags.read_config(
        f'{jobs.REPOSITORY}/configs/score.py:smoke', settings, ScoreConfig
      )
      (program,) = inference_programs.score(config, jax.devices()[:1])
      found.append(program.model_flops)
    critic = critic_config.declare_chosen(config.model)
    of_four = 4 * program.num_videos * critic.decoder_flops(64, 1)
    self.assertAlmostEqual(found[1] - found[0], of_four)

  def test_other_faults(self):
    """What the compiler refuses is the user's; anything else is ours."""
    refused = jax.errors.JaxRuntimeError('INTERNAL: no such thing\nat x')
    with mock.patch.object(report, 'make', side_effect=refused):
      outcome = _plan(*_SMOKE)
    self.assertEqual(outcome.status, 2)
    self.assertIn('--topology=cpu:8: INTERNAL: no such thing', outcome.stderr)
    with mock.patch.object(report, 'make', side_effect=RuntimeError('fork')):
      outcome = _plan(*_SMOKE)
    self.assertEqual(outcome.status, 70)
    self.assertIn('RuntimeError: fork', outcome.stderr)

  def test_numbers(self):
    """FLOPs are those of the model, and gathers those of its parameters."""
    (program,) = _planned(*_SMOKE)['programs']
    self.assertAlmostEqual(
      program['done_flops'] / program['model_flops'], 1, delta=0.05
    )
    self.assertTrue(program['fits'])
    self.assertEqual(program['num_videos'], 8)
    kinds = {row['kind'] for row in program['collectives']}
    self.assertContainsSubset({'all-gather', 'all-reduce'}, kinds)
    self.assertEqual(
      {tuple(row['axes']) for row in program['collectives']}, {('fsdp',)}
    )

  @parameterized.parameters(
    (
      'train_critic', 'critic_tiny.py', ['training step'],
      '--config.data.text_buckets=(224,)',
    ),
    ('score', 'score.py:smoke', ['rating']),
    ('sample', 'sample.py:smoke', ['text encoder', 'denoising', 'decoding']),
  )  # fmt: skip
  def test_other_jobs(self, job, config, names, *flags):
    config = f'--config={jobs.REPOSITORY}/configs/{config}'
    found = _planned(config, '--topology=cpu:2', f'--job={job}', *flags)
    self.assertEqual([p['name'] for p in found['programs']], names)
    for program in found['programs']:
      self.assertGreater(program['done_flops'], 0)
      if program['model_flops'] != program['done_flops']:
        ratio = program['done_flops'] / program['model_flops']
        self.assertBetween(ratio, 0.8, 2.5, program['name'])

  def test_sampling_with_a_cache(self):
    """Needs no curve: as if every step were computed, with its residual."""
    flags = (
      f'--config={jobs.REPOSITORY}/configs/sample.py:smoke',
      '--topology=cpu:2', '--job=sample', '--config.sampler.guidance_scale=1.0',
    )  # fmt: skip
    plain, cached = (
      _planned(*flags, *more)['programs'][1]
      for more in (
        (),
        (
          '--config.sampler.cache=magcache',
          '--config.sampler.cache_curve=curve.json',
        ),
      )
    )
    self.assertEqual(cached['model_flops'], plain['model_flops'])
    self.assertAlmostEqual(cached['done_flops'] / plain['done_flops'], 1, 2)
    self.assertGreater(cached['memory']['peak'], plain['memory']['peak'])

  @parameterized.parameters(
    (('--topology=cpu:8',), '--config=FILE.py is missing'),
    ((_SMOKE[0],), '--topology=TOPOLOGY is missing'),
    ((_SMOKE[0], '--topology=v9:2x2'), 'write v5p:4x4x4'),
    ((*_SMOKE, '--job=score'), 'is not a setting'),
    ((*_SMOKE, '--config.mesh.fsdp=3'), 'does not equal the 8 devices'),
    (
      (f'--config={jobs.REPOSITORY}/configs/align_cogvideox_2b.py',
       '--topology=cpu:8', '--config.model.published=3b'),
      "one of ['CogVideoX-2b', 'CogVideoX-5b']",
    ),
  )  # fmt: skip
  def test_refused(self, flags, message):
    outcome = _plan(*flags)
    self.assertEqual(outcome.status, 2)
    self.assertIn(message, outcome.stderr)
    self.assertLen(outcome.stderr.splitlines(), 1)
