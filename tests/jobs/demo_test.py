"""`lift demo`: every stage, at the smallest size there is."""

import json
import logging
import os
import pathlib
import re
import subprocess
import sys
from typing import Any
from unittest import mock

from absl.testing import parameterized
import jax
import numpy as np
import pytest

from lift_jax.data.hra import DIMENSIONS
from lift_jax.errors import UserError
from lift_jax.jobs import demo, demo_stages
from lift_jax.models.critics import open_critic
from lift_jax.models.generators import open_model
from lift_jax.report.demo_page import MODELS, headline
from lift_jax.toyworld import compute_dtype, judge, scenes, weights
from lift_jax.toyworld.pretraining import video_model
from tests.jobs import jobs, runs

_STAGES = (
  'sample', 'annotate', 'train_critic', 'score', 'evaluate', 'align_plain',
  'align', *MODELS,
)  # fmt: skip
_LOGGER = logging.getLogger('lift')
_SMALL = {
  'compute_dtype': 'float32',
  'train_critic.train.steps': 2,
  'align.train.steps': 2,
  'sample.sampler.num_steps': 2,
  'evaluate.metrics.bootstrap.draws': 50,
  'compare.statistics.bootstrap.draws': 50,
  'compare.statistics.permutations': 50,
  # What eight devices, one clip each, do of a job has tests of its own: here
  # there is one device, as on the machines that the demo is for.
  'sample.run.batch_per_shard': 4,
  'score.run.batch_per_shard': 4,
  'align.prepare.batch_per_device': 4,
}


def _demo(workdir: pathlib.Path, *flags: str, **settings) -> jobs.Outcome:
  named = {key.replace('__', '.'): value for key, value in settings.items()}
  overrides = (_SMALL | named).items()
  with runs.mesh_devices(1), runs.local_devices(1):
    return jobs.lift(
      'demo',
      '--config=:smoke',
      f'--workdir={workdir}',
      *flags,
      *(f'--config.{key}={value}' for key, value in overrides),
    )


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope='module')
def first(tmp_path_factory):
  """The workdir of a whole run, and its outcome."""
  workdir = tmp_path_factory.mktemp('demo')
  return workdir, _demo(workdir)


class DemoTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, first, tmp_path):
    self.workdir, self.outcome = first
    self.other = tmp_path

  def results(self):
    return json.loads((self.workdir / 'results.json').read_text())

  @pytest.mark.fast
  def test_outcome(self):
    self.assertEqual((self.outcome.status, self.outcome.stderr), (0, ''))
    headings = [
      line for line in self.outcome.log if line.startswith('demo: stage')
    ]
    self.assertEqual(
      headings,
      [
        f'demo: stage {number} of {len(_STAGES)}, {name}'
        for number, name in enumerate(_STAGES, 1)
      ],
    )
    self.assertEqual(jobs.leftovers(self.workdir), [])

  def test_results(self):
    """What the table says is what the checkers say of the files."""
    results = self.results()
    judged = {
      model: judge.judge_videos(self.workdir / model) for model in MODELS
    }
    self.assertEqual(
      [(one['base'], one['model']) for one in results['comparisons']],
      [('plain', 'feedback'), ('base', 'feedback'), ('base', 'plain')],
    )
    for compared in results['comparisons']:
      rows = {row['name']: row for row in compared['rows']}
      self.assertContainsSubset(['static', 'block_motion'], rows)
      for which in ('base', 'model'):
        clips = judged[compared[which]]
        side = 'base' if which == 'base' else 'other'
        for dimension in DIMENSIONS:
          row = rows[f'checkers_{dimension}']
          self.assertEqual(row['num_clips'], 4)
          good = [clip.verdicts[dimension].label == 'Good' for clip in clips]
          self.assertAlmostEqual(row[side]['value'], sum(good) / 4)
    title, _ = headline(results)
    self.assertIn(title, (self.workdir / 'report.html').read_text())
    self.assertEqual(list(results['seconds']), list(_STAGES))
    self.assertEqual(set(results['critic']), {*DIMENSIONS, 'all'})
    self.assertGreater(results['peak_memory_gib'], 0.1)

  def test_held_out(self):
    """Nothing that is trained on has a caption that is judged by."""
    known = {
      record['prompt']
      for record in _lines(self.workdir / 'prompts' / 'training.jsonl')
    }
    real = json.loads(
      (self.workdir / 'clips' / 'real' / 'real.json').read_text()
    )
    known |= {record['caption'] for record in real}
    judged = {
      record['prompt']
      for record in _lines(self.workdir / 'prompts' / 'held_out.jsonl')
    }
    self.assertLen(judged, 4)
    self.assertTrue(all(map(scenes.is_held_out, judged)))
    self.assertFalse(any(map(scenes.is_held_out, known)))

  def test_what_is_learnt_from(self):
    """The model learns from clips that the critic has not learnt from."""
    rated = json.loads((self.workdir / 'ratings' / 'hra.json').read_text())
    scored = json.loads((self.workdir / 'align' / 'scored.json').read_text())
    self.assertLen({record['video'] for record in rated}, 20)
    self.assertLen({record['video'] for record in scored}, 8)
    # No prompt is in both, as clips of one are alike.
    prompts = [
      {record['video'].split('-')[0] for record in records}
      for records in (rated, scored)
    ]
    self.assertEqual([len(some) for some in prompts], [10, 4])
    self.assertNoCommonElements(*prompts)
    self.assertNoCommonElements(
      {record['video'] for record in rated},
      {record['video'] for record in scored},
    )
    by_critic = json.loads(
      (self.workdir / 'scores' / 'scores.json').read_text()
    )
    plain = self.workdir / 'align_plain' / 'scored.json'
    self.assertEqual(scored, json.loads(plain.read_text()))
    worth = {record['video']: record['score'] for record in by_critic}
    for record in scored:
      self.assertEqual(record['score'], worth[record['video']])

  def assertNoCommonElements(self, some, others):
    self.assertEqual(some & others, set())

  def test_pairs(self):
    """Feedback prefers the clip with the higher score, among those scored."""
    scored = json.loads((self.workdir / 'align' / 'scored.json').read_text())
    score = {record['video']: record['score'] for record in scored}
    pairs = json.loads((self.workdir / 'align' / 'pairs.json').read_text())
    self.assertNotEmpty(pairs)
    for pair in pairs:
      self.assertGreater(score[pair['winner']], score[pair['loser']])
    self.assertFalse((self.workdir / 'align_plain' / 'pairs.json').exists())

  def test_same_noise(self):
    """The clips of all models differ by the model alone."""
    first, *others = (
      _lines(self.workdir / name / 'manifest.jsonl') for name in MODELS
    )
    for lines in others:
      for one, other in zip(first, lines, strict=True):
        self.assertEqual(one['seed'], other['seed'])
        self.assertEqual(one['prompt'], other['prompt'])
      self.assertNotEqual(
        [line['files'] for line in first], [line['files'] for line in lines]
      )

  def test_report(self):
    page = (self.workdir / 'report.html').read_text()
    self.assertEqual(page.count('data:image/gif'), 2 * len(MODELS))
    self.assertIn('<h2>feedback against plain</h2>', page)
    self.assertIn('data:image/jpeg', page)  # the pairs
    self.assertIn('href="plain/videos/', page)
    links = re.findall(r'https?://[^\s"\'<]+', page)
    self.assertEqual(set(links) - {'http://www.w3.org/2000/svg'}, set())

  def test_again(self):
    """Finished stages are not run again, and the numbers are the same."""
    results = self.results()
    outcome = _demo(self.workdir)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    done = [line for line in outcome.log if line.endswith(': already done')]
    self.assertLen(done, len(_STAGES))
    again = self.results()
    for key in ('comparisons', 'critic', 'seconds', 'counts'):
      self.assertEqual(again[key], results[key])

  def test_interrupted(self):
    """A stage whose end is not noted goes on from what it left."""
    for name in ('align', 'feedback'):
      (self.workdir / 'stages' / f'{name}.json').unlink()
    results = self.results()
    outcome = _demo(self.workdir)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertTrue(outcome.has_logged('resumed at step 2'))
    self.assertEqual(self.results()['comparisons'], results['comparisons'])

  @parameterized.parameters(
    (
      {'align__train__steps': 3},
      "stage 'align_plain' was made with align.train.steps",
    ),
    ({'seed': 1}, "stage 'sample' was made with "),
    ({'clips__rated_prompts': 0}, 'clips.rated_prompts is 0'),
    ({'clips__scored_prompts': 2000}, 'has 1354 prompts'),
    ({'clips__real': -1}, 'clips.real is -1'),
    ({'clips__real_kind': 'drawn'}, 'clips.real_kind'),
    ({'clips__held_out': 200}, 'holds out 182'),
  )
  def test_refused(self, settings, message):
    outcome = _demo(self.workdir, **settings)
    self.assertEqual(outcome.status, 2)
    self.assertIn(message, outcome.stderr)

  def test_one_host(self):
    outcome = _demo(self.other, '--multihost')
    self.assertEqual(outcome.status, 2)
    self.assertIn('leave --multihost out', outcome.stderr)


class ComputeTypeTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path, monkeypatch):
    self.workdir = tmp_path
    monkeypatch.setattr(demo, 'Demo', self.stop)

  def stop(self, call, stages, logger):
    self.config = call.config
    raise UserError('stopped')

  @parameterized.parameters((0.9, 'float32'), (4.0, 'bfloat16'))
  def test_measured(self, gain, expected):
    with mock.patch.object(compute_dtype, 'bfloat16_gain', lambda: gain):
      outcome = _demo(self.workdir, compute_dtype='auto')
    self.assertTrue(outcome.has_logged(f'compute in {expected}: this machine'))
    self.assertEqual(self.types(), {expected})

  def test_goes_on(self):
    written = self.workdir / 'demo_config.json'
    written.write_text('{"compute_dtype": "bfloat16"}')
    with mock.patch.object(compute_dtype, 'bfloat16_gain', self.fail):
      outcome = _demo(self.workdir, compute_dtype='auto')
    self.assertTrue(outcome.has_logged('compute in bfloat16, as before'))
    self.assertEqual(self.types(), {'bfloat16'})

  def test_configured(self):
    with mock.patch.object(compute_dtype, 'bfloat16_gain', self.fail):
      outcome = _demo(self.workdir, compute_dtype='bfloat16')
    self.assertTrue(outcome.has_logged('compute in bfloat16, as configured'))
    self.assertEqual(self.types(), {'bfloat16'})

  def types(self):
    config = self.config
    stages = config.sample, config.train_critic, config.score, config.align
    return {
      config.compute_dtype,
      *(stage.model.compute_dtype for stage in stages),
    }

  def test_unknown(self):
    outcome = _demo(self.workdir, compute_dtype='float16')
    self.assertEqual(outcome.status, 2)
    self.assertIn("compute_dtype is 'float16'", outcome.stderr)


def _stop(demo, model):
  """In place of the first stage, as the others are tested above."""
  raise UserError(f'stopped with {model}')


class FromScratchTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path, monkeypatch):
    self.workdir = tmp_path
    monkeypatch.setattr(demo_stages.Demo, 'sample_training', _stop)

  def test_models(self):
    """Both models are made, and the demo starts with them."""
    outcome = _demo(self.workdir, '--from_scratch')
    self.assertEqual(outcome.status, 2)
    made = self.workdir / 'pretrained'
    self.assertIn(f'stopped with {made / "t2v"}', outcome.stderr)
    self.assertTrue(
      outcome.has_logged(f'demo: stage 1 of {len(_STAGES) + 4}, pretrain_vae')
    )
    self.assertEqual(
      {path.name for path in made.iterdir()},
      {'autoencoder', 't2v', 'drawn_critic', 'critic'},
    )
    # Latents have about unit variance.
    model = open_model(made / 't2v')
    network = model.declare('vae')
    params = model.load('vae', network, None)
    frames_bthw3, _ = video_model.draw_clips(16, 0.5, seed=0)
    mean, _ = video_model.encode_all(model, params, frames_bthw3, _LOGGER)
    self.assertBetween(np.std(mean) * model.vae.scaling_factor, 0.7, 1.4)
    for component in ('transformer', 'text_encoder'):
      params = model.load(component, model.declare(component), None)
      for leaf in jax.tree.leaves(params):
        self.assertTrue(np.isfinite(leaf).all())
    drawn, critic = (
      open_critic(made / name) for name in ('drawn_critic', 'critic')
    )
    self.assertEqual(drawn.config, critic.config)
    self.assertNotEqual(drawn.fingerprint, critic.fingerprint)


class WheelTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.folder = tmp_path

  def test_has_the_models(self):
    """A built package holds all that the demo reads, and finds it."""
    subprocess.run(
      [
        sys.executable, 'setup.py', '--quiet', 'build',
        f'--build-base={self.folder / "base"}',
        f'--build-lib={self.folder / "lib"}',
      ],
      cwd=jobs.REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    code = (
      'from lift_jax.toyworld import feedback, weights\n'
      'from lift_jax.models.generators import open_model\n'
      'from lift_jax.models.critics import open_critic\n'
      'model = open_model(weights.T2V)\n'
      'print(model.path)\n'
      'print(model.fingerprint("transformer"))\n'
      'print(open_critic(weights.CRITIC).fingerprint)\n'
      'assert feedback.questions_path().is_file()\n'
      'from lift_jax.cli import job_flags\n'
      'from lift_jax.jobs import demo_config as demo\n'
      'file = f"{demo.__file__}:smoke"\n'
      'job_flags.read_config(file, (), demo.DemoConfig)\n'
    )
    output = subprocess.run(
      [sys.executable, '-c', code],
      cwd=self.folder, check=True, capture_output=True, text=True,
      env=os.environ | {'PYTHONPATH': str(self.folder / 'lib')},
    ).stdout.splitlines()  # fmt: skip
    self.assertStartsWith(output[0], str(self.folder / 'lib'))
    self.assertEqual(
      output[1:],
      [
        open_model(weights.T2V).fingerprint('transformer'),
        open_critic(weights.CRITIC).fingerprint,
      ],
    )
