"""Runs of `lift score` with the smallest critic there is."""

import contextlib
import json
import pathlib
from unittest import mock

import jax
import numpy as np

from lift_jax.data.critic_prompts import write_prompts
from lift_jax.data.hra import read_questions
from lift_jax.data.video_write import write_mp4
from lift_jax.models.critic_tokens import questions_path
from lift_jax.scoring.output import PUBLISHED_KEYS
from lift_jax.scoring.scorer import Scorer
from tests.data import clips
from tests.jobs import jobs
from tests.scoring import tiny_critic

CONFIG = jobs.REPOSITORY / 'configs' / 'score.py'
QUESTIONS = read_questions(questions_path())

# Frames of each clip, and its caption; one is so long that it takes a larger
# bucket than the others.
CLIPS = {
  'a': (9, 'A red fox.'),
  'b': (5, 'Two kites.'),
  'c': (9, 'Rain, and it rains and rains and does not stop at all.'),
  'd': (1, 'A bell.'),
  'e': (12, 'A river at night.'),
  'black': (9, 'Nothing.'),
  'g': (9, 'A potter.'),
}
BUCKETS = (80, 104)
# One program, where the answers have no say.
LESS = {'prompts__text_buckets': (104,), 'prompts__max_answer_tokens': 0}


def flags(workdir: pathlib.Path, **settings) -> list[str]:
  """Arguments of a `lift score` on small meshes; names as `run__x`."""
  small = {
    'prompts.text_buckets': BUCKETS,
    'prompts.max_answer_tokens': 6,
    'mesh.data': 2,
    'mesh.fsdp': 2,
    'mesh.tensor': 2,
    'run.batch_per_shard': 1,
    'run.read_ahead': 1,
  }
  named = {key.replace('__', '.'): value for key, value in settings.items()}
  return [
    'score',
    f'--config={CONFIG}:smoke',
    f'--workdir={workdir}',
    *(f'--config.{key}={value}' for key, value in (small | named).items()),
  ]


class World:
  """A critic, clips, and the workdir of a job that ran to its end."""

  def __init__(self, folder: pathlib.Path):
    self.critic = tiny_critic.write(folder / 'critic')
    write_prompts(self.critic, QUESTIONS, 'vicuna_v1')
    self.root = folder / 'data'
    make_clips(self.root)
    self.undisturbed = folder / 'undisturbed'
    with counting() as self.num_batches:
      self.outcome = jobs.lift(*self.arguments(self.undisturbed))

  def arguments(self, workdir, **settings) -> list[str]:
    defaults = {
      'model__path': self.critic,
      'videos__root': self.root,
      'videos__files': ('test.json',),
    }
    return flags(workdir, **(defaults | settings))


def make_clips(root: pathlib.Path) -> None:
  (root / 'videos').mkdir(parents=True)
  items = []
  for seed, (name, (num_frames, caption)) in enumerate(CLIPS.items()):
    path = root / 'videos' / f'{name}.mp4'
    if name == 'black':
      write_mp4(path, np.zeros((num_frames, 16, 32, 3), np.uint8))
    else:
      clips.write_clip(path, num_frames, 32, 48, seed=seed)
    items.append({'video': f'videos/{name}.mp4', 'caption': caption})
  (root / 'test.json').write_text(json.dumps(items))


@contextlib.contextmanager
def counting():
  """The numbers of rows of the batches that are rated meanwhile."""
  rate, calls = Scorer.__call__, []

  def count(self, frames, *args):
    calls.append(len(frames))
    return rate(self, frames, *args)

  with mock.patch.object(Scorer, '__call__', count):
    yield calls


def scores_of(workdir: pathlib.Path) -> list[dict]:
  return json.loads((workdir / 'scores.json').read_text('utf-8'))


def lines_of(workdir: pathlib.Path) -> list[dict]:
  lines = (workdir / 'ratings.jsonl').read_text('utf-8').splitlines()
  return [json.loads(line) for line in lines]


def results_of(workdir: pathlib.Path) -> dict[str, bytes]:
  """Everything that a job leaves but its config."""
  return {
    path.name: path.read_bytes()
    for path in workdir.iterdir()
    if path.name != 'score_config.json'
  }


def assert_same_scores(workdir: pathlib.Path, other: pathlib.Path) -> None:
  """To rounding; that of `workdir` asked for labels alone."""
  ours, theirs = map(scores_of, (workdir, other))
  assert len(ours) == len(theirs)
  for record, expected in zip(ours, theirs, strict=True):
    for name in ('video', 'caption', 'score', 'labels', 'critic', 'flags'):
      assert record[name] == expected[name], name
    for dimension, label in record['labels'].items():
      assert record[PUBLISHED_KEYS[dimension]] == f'{label}.'
    np.testing.assert_allclose(
      _numbers_of(record), _numbers_of(expected), rtol=0, atol=1e-5
    )


def _numbers_of(record) -> list[float]:
  leaves = jax.tree.leaves((record['probabilities'], record['label_mass']))
  return [*leaves, record['soft_reward']]
