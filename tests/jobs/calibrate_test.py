"""`lift calibrate`, and `lift sample` with the curve that it writes."""

import json

import numpy as np
import pytest

from tests.jobs import jobs, sample_jobs

NUM_STEPS = 4


def run(job, workdir, model, **settings):
  arguments = sample_jobs.arguments(
    workdir, model, workdir.parent,
    **{'sampler__num_steps': NUM_STEPS} | settings,
  )  # fmt: skip
  return jobs.lift(job, *arguments[1:])


@pytest.fixture(scope='module')
def calibrated(world, tmp_path_factory):
  """The workdir of a `lift calibrate` of four of seven prompts, on a mesh."""
  workdir = tmp_path_factory.mktemp('calibrate') / 'run'
  outcome = run(
    'calibrate', workdir, world.workdir / 'model', run__batches_per_round=2
  )
  assert (outcome.status, outcome.stderr) == (0, '')
  assert outcome.has_logged('calibrate: the first 4 of 7 videos')
  assert not outcome.has_logged('sample: ')
  return workdir


@pytest.fixture(scope='module')
def cached(world, calibrated, tmp_path_factory):
  """The workdir of a `lift sample` with its curve, and its outcome."""
  workdir = tmp_path_factory.mktemp('cached') / 'run'
  outcome = run(
    'sample', workdir, world.workdir / 'model', **settings(calibrated)
  )
  return workdir, outcome


def settings(calibrated, **changes):
  return {
    'sampler__cache': 'magcache',
    'sampler__cache_curve': calibrated / 'cache_curve.json',
    'sampler__cache_threshold': 100.0,
    'sampler__cache_max_skips': 2,
    'sampler__cache_retention': 0.0,
  } | changes


def test_curve(calibrated):
  curve = json.loads((calibrated / 'cache_curve.json').read_text())
  assert curve['num_clips'] == 4
  assert curve['sampler']['num_steps'] == NUM_STEPS
  assert curve['video'] == {'height': 16, 'width': 32, 'num_frames': 9}
  ratios = np.array(list(curve['residual_ratios'].values()))
  assert ratios.shape == (2, NUM_STEPS)
  assert (ratios[:, 0] == 1).all() and (ratios[:, 1:] != 1).all()
  for name in ('output_changes', 'time_changes'):
    assert curve[name][0] == 0 and min(curve[name][1:]) > 0
  # Four points determine the polynomial.
  fitted = np.polyval(curve['coefficients'], curve['time_changes'][1:])
  np.testing.assert_allclose(fitted, curve['output_changes'][1:], rtol=1e-4)


def test_sampling_with_it(cached):
  workdir, outcome = cached
  assert (outcome.status, outcome.stderr) == (0, '')
  # Before anything is made.
  shown = outcome.log.index('steps of the sampler: 2 computed, 2 skipped')
  assert shown < outcome.log.index(f'sample: 0 of 7 videos are in {workdir}')
  lines = sample_jobs.lines_of(workdir)
  assert len(lines) == len(sample_jobs.PROMPTS)
  sampler = lines[0]['sampler']
  assert sampler['cache_threshold'] == 100
  assert len(sampler['cache_curve']) == 64


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      {'sampler__cache': 'none'},
      "was made with sampler.cache = 'magcache', which is now None",
    ),
    (
      {'sampler__cache_threshold': 0.1},
      'sampler.cache_threshold = 100.0, which is now 0.1',
    ),
    (
      {'sampler__num_steps': 5},
      'measured with sampler.num_steps = 4, which is now 5; run lift calibrate',
    ),
    ({'video__width': 16}, 'measured with video.width = 32, which is now 16'),
    ({'sampler__cache_curve': ''}, 'name the file that lift calibrate wrote'),
  ],
)
def test_refused(world, calibrated, cached, change, message):
  """Clips of other settings, and a curve of another sampler or size."""
  workdir, _ = cached
  model = world.workdir / 'model'
  outcome = run('sample', workdir, model, **settings(calibrated, **change))
  assert outcome.status == 2
  (line,) = outcome.stderr.splitlines()
  assert message in line


def test_one_host(world, tmp_path):
  outcome = jobs.lift('calibrate', *sample_jobs.flags(tmp_path), '--multihost')
  assert outcome.status == 2
