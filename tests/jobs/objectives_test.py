"""Every objective through `lift align`, on toy clips and on people's pairs."""

import functools
import json
import os
import pathlib
import shutil
import signal

import numpy as np
import pytest

from lift_jax.data.pair_records import PairRecord
from lift_jax.data.records import AlignmentRecord
from lift_jax.jobs import align as align_lib
from lift_jax.jobs.prepare import AlignRecords
from lift_jax.toyworld import dataset
from lift_jax.training.objectives import ObjectiveConfig
from tests.jobs import jobs, runs

_NAMES = ('sft', 'rejection', 'reward_weighted', 'dpo', 'kto', 'nft')


@pytest.fixture(scope='module')
def prepared(world, tmp_path_factory) -> pathlib.Path:
  """The workdir of a `lift prepare` of toy clips."""
  workdir = tmp_path_factory.mktemp('toy')
  model = world.workdir / 'model'
  outcome = jobs.lift('prepare', *_flags(workdir, model__path=model))
  assert (outcome.status, outcome.stderr) == (0, '')
  return workdir


def _flags(workdir, **settings):
  return jobs.flags(
    workdir,
    **{
      'data__sizes': ((16, 32),),
      'checkpoint__every_steps': 100,
      'train__steps': 3,
    }
    | settings,
  )


@pytest.fixture(scope='module')
def align(world, prepared):
  """`lift align` on them and on one device, as a batch has four pairs."""
  return functools.partial(_align, world.workdir / 'model', prepared)


def _align(model, prepared, workdir, **settings) -> jobs.Outcome:
  paths = {
    'model__path': model,
    'data__root': prepared / 'toy_clips',
    'data__cache': prepared / 'cache',
  }
  with runs.mesh_devices(1):
    outcome = jobs.lift('align', *_flags(workdir, **paths | settings))
  assert outcome.stderr == '', outcome
  return outcome


def test_names():
  settings = {'name', 'anchor_weight', 'drift_window'}
  assert set(_NAMES) | settings == set(ObjectiveConfig.__dataclass_fields__)


@pytest.mark.parametrize('name', _NAMES)
def test_on_toy_clips(name, align, tmp_path):
  """As the config is, but for the name."""
  assert align(tmp_path / 'run', objective__name=name).status == 0
  assert jobs.steps_of(tmp_path / 'run') == [1, 2, 3]
  last = jobs.metrics_of(tmp_path / 'run')[-1]
  assert np.isfinite(last['loss']) and last['grad_norm'] > 0
  if name in ('dpo', 'kto', 'nft'):
    assert last['anchor_distance'] > 0
  if name in ('dpo', 'kto', 'reward_weighted'):
    assert 0 < last['effective_sample_share'] <= 1


@pytest.mark.fast
def test_clips_of_scores_and_pairs():
  """Each clip is encoded once for each caption."""

  def scored(video, caption):
    return AlignmentRecord(video, video, caption, 0.5, False, 'a.json', '0')

  def compared(caption):
    return PairRecord(
      caption, ('a', 'b'), ('a', 'b'), 'first', {}, '', {}, 'pairs.json 0'
    )

  records = AlignRecords(
    [scored('a', 'x'), scored('a', 'y')], [compared('x'), compared('z')], []
  )
  clips = [(clip.video, clip.caption) for clip in records.clips]
  assert clips == [('a', 'x'), ('a', 'y'), ('b', 'x'), ('a', 'z'), ('b', 'z')]


@pytest.fixture
def people(prepared, tmp_path) -> pathlib.Path:
  """The toy clips, with pairs that people compared and no scores."""
  root = tmp_path / 'people'
  shutil.copytree(prepared / 'toy_clips', root)
  clips = json.loads((root / dataset.ALIGNMENT).read_text())
  pairs = [
    {
      'caption': clips[first]['caption'],
      'videos': [clips[first]['video'], clips[first + 1]['video']],
      'overall': overall,
    }
    for first, overall in ((0, 'second'), (2, 'same'), (4, 'first'))
  ]
  (root / 'people.json').write_text(json.dumps(pairs))
  return root


def test_pairs_of_people(people, align, tmp_path, monkeypatch):
  """Stopped and resumed, with all that a step may have: the same bits."""
  watched = []
  monkeypatch.setattr(
    align_lib,
    'DriftWarning',
    lambda metric, window, logger: (
      lambda step, metrics: watched.append((metric, window, step))
    ),
  )
  align = functools.partial(
    align,
    data__root=people,
    data__synthetic=(),
    data__pairs=('people.json',),
    objective__name='dpo',
    objective__dpo__sft_weight=50.0,
    objective__anchor_weight=1.0,
    objective__drift_window=7,
    pairs__held_out=0.5,
    pairs__held_out_every_steps=3,
    train__steps=4,
    train__ema_decay=0.5,
    train__remat='full',
    train__grad_accum=2,
    checkpoint__every_steps=2,
    optimizer__learning_rate=0.01,
  )
  whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
  outcome = align(whole)
  assert outcome.status == 0
  assert outcome.has_logged('2 of 3 pairs that people compared')
  assert outcome.has_logged('1 of these pairs are held out, 1 prompts')
  notes = json.loads((whole / 'pairs.json').read_text())
  assert [note['record'] for note in notes] == [
    'people.json record 0 (videos/clip_0000.mp4, videos/clip_0001.mp4)',
    'people.json record 2 (videos/clip_0004.mp4, videos/clip_0005.mp4)',
  ]
  assert [note['winner'] for note in notes] == [
    'videos/clip_0001.mp4',
    'videos/clip_0004.mp4',
  ]

  assert watched == [('winner_change', 7, step) for step in (1, 2, 3, 4)]

  held_out = _held_out(whole)
  assert sorted(held_out) == [0, 3, 4]
  assert held_out[0]['held_out/implicit_accuracy'] == 0.5
  assert held_out[0]['held_out/winner_change'] == 0
  assert held_out[4]['held_out/logit'] != held_out[3]['held_out/logit'] != 0

  stop = functools.partial(os.kill, os.getpid(), signal.SIGTERM)
  with runs.after_step(1, stop):
    assert align(stopped).status == 143
  outcome = align(stopped)
  assert outcome.status == 0 and outcome.has_logged('resumed at step 2')
  runs.assert_same(jobs.state_of(stopped, 4), jobs.state_of(whole, 4))
  assert _held_out(stopped) == held_out


def _held_out(workdir: pathlib.Path) -> dict[int, dict]:
  lines = jobs.metrics_of(workdir)
  return {line['step']: line for line in lines if 'held_out/logit' in line}
