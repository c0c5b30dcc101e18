"""The stages of `lift demo`: each runs a job or prepares data for the next one.

Folders of a workdir, in the order of their creation:

  pretrained/    both models, if they are trained from scratch
  prompts/       for training, and held out
  clips/         of the base model on training prompts; clips/real/: real ones
  ratings/       ratings of some clips by annotators, ground truth of the rest
  critic/        workdir of `lift train_critic`
  scores/        the critic's scores
  evaluation/    evaluation of the critic
  align_plain/ align/   workdirs of `lift align`
  base/ plain/ feedback/   clips of held-out prompts by the three models
  comparison/    what `lift compare` measures, and the checkers' verdicts
  stages/        fingerprint and duration of each finished stage
"""

from collections.abc import Mapping, Sequence
import json
import logging
import pathlib
from typing import Any

import numpy as np

from lift_jax.cli import job_flags
from lift_jax.data.hra import read_questions
from lift_jax.jobs import (
  align,
  compare,
  evaluate,
  sample,
  score,
  train_critic,
)
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.compare_config import CompareConfig
from lift_jax.jobs.demo_config import DemoConfig
from lift_jax.jobs.stages import StagedJob, model_fingerprint
from lift_jax.models import critics
from lift_jax.models.generators import open_model
from lift_jax.report.compare_page import CompareContent
from lift_jax.runtime.files import (
  json_sha256,
  remove_partials,
  write_json,
  write_text,
)
from lift_jax.scoring.videos import read_videos
from lift_jax.toyworld import annotators, dataset, feedback, judge, scenes
from lift_jax.toyworld.pretraining import (
  critic_model,
  refinement,
  video_model,
)


