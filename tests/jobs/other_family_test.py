"""A family of models that no job knows goes through every one of them."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.generators import open_model
from tests.jobs import jobs, runs, sample_jobs
from tests.models.tiny_family import Tiny, registered  # noqa: F401

# The config of a job, but with a model of the family.
_CONFIG = """
import runpy

def get_config(arg=None):
  config = runpy.run_path({config!r})['get_config'](arg)
  config.model.random = dict(
    family='tiny', seed=0, transformer={{}}, vae={{}}, text_encoder={{}},
    schedule={{'shift': 2.0}},
  )
  config.model.published = 'Tiny-1k'
  return config
"""
_SAMPLER = {
  'sampler__name': 'ddim',
  'sampler__num_steps': 2,
  'sampler__guidance_scale': 3.0,
  'sampler__dynamic_guidance': 'none',
}


class World:
  """Clips, and jobs that share a workdir with the model and the cache."""

  def __init__(self, folder):
    self.folder = folder
    jobs.make_clips(folder / 'clips')
    for name, config in (
      ('align', jobs.CONFIG),
      ('sample', sample_jobs.CONFIG),
    ):
      (folder / f'{name}.py').write_text(_CONFIG.format(config=str(config)))

  def run(self, job, config, workdir, **settings):
    flags = [
      f'--config.{key.replace("__", ".")}={value}'
      for key, value in settings.items()
    ]
    where = [] if workdir is None else [f'--workdir={self.folder / workdir}']
    outcome = jobs.lift(
      job, f'--config={self.folder / config}.py:smoke', *where, *flags
    )
    assert outcome.status == 0, outcome.stderr
    return outcome

  def align(self, workdir, job='align', **settings):
    defaults = {
      'data__root': self.folder / 'clips',
      'data__synthetic': 'wide.json',
      'data__cache': self.folder / 'cache',
      'data__sizes': ((16, 32),),
      'data__max_frames': 5,
      'train__steps': 2,
      'train__log_every': 1,
      'train__export': False,
      'optimizer__eps': 1e-4,
      'lora__targets': ('blocks/(qkv|out)',),
      'validation__every_steps': 0,
    }
    return self.run(job, 'align', workdir, **defaults | settings)

  def sample(self, workdir, **settings):
    defaults = {
      'video__height': 16,
      'video__width': 32,
      'video__num_frames': 3,
      **_SAMPLER,
    }
    return self.run('sample', 'sample', workdir, **defaults | settings)

  def convert(self, source, target):
    outcome = jobs.lift(
      'convert',
      f'--from={self.folder / source}',
      f'--to={self.folder / target}',
    )
    assert outcome.status == 0, outcome.stderr


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """With a run that has trained, looked at its model and exported it."""
  world = World(tmp_path_factory.mktemp('world'))
  world.align('run', job='prepare')
  world.align(
    'run',
    mesh__data=2,
    mesh__fsdp=2,
    mesh__tensor=2,
    train__export=True,
    validation__every_steps=2,
    validation__video__num_frames=3,
    validation__video__height=16,
    validation__video__width=32,
    **{f'validation__{name}': value for name, value in _SAMPLER.items()},
  )
  return world


def tensors_of(folder):
  return {
    path.relative_to(folder).as_posix(): safetensors.numpy.load_file(path)
    for path in sorted(folder.rglob('*.safetensors'))
  }


def test_prepare(world):
  records = jobs.records_of(world.folder / 'cache')
  assert {bucket for bucket, _ in records.values()} == {(5, 4, 8)}


def test_align(world):
  run = world.folder / 'run'
  losses = [line['loss'] for line in jobs.metrics_of(run)]
  assert len(losses) == 2 and np.isfinite(losses).all()
  assert len(list(run.glob('validation/step_*/*.mp4'))) == 4
  model = open_model(run / 'export')
  assert type(model) is Tiny and model.schedule.shift == 2.0
  before, after = (tensors_of(run / name) for name in ('model', 'export'))
  changed = {
    name
    for file, tensors in before.items()
    for name, tensor in tensors.items()
    if not np.array_equal(tensor, after[file][name])
  }
  blocks = {name for name in changed if name.startswith('layers.')}
  assert changed == blocks and len(blocks) == 2 * 4


def test_sample(world):
  world.sample('clips_of_run', model__path=world.folder / 'run' / 'export')
  assert len(list((world.folder / 'clips_of_run/videos').glob('*.mp4'))) > 1


def test_convert(world):
  world.convert('run', 'trained')
  world.convert('run/export', 'ours')
  world.convert('ours', 'back')
  expected = tensors_of(world.folder / 'run' / 'export')
  for name in ('trained', 'back'):
    found = tensors_of(world.folder / name)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert open_model(world.folder / 'ours').is_orbax('transformer')


def test_adapters(world):
  model = world.folder / 'run' / 'export'
  settings = {'model__path': model, 'train__trainable': 'lora'}
  world.align('lora', train__export=True, **settings)
  adapter = world.folder / 'lora' / 'export'
  world.align('more', model__adapter=adapter, **settings)
  network = open_model(model).declare('transformer')
  plain, adapted = (
    open_model(model, adapters).load('transformer', network, None)
    for adapters in ((), (AdapterConfig(str(adapter)),))
  )
  assert (plain['blocks']['qkv']['kernel'] !=
          adapted['blocks']['qkv']['kernel']).any()  # fmt: skip


@pytest.mark.parametrize('job', ['align', 'sample'])
def test_plan(world, job):
  """Of a published model."""
  flags = ['--config.model.random=None']
  if job == 'sample':
    flags += ['--config.sampler.name=ddim', '--config.video.num_frames=3']
  outcome = jobs.lift(
    'plan',
    f'--config={world.folder / job}.py:smoke',
    f'--job={job}',
    '--topology=cpu:8',
    '--json',
    *flags,
  )
  assert outcome.status == 0, outcome.stderr
  programs = json.loads(outcome.stdout)['programs']
  assert len(programs) == {'align': 1, 'sample': 3}[job]


def test_sharded_equals_unsharded(world):
  settings = {'model__path': world.folder / 'run' / 'model', 'train__steps': 1}
  with runs.mesh_devices(1):
    world.align('whole', **settings)
  meshes = {'mesh__data': 2, 'mesh__context': 2, 'mesh__tensor': 2}
  world.align('parts', mesh__fsdp=1, **meshes, **settings)
  whole, parts = (
    jobs.state_of(world.folder / name, 1) for name in ('whole', 'parts')
  )
  runs.assert_same(parts, whole, rtol=1e-4, atol=1e-6)


def test_sampler_of_another_schedule(world):
  outcome = jobs.lift(
    'sample',
    f'--config={world.folder / "sample"}.py:smoke',
    f'--workdir={world.folder / "no"}',
    '--config.video.num_frames=3',
  )
  assert outcome.status == 2
  assert 'a flow has no dpm; choose ddim' in outcome.stderr
