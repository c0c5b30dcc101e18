"""Jobs of `lift rounds` that are simulated, so that rounds take no time.

A model is one number: the share of its clips that stand still. Alignment moves
it to the share among the clips, weighted by their scores. A critic is honest,
or likes clips that stand still.
"""

import json
import logging
import pathlib
from unittest import mock

import numpy as np

from lift_jax import config_lib
from lift_jax.cli import job_flags
from lift_jax.data.rubric import read_rubric
from lift_jax.data.video_write import write_mp4
from lift_jax.jobs import rounds, rounds_config
from lift_jax.jobs.rounds_stages import Rounds
from lift_jax.runtime import distributed
from lift_jax.scoring.output import label_fields
from tests.jobs import jobs

CONFIG = jobs.REPOSITORY / 'configs' / 'rounds_cogvideox_2b.py'
BASE_STILL = 0.3

_SETTINGS = {
  'budget.rounds': 2,
  'budget.clips': 64,
  'guards.prompts': 8,
  'guards.clips_per_prompt': 3,
  # Clips of the first model that stand still make way for those that move.
  'guards.rules.max_motion_rise': None,
}


class Interrupted(Exception):
  """The process is killed."""


class World:
  """Simulated jobs.

  Args:
    hacked: whether the training critic likes clips that stand still.

  Attributes:
    done: name of the folder of each job that did some work.
    real: real clips of the last alignment.
    interrupts: whether the next job with work to do raises at its end.
  """

  def __init__(self, hacked: bool = False):
    self.hacked, self.interrupts = hacked, False
    self.done: list[str] = []
    self.real: list[str] = []

  def run(self, workdir: pathlib.Path, **settings) -> dict:
    """Runs `lift rounds`; settings are named like `budget__rounds`."""
    call = make_call(workdir, **settings)
    with self.patched():
      return rounds.run(call, logging.getLogger('lift'))

  def patched(self):
    """Context in which the jobs are simulated."""
    module = 'lift_jax.jobs'
    stack = mock.patch.multiple(
      Rounds, _anchor_distances=lambda *_: {'any': 1e-3}
    )
    for name in ('sample', 'score', 'align', 'train_critic'):
      stack = _Both(
        stack, mock.patch(f'{module}.{name}.run', getattr(self, name))
      )
    return stack

  def sample(self, call, logger):
    config, workdir = call.config, call.workdir
    still = _still_of(config.model)
    prompts = [
      json.loads(line)
      for line in pathlib.Path(config.prompts.file).read_text().splitlines()
    ]
    lines, truth = [], {}
    for prompt in prompts:
      for index in range(config.prompts.videos_per_prompt):
        name = f'{prompt["id"]}-{index}'
        seed = int(prompt['id'], 16) % 2**20 + 1000 * config.prompts.seed
        rng = np.random.default_rng([seed, index])
        video = f'videos/{name}.mp4'
        truth[video] = bool(rng.random() < still)
        lines.append(
          {
            'files': {video: ''}, 'id': prompt['id'], 'index': index,
            'prompt': prompt['prompt'], 'seed': seed,
          }
        )  # fmt: skip
        if distributed.is_primary() and not (workdir / video).exists():
          (workdir / 'videos').mkdir(exist_ok=True)
          write_mp4(workdir / video, _frames(rng, truth[video]))
    self._finish(
      call,
      {
        'truth.json': json.dumps(truth),
        'manifest.jsonl': ''.join(json.dumps(line) + '\n' for line in lines),
      },
    )

  def score(self, call, logger):
    root = pathlib.Path(call.config.videos.root)
    truth = json.loads((root / 'truth.json').read_text())
    likes_still = self.hacked and call.workdir.name in ('score', 'guard_score')
    rubric = read_rubric(call.config.prompts.questions)
    best, worst = rubric.labels[0], rubric.labels[-1]
    records = []
    for line in (root / 'manifest.jsonl').read_text().splitlines():
      line = json.loads(line)
      (video,) = line['files']
      label = best if truth[video] == likes_still else worst
      rest = 0.1 / (len(rubric.labels) - 1)
      p = dict.fromkeys(rubric.labels, rest) | {label: 0.9}
      labels = dict.fromkeys(rubric.dimensions, label)
      records.append(
        {
          'video': video, 'caption': line['prompt'],
          'score': 0.9 if label == best else 0.05,
          'probabilities': dict.fromkeys(labels, p),
          'soft_reward': 0.8 if label == best else 0.1,
          **label_fields(labels, rubric.scale),
        }
      )  # fmt: skip
    self._finish(call, {'scores.json': json.dumps(records)})

  def align(self, call, logger):
    config = call.config
    (path,) = config.data.synthetic
    self.real = [
      record['video']
      for file in config.data.real
      for record in json.loads(pathlib.Path(file).read_text())
    ]
    for video in self.real:
      assert (pathlib.Path(config.data.root) / video).is_file()
    weight, still = 0.0, 0.0
    for record in json.loads(pathlib.Path(path).read_text()):
      clip = pathlib.Path(config.data.root) / record['video']
      assert clip.is_file()
      truth = json.loads((clip.parents[1] / 'truth.json').read_text())
      weight += record['score']
      still += record['score'] * truth[f'videos/{clip.name}']
    metrics = {'winner_change': -0.01, 'held_out/implicit_accuracy': 0.7}
    self._finish(
      call,
      {
        'export/still': repr(still / weight),
        'metrics.jsonl': json.dumps({'step': 2} | metrics) + '\n',
      },
    )

  def train_critic(self, call, logger):
    (path,) = call.config.data.hra
    self._finish(call, {'export/learnt': pathlib.Path(path).read_text()})

  def _finish(self, call, files: dict[str, str]) -> None:
    """Writes the results of a job, unless they are there."""
    distributed.barrier('all hosts have read the inputs')
    name = '/'.join(call.workdir.parts[-2:])
    missing = [file for file in files if not (call.workdir / file).exists()]
    if distributed.is_primary():
      for file in missing:
        (call.workdir / file).parent.mkdir(exist_ok=True)
        (call.workdir / file).write_text(files[file])
      if missing:
        self.done.append(name)
    distributed.barrier('the job is finished')
    if missing and self.interrupts:
      raise Interrupted(name)


