"""The stages of `lift demo`: each is a job of its own, or feeds the next one.

Folders of a workdir, in the order in which they come about:

  pretrained/   both models, where they are made from scratch
  prompts/      of training, and held out
  clips/        of the first model on training prompts; real/ among them
  feedback/     what people say of some of the clips, and the truth on the rest
  critic/       what `lift train_critic` leaves
  scores/       the critic's rewards
  evaluation/   how far to trust it
  align/        what `lift align` leaves
  before/ after/   clips of held-out prompts
  stages/       what each finished stage was made of, and how long it took
"""

from collections.abc import Callable, Mapping
import json
import logging
import pathlib
import time
from typing import Any

import ml_collections
import numpy as np

from lift_jax.cli import job_flags
from lift_jax.data.hra import read_questions
from lift_jax.errors import UserError
from lift_jax.jobs import align, evaluate, sample, score, train_critic
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.demo_config import DemoConfig
from lift_jax.models import critics
from lift_jax.models.generators import VideoModel, open_model
from lift_jax.runtime.files import json_sha256, read_json, write_json
from lift_jax.runtime.journal import differences
from lift_jax.scoring.videos import read_videos
from lift_jax.toyworld import annotators, dataset, feedback, judge, scenes
from lift_jax.toyworld.pretraining import critic_model, video_model