class Demo(StagedJob):
  """A demo in a workdir; finished stages are not run again.

  Args:
    call: of `lift demo`.
    stages: names of all stages of this run, for the log.
    logger: for the stages and their jobs.
  """

  def __init__(
    self,
    call: job_flags.Invocation,
    stages: tuple[str, ...],
    logger: logging.Logger,
  ):
    super().__init__(call, 'demo', stages, logger)
    self.config: DemoConfig = call.config
    self.clips = self.workdir / 'clips'
    remove_partials(self.workdir)

  def _settings(self, name: str) -> dict[str, Any]:
    """A section of the config, and the seed."""
    return {name: self._section(name), 'seed': self.config.seed}

  def pretrain(self) -> None:
    """Pretrains both models from scratch."""
    target = self.workdir / 'pretrained'
    settings = self._settings('pretrain')['pretrain']
    config, logger = self.config.pretrain, self._logger
    autoencoder, drawn_critic = target / 'autoencoder', target / 'drawn_critic'
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
        lambda: critic_model.make_critic(drawn_critic, config.critic, logger),
      ),
      (
        'refine_critic',
        'refinement',
        lambda: refinement.refine(
          target / 'critic',
          drawn_critic,
          target / 't2v',
          config.refinement,
          logger,
        ),
      ),
    ):
      self.stage(name, {section: settings[section]}, work)

  def sample_training(self, model: pathlib.Path) -> None:
    """Samples clips of training prompts from the base model."""
    clips, seed = self.config.clips, self.config.seed
    known = scenes.training_scenes()
    order = np.random.default_rng(seed).permutation(len(known))
    num_prompts = clips.rated_prompts + clips.scored_prompts
    chosen = [known[i].caption for i in order[:num_prompts]]
    prompts = self.workdir / 'prompts' / 'training.jsonl'

    def work():
      write_prompts(prompts, chosen)
      call = self._sampling(model, prompts, self.clips, clips.per_prompt)
      sample.run(call, self._logger)

    self.stage(
      'sample',
      self._settings('sample')
      | {'prompts': chosen, 'per_prompt': clips.per_prompt}
      | model_fingerprint(open_model(model)),
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
    """Simulates annotators on some clips; checkers rate the rest."""
    target = self.workdir / 'ratings'

    def work():
      target.mkdir(exist_ok=True)
      rated, unrated = self._split_clips()
      for name, records, raters in (
        ('hra', rated, annotators.ANNOTATORS),
        ('held_out', unrated, annotators.HONEST),
      ):
        part = [(record['video'], record['caption']) for record in records]
        feedback.annotate(
          self.clips,
          part,
          target / f'{name}.json',
          read_questions(feedback.questions_path()),
          self.config.seed,
          raters,
        )
      if self.config.clips.real:
        dataset.write_real_clips(
          self.clips / 'real',
          self.config.clips.real,
          self.config.seed,
          self.config.clips.real_kind,
          root=self.clips,
        )

    self.stage(
      'annotate', self._settings('clips') | self._fingerprints('sample'), work
    )

  def train_critic(self, critic: pathlib.Path) -> None:
    """Trains a critic on the ratings, from the given one."""

    def work():
      call = self._call(
        'train_critic',
        train_critic.TrainCriticConfig,
        self.workdir / 'critic',
        {
          'model.path': str(critic),
          'data.root': str(self.clips),
          'data.hra': (str(self.workdir / 'ratings' / 'hra.json'),),
          'data.questions': str(feedback.questions_path()),
          'data.split.seed': self.config.seed,
          'train.seed': self.config.seed,
        },
      )
      train_critic.run(call, self._logger)

    opened = critics.open_critic(critic)
    self.stage(
      'train_critic',
      self._settings('train_critic')
      | self._fingerprints('annotate')
      | {'critic': opened.fingerprint},
      work,
    )

  def score(self) -> None:
    """Scores every clip with the critic, including those of the feedback."""

    def work():
      call = self._call(
        'score',
        score.ScoreConfig,
        self.workdir / 'scores',
        {
          'model.path': str(self.workdir / 'critic' / 'export'),
          'videos.root': str(self.clips),
          'videos.files': ('manifest.jsonl',),
        },
      )
      score.run(call, self._logger)

    self.stage(
      'score',
      self._settings('score') | self._fingerprints('train_critic'),
      work,
    )

  def evaluate_critic(self) -> None:
    """Evaluates the critic on clips that it was not trained on."""

    def work():
      labels = self.workdir / 'ratings'
      call = self._call(
        'evaluate',
        evaluate.EvaluateConfig,
        self.workdir / 'evaluation',
        {
          'scores.files': (str(self.workdir / 'scores' / 'scores.json'),),
          'labels.root': str(self.clips),
          'labels.files': (str(labels / 'held_out.json'),),
          'labels.questions': str(feedback.questions_path()),
          'train.files': (str(labels / 'hra.json'),),
        },
      )
      evaluate.run(call, self._logger)

    self.stage(
      'evaluate',
      self._settings('evaluate') | self._fingerprints('score'),
      work,
    )

  def _split_clips(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Clips with and without ratings: `video` and `caption` of each."""
    found = read_videos(self.clips, ('manifest.jsonl',), 'error').records
    # By name, as threads write the manifest; names start with the prompt's.
    found = sorted(found, key=lambda clip: clip.video)
    records = [{'video': clip.video, 'caption': clip.caption} for clip in found]
    clips = self.config.clips
    num_rated = clips.rated_prompts * clips.per_prompt
    return records[:num_rated], records[num_rated:]

  def unrated_clips(self) -> list[dict[str, Any]]:
    """Clips without a rating: `video` and `caption` of each."""
    return self._split_clips()[1]

  def scored_clips(self) -> list[dict[str, Any]]:
    """The critic's records of the clips without a rating."""
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
    """Fine-tuning on the scored clips and the real ones.

    Args:
      model: to start from.
      records: alignment records; None takes those of the critic.
      name: of the stage and its folder.
      settings: overrides of the config, by dotted name.

    Returns:
      The folder of the aligned model.
    """
    folder = self.workdir / name
    settings = dict(settings or {})
    real = (f'real/{dataset.REAL}',) if self.config.clips.real else ()

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
          # Clips are encoded once for all runs.
          'data.cache': str(self.workdir / 'cache'),
          'data.synthetic': (str(folder / 'scored.json'),),
          'data.real': real,
          'train.seed': self.config.seed,
          **settings,
        },
      )
      align.run(call, self._logger)

    self.stage(
      name,
      self._settings('align')
      | self._fingerprints('annotate', *(('score',) if records is None else ()))
      | model_fingerprint(open_model(model))
      | {'settings': settings, 'records': _hash(records)},
      work,
    )
    return folder / 'export'

  def sample_held_out(self, model: pathlib.Path, name: str) -> pathlib.Path:
    """Samples clips of held-out prompts; the noise is the same each time.

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
      | model_fingerprint(open_model(model)),
      work,
    )
    return folder

  def compare(
    self, judged: Mapping[str, Sequence[judge.JudgedClip]]
  ) -> CompareContent:
    """Compares the models, by the checkers' verdicts and more.

    Args:
      judged: clips of held-out prompts, by the folder that they are in.
    """
    folder = self.workdir / 'comparison'
    files = []
    for name, clips in judged.items():
      files.append(str(folder / f'checkers_{name}.json'))
      write_json(pathlib.Path(files[-1]), judge.metric_file(clips))
    call = self._call(
      'compare',
      CompareConfig,
      folder,
      {
        'models.names': tuple(judged),
        'models.folders': tuple(str(self.workdir / name) for name in judged),
        'metrics.files': tuple(files),
      },
    )
    content = compare.compare(call, self._logger)
    assert content is not None  # the demo runs on one host
    return content


def write_prompts(path: pathlib.Path, captions: list[str]) -> None:
  """Writes prompts as JSON lines for `lift sample`; ids are numbers."""
  path.parent.mkdir(exist_ok=True)
  write_text(
    path,
    ''.join(
      json.dumps({'id': f'{number:04d}', 'prompt': caption}) + '\n'
      for number, caption in enumerate(captions)
    ),
  )


def _hash(records: list[dict[str, Any]] | None) -> str | None:
  return None if records is None else json_sha256(records)[:16]