class _Both:
  """Two contexts as one."""

  def __init__(self, *contexts):
    self._contexts = contexts

  def __enter__(self):
    for context in self._contexts:
      context.__enter__()

  def __exit__(self, *exception):
    for context in reversed(self._contexts):
      context.__exit__(*exception)


def contents(workdir: pathlib.Path) -> dict[str, bytes]:
  """What a run leaves, but for where and when it ran."""
  files = [
    *workdir.glob('*/measure/*.json'),
    *workdir.glob('round_*/correct/*.json'),
    *workdir.glob('round_*/align/export/*'),
    *workdir.glob('round_*/train_critic/export/*'),
    workdir / 'rounds.json',
    workdir / 'rounds.html',
  ]
  return {
    str(path.relative_to(workdir)): path.read_bytes().replace(
      str(workdir).encode(), b'DIR'
    )
    for path in files
  }


def flags(workdir: pathlib.Path, **settings) -> list[str]:
  """Flags of `lift rounds` on enough prompts, which it writes to the workdir.

  Args:
    workdir: of the job; created.
    **settings: of the config, named like `budget__rounds`.
  """
  workdir.mkdir(exist_ok=True)
  prompts = workdir / 'all_prompts.jsonl'
  prompts.write_text(
    ''.join(
      json.dumps({'id': f'{n:04x}', 'prompt': f'Clip number {n}.'}) + '\n'
      for n in range(30)
    )
  )
  named = {key.replace('__', '.'): value for key, value in settings.items()}
  overrides = _SETTINGS | {'sample.prompts.file': prompts} | named
  return [f'--config.{key}={value}' for key, value in overrides.items()]


def make_call(
  workdir: pathlib.Path,
  num_voters: int = 0,
  voter: pathlib.Path | None = None,
  agreement: str = rounds_config.TEMPERATURES,
  **settings,
) -> job_flags.Invocation:
  """The invocation of `lift rounds`.

  Args:
    workdir: see `flags`.
    num_voters: critics that vote, besides the training critic.
    voter: their folder; by default that of the training critic.
    agreement: of pseudo-labels, which may need the critics.
    **settings: see `flags`.
  """
  _, source = job_flags.read_config(
    f'{CONFIG}:smoke', flags(workdir, **settings), rounds_config.RoundsConfig
  )
  critic = source.score.model.to_dict()
  if voter is not None:
    critic['path'] = str(voter)
  source.correction.critics = (critic,) * num_voters
  source.critic_training.agreement = agreement
  config = config_lib.resolve(source, rounds_config.RoundsConfig)
  return job_flags.Invocation(config, source, workdir)


def _still_of(model) -> float:
  if not model.adapters:
    return BASE_STILL
  return float((pathlib.Path(model.adapters[-1].path) / 'still').read_text())


def _frames(rng: np.random.Generator, is_still: bool) -> np.ndarray:
  """A bright square that moves, or does not."""
  frames_thw3 = np.full((5, 32, 32, 3), rng.integers(20, 60), np.uint8)
  y, x = rng.integers(0, 16, 2)
  for number, frame in enumerate(frames_thw3):
    shift = 0 if is_still else 2 * number
    frame[y : y + 8, x + shift : x + shift + 8] = 220
  return frames_thw3