class Demo:
  """A demo in a folder; stages that are finished are not run again.

  Args:
    call: of `lift demo`.
    stages: names of all stages of this run, for the headings.
    logger: takes headings and the lines of the jobs.
  """

  def __init__(
    self,
    call: job_flags.Invocation,
    stages: tuple[str, ...],
    logger: logging.Logger,
  ):
    self.config: DemoConfig = call.config
    self.workdir = call.workdir
    self.clips = self.workdir / 'clips'
    self._source = call.source
    self._stages = stages
    self._logger = logger
    (self.workdir / 'stages').mkdir(exist_ok=True)

  def stage(
    self, name: str, made_of: Mapping[str, Any], work: Callable[[], None]
  ) -> None:
    """Does `work`, unless it is done.

    Args:
      name: one of the stages.
      made_of: JSON values that decide the result.
      work: what there is to do; it goes on where it was interrupted.

    Raises:
      UserError: it was done, but from something else.
    """
    place = f'{self._stages.index(name) + 1} of {len(self._stages)}'
    path = self._marker(name)
    made_of = json.loads(json.dumps(made_of))
    if path.is_file():
      there = read_json(path)['made_of']
      for field, old, new in differences(there, made_of):
        raise UserError(
          f'{path}: stage {name!r} was made with {field} = {old!r}, which is '
          f'now {new!r}; give another --workdir'
        )
      self._logger.info('demo: stage %s, %s: done before', place, name)
      return
    self._logger.info('demo: stage %s, %s', place, name)
    start = time.monotonic()
    work()
    seconds = time.monotonic() - start
    write_json(path, {'made_of': made_of, 'seconds': round(seconds, 2)})

  def seconds(self) -> dict[str, float]:
    """How long each stage took, in this run or an earlier one."""
    return {
      name: read_json(self._marker(name))['seconds'] for name in self._stages
    }

  def _marker(self, name: str) -> pathlib.Path:
    return self.workdir / 'stages' / f'{name}.json'

  def _digest(self, *stages: str) -> dict[str, str]:
    """What earlier stages were made of, in short."""
    return {
      name: json_sha256(read_json(self._marker(name))['made_of'])[:16]
      for name in stages
    }

  def _settings(self, name: str) -> dict[str, Any]:
    """A section of the config, and the seed."""
    section = self._source[name]
    if isinstance(section, ml_collections.ConfigDict):
      section = json.loads(section.to_json_best_effort())
    return {name: section, 'seed': self.config.seed}

  def _call(
    self,
    section: str,
    config_class: type,
    folder: pathlib.Path,
    settings: Mapping[str, Any],
  ) -> job_flags.Invocation:
    return job_flags.make_call(
      self._source[section], config_class, folder, settings
    )

  def pretrain(self) -> None:
    """Both models, from nothing."""
    target = self.workdir / 'pretrained'
    settings = self._settings('pretrain')['pretrain']
    config, logger = self.config.pretrain, self._logger
    autoencoder = target / 'autoencoder'
    for name, section, work in (
      (
        'pretrain_vae',
        'model',
        lambda: video_model.make_autoencoder(autoencoder, config.model, logger),
      ),
      (
        'pretrain_t2v',
        'model',
        lambda: video_model.make_model(
          target / 't2v', autoencoder, config.model, logger
        ),
      ),
      (
        'pretrain_critic',
        'critic',
        lambda: critic_model.make_critic(
          target / 'critic', config.critic, logger
        ),
      ),
    ):
      self.stage(name, {section: settings[section]}, work)

  def sample_training(self, model: pathlib.Path) -> None:
    """Clips of training prompts, by the model that is to be improved."""
    clips, seed = self.config.clips, self.config.seed
    known = scenes.training_scenes()
    order = np.random.default_rng(seed).permutation(len(known))
    chosen = [known[i].caption for i in order[: clips.rated + clips.scored]]
    prompts = self.workdir / 'prompts' / 'training.jsonl'

    def work():
      write_prompts(prompts, chosen)
      sample.run(self._sampling(model, prompts, self.clips, 1), self._logger)

    self.stage(
      'sample',
      self._settings('sample')
      | {'prompts': chosen}
      | _identity(open_model(model)),
      work,
    )

  def _sampling(
    self,
    model: pathlib.Path,
    prompts: pathlib.Path,
    target: pathlib.Path,
    videos_per_prompt: int,
  ) -> job_flags.Invocation:
    return self._call(
      'sample',
      sample.SampleConfig,
      target,
      {
        'model.path': str(model),
        'prompts.file': str(prompts),
        'prompts.seed': self.config.seed,
        'prompts.videos_per_prompt': videos_per_prompt,
      },
    )

  def annotate(self) -> None:
    """People rate some clips; the checkers tell the truth about the rest."""
    target = self.workdir / 'feedback'

    def work():
      target.mkdir(exist_ok=True)
      found = read_videos(self.clips, ('manifest.jsonl',), 'error').records
      clips = [(video.video, video.caption) for video in found]
      num_rated = self.config.clips.rated
      for name, part, people in (
        ('hra', clips[:num_rated], annotators.ANNOTATORS),
        ('held_out', clips[num_rated:], annotators.HONEST),
      ):
        feedback.annotate(
          self.clips,
          part,
          target / f'{name}.json',
          read_questions(feedback.questions_path()),
          self.config.seed,
          people,
        )
      dataset.write_real_clips(
        self.clips / 'real',
        self.config.clips.real,
        self.config.seed,
        root=self.clips,
      )

    self.stage(
      'annotate', self._settings('clips') | self._digest('sample'), work
    )

  def train_critic(
    self,
    critic: pathlib.Path,
    variant: str = '',
    settings: Mapping[str, Any] | None = None,
  ) -> None:
    """A critic learns what people said.

    Args:
      critic: to start from.
      variant: ends the names of stage and folder, here and in `score` and
        `evaluate_critic`.
      settings: what differs from the config, by dotted name.
    """
    settings = dict(settings or {})

    def work():
      call = self._call(
        'train_critic',
        train_critic.TrainCriticConfig,
        self.workdir / f'critic{variant}',
        {
          'model.path': str(critic),
          'data.root': str(self.clips),
          'data.hra': (str(self.workdir / 'feedback' / 'hra.json'),),
          'data.questions': str(feedback.questions_path()),
          'data.split.seed': self.config.seed,
          'train.seed': self.config.seed,
          **settings,
        },
      )
      train_critic.run(call, self._logger)

    opened = critics.open_critic(critic)
    self.stage(
      f'train_critic{variant}',
      self._settings('train_critic')
      | self._digest('annotate')
      | {'critic': opened.fingerprint, 'settings': settings},
      work,
    )

  def score(self, variant: str = '') -> None:
    """The critic rates every clip, those of the feedback too."""

    def work():
      call = self._call(
        'score',
        score.ScoreConfig,
        self.workdir / f'scores{variant}',
        {
          'model.path': str(self.workdir / f'critic{variant}' / 'export'),
          'videos.root': str(self.clips),
          'videos.files': ('manifest.jsonl',),
        },
      )
      score.run(call, self._logger)

    self.stage(
      f'score{variant}',
      self._settings('score') | self._digest(f'train_critic{variant}'),
      work,
    )

  def evaluate_critic(self, variant: str = '') -> pathlib.Path:
    """How often the critic is right about clips it has not learnt from.

    Returns:
      The folder of the evaluation.
    """
    folder = self.workdir / f'evaluation{variant}'
    scores = self.workdir / f'scores{variant}' / 'scores.json'

    def work():
      labels = self.workdir / 'feedback'
      call = self._call(
        'evaluate',
        evaluate.EvaluateConfig,
        folder,
        {
          'scores.files': (str(scores),),
          'labels.root': str(self.clips),
          'labels.files': (str(labels / 'held_out.json'),),
          'labels.questions': str(feedback.questions_path()),
          'train.files': (str(labels / 'hra.json'),),
        },
      )
      evaluate.run(call, self._logger)

    self.stage(
      f'evaluate{variant}',
      self._settings('evaluate') | self._digest(f'score{variant}'),
      work,
    )
    return folder

  def unrated_clips(self) -> list[dict[str, Any]]:
    """Clips that no person has rated: `video` and `caption` of each."""
    found = read_videos(self.clips, ('manifest.jsonl',), 'error').records
    return [
      {'video': clip.video, 'caption': clip.caption}
      for clip in found[self.config.clips.rated :]
    ]

  def scored_clips(self) -> list[dict[str, Any]]:
    """What the critic says of the clips that no person has rated."""
    unrated = {record['video'] for record in self.unrated_clips()}
    scored = json.loads(
      (self.workdir / 'scores' / 'scores.json').read_text(encoding='utf-8')
    )
    return [record for record in scored if record['video'] in unrated]

  def align(
    self,
    model: pathlib.Path,
    records: list[dict[str, Any]] | None = None,
    name: str = 'align',
    settings: Mapping[str, Any] | None = None,
  ) -> pathlib.Path:
    """Reward-weighted fine-tuning on the scored clips and the real ones.

    Args:
      model: to start from.
      records: alignment records; None takes what the critic says.
      name: of the stage, and of its folder.
      settings: what differs from the config, by dotted name.

    Returns:
      The folder of the aligned model.
    """
    folder = self.workdir / name
    settings = dict(settings or {})

    def work():
      folder.mkdir(exist_ok=True)
      scored = self.scored_clips() if records is None else records
      write_json(folder / 'scored.json', scored)
      call = self._call(
        'align',
        AlignConfig,
        folder,
        {
          'model.path': str(model),
          'data.root': str(self.clips),
          # Clips are encoded once for all runs that learn from them.
          'data.cache': str(self.workdir / 'cache'),
          'data.synthetic': (str(folder / 'scored.json'),),
          'data.real': (f'real/{dataset.REAL}',),
          'train.seed': self.config.seed,
          **settings,
        },
      )
      align.run(call, self._logger)

    self.stage(
      name,
      self._settings('align')
      | self._digest('annotate', *(('score',) if records is None else ()))
      | _identity(open_model(model))
      | {'settings': settings, 'records': _hash(records)},
      work,
    )
    return folder / 'export'

  def sample_held_out(self, model: pathlib.Path, name: str) -> pathlib.Path:
    """Clips of prompts that nothing was trained on; the same noise each time.

    Args:
      model: to sample from.
      name: of the stage and its folder.

    Returns:
      The folder.
    """
    clips = self.config.clips
    known = scenes.held_out_scenes()
    order = np.random.default_rng(self.config.seed).permutation(len(known))
    chosen = [known[i].caption for i in order[: clips.held_out]]
    prompts = self.workdir / 'prompts' / 'held_out.jsonl'
    folder = self.workdir / name

    def work():
      write_prompts(prompts, chosen)
      call = self._sampling(model, prompts, folder, clips.per_held_out)
      sample.run(call, self._logger)

    self.stage(
      name,
      self._settings('sample')
      | {'prompts': chosen, 'per_prompt': clips.per_held_out}
      | _identity(open_model(model)),
      work,
    )
    return folder

  def judge(self, name: str) -> list[judge.JudgedClip]:
    """What the checkers say of the clips in a folder."""
    return judge.judge_videos(self.workdir / name)


def write_prompts(path: pathlib.Path, captions: list[str]) -> None:
  """JSON lines that `lift sample` reads; ids are numbers."""
  path.parent.mkdir(exist_ok=True)
  path.write_text(
    ''.join(
      json.dumps({'id': f'{number:04d}', 'prompt': caption}) + '\n'
      for number, caption in enumerate(captions)
    )
  )


def _identity(model: VideoModel) -> dict[str, str]:
  return {
    component: model.fingerprint(component)[:16]
    for component in ('transformer', 'vae', 'text_encoder')
  }


def _hash(records: list[dict[str, Any]] | None) -> str | None:
  return None if records is None else json_sha256(records)[:16]
