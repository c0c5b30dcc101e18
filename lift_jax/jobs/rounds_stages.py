"""The stages of `lift rounds`: each runs a job, or prepares data for the next.

Folders of a workdir, one for each stage, in the order of their creation:

  base/guard_sample      clips of the guards' prompts, from the first model
  base/guard_score       scores of the training critic; guard_held_out: of the
                         held-out critic
  base/measure           what the guards measure
  round_1/sample         clips to train on
  round_1/score          scores of the training critic; vote_1, ...: of others
  round_1/choose         clips for people to rate
  round_1/correct        scores to train on
  round_1/train_critic   if the critic is trained
  round_1/align
  round_1/guard_sample, guard_score, guard_held_out, measure    as for base
  round_2/...
  stages/                fingerprint and duration of each finished stage
  prompts/, cache/       prompts of each stage; encoded clips of all rounds
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import logging
import pathlib
from typing import Any

import jax

from lift_jax import partitioning
from lift_jax.cli import job_flags
from lift_jax.data import critic_prompts
from lift_jax.data.prompts import Prompt
from lift_jax.errors import UserError
from lift_jax.evaluation import guarded_clips, guards
from lift_jax.evaluation.velocity_distance import VelocityDistance
from lift_jax.jobs import align, inputs, sample, score, train_critic
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.rounds_config import RoundsConfig
from lift_jax.jobs.rounds_labels import RoundLabels, read_list
from lift_jax.jobs.rounds_prompts import read_round_prompts
from lift_jax.jobs.rounds_real import common_root, real_records
from lift_jax.jobs.rounds_state import (
  BASE,
  Network,
  State,
  Waiting,
  name_of,
  stage_names,
  vote_stages,
)
from lift_jax.jobs.stages import StagedJob, model_fingerprint
from lift_jax.models import critic_config, generator_config, generators
from lift_jax.models.critic_config import CriticModelConfig
from lift_jax.runtime import distributed, storage
from lift_jax.runtime.files import (
  file_sha256,
  parse_json,
  write_json,
  write_text,
)
from lift_jax.sampling import manifest
from lift_jax.training import critic_parts


class Rounds(StagedJob):
  """Rounds in a workdir; finished stages are not run again.

  Args:
    call: of `lift rounds`.
    logger: for the stages and their jobs.

  Raises:
    UserError: a model is not named or not there, prompts are too few, or
      critics that vote rate other dimensions.
  """

  def __init__(self, call: job_flags.Invocation, logger: logging.Logger):
    self.config: RoundsConfig = call.config
    super().__init__(call, 'rounds', stage_names(self.config), logger)
    _check_named('sample', self.config.sample.model)
    _check_named('score', self.config.score.model)
    model = self.config.sample.model
    self._model = generator_config.open_chosen(model, self.workdir)
    critic = self.config.score.model
    self._critic = critic_config.open_chosen(critic, self.workdir / 'critic')
    self.base = State(
      BASE,
      Network(
        str(self._model.path),
        model.all_adapters,
        model_fingerprint(self._model),
      ),
      Network(
        str(self._critic.path), critic.all_adapters, self._critic.fingerprint
      ),
    )
    self._rubric = score.read_prompts(self.config.score, self._critic).rubric
    self._check_votes()
    self._prompts = read_round_prompts(self.config)
    self._root = common_root(self.config, self.workdir)

  def _check_votes(self) -> None:
    """Raises UserError unless all critics rate the same, with equal labels."""
    own = self._rubric
    for number, model in enumerate(self.config.correction.critics):
      critic = critic_config.open_chosen(model, self.workdir)
      config = dataclasses.replace(self.config.score, model=model)
      rubric = score.read_prompts(config, critic).rubric
      if (
        set(rubric.dimensions) != set(own.dimensions)
        or rubric.labels != own.labels
      ):
        raise UserError(
          f'correction.critics[{number}] rates {", ".join(rubric.dimensions)} '
          f'as {", ".join(rubric.labels)}, and the training critic '
          f'{", ".join(own.dimensions)} as {", ".join(own.labels)}; give '
          'critics that were trained on the same rubric'
        )

  def real(self) -> None:
    """Lists real clips relative to the root of all clips."""
    if not self.config.real.root:
      return

    def work():
      records = real_records(self.config, self._root)
      self._write(self.workdir / 'real' / 'real.json', records)

    self.stage('real', {'real': self._section('real')}, work)

  def sample(self, number: int, state: State) -> None:
    """Samples clips to train on."""
    self._sample(
      f'{name_of(number)}/sample',
      state,
      self._prompts.of(number),
      {
        'prompts.seed': self.config.seed + number,
        'prompts.videos_per_prompt': (
          self.config.sample.prompts.videos_per_prompt
        ),
      },
    )

  def _sample(
    self,
    stage: str,
    state: State,
    prompts: Sequence[Prompt],
    settings: Mapping[str, Any],
  ) -> None:
    file = self.workdir / 'prompts' / f'{stage.replace("/", "_")}.jsonl'

    def work():
      lines = [{'id': p.id, 'prompt': p.text} for p in prompts]
      if distributed.is_primary():
        file.parent.mkdir(exist_ok=True)
        write_text(file, ''.join(json.dumps(line) + '\n' for line in lines))
      call = self._call(
        'sample',
        sample.SampleConfig,
        self.workdir / stage,
        {
          **state.model.settings,
          'prompts.file': str(file),
          'prompts.root': '',
          'prompts.text_key': '',
          'prompts.name_key': '',
          **settings,
        },
      )
      sample.run(call, self._logger)

    self.stage(
      stage,
      {
        'sample': self._section('sample'),
        'settings': dict(settings),
        'prompts': [[p.id, p.text] for p in prompts],
        'model': state.model.fingerprint,
      },
      work,
    )

  def score(self, number: int, state: State) -> None:
    """Scores the clips of a round with all critics."""
    name = name_of(number)
    clips = f'{name}/sample'
    self._score(f'{name}/score', clips, state.critic)
    for stage, critic in zip(
      vote_stages(self.config), self.config.correction.critics, strict=True
    ):
      self._score_by_other(f'{name}/{stage}', clips, critic)

  def _score_by_other(
    self, stage: str, clips: str, config: CriticModelConfig
  ) -> None:
    """Scores with a critic other than the training critic."""
    opened = critic_config.open_chosen(config, self.workdir)
    critic = Network(str(opened.path), config.all_adapters, opened.fingerprint)
    own = ('template', 'compute_dtype', 'attention')
    settings = {f'model.{name}': getattr(config, name) for name in own}
    self._score(stage, clips, critic, settings)

  def _score(
    self,
    stage: str,
    clips: str,
    critic: Network,
    settings: Mapping[str, Any] | None = None,
  ) -> None:
    settings = dict(settings or {})

    def work():
      call = self._call(
        'score',
        score.ScoreConfig,
        self.workdir / stage,
        {
          **critic.settings,
          'videos.root': str(self.workdir / clips),
          'videos.files': (manifest.NAME,),
          **settings,
        },
      )
      score.run(call, self._logger)

    self.stage(
      stage,
      {
        'score': self._section('score'),
        'settings': settings,
        'critic': critic.fingerprint,
        'clips': self._fingerprints(clips),
      },
      work,
    )

  def correct(self, number: int) -> pathlib.Path | None:
    """Corrects the labels of some clips, and writes the scores to train on.

    Returns:
      The file of people's labels, if there is one.

    Raises:
      Waiting: for the file of people.
    """
    name, share = name_of(number), self.config.correction.share
    folder = self.workdir / name
    chosen = folder / 'choose' / 'to_rate.json'
    votes = ('score', *vote_stages(self.config))
    self.stage(
      f'{name}/choose',
      {
        'share': share,
        'scores': self._fingerprints(*(f'{name}/{stage}' for stage in votes)),
      },
      lambda: self._write(chosen, self._labels(number).chosen()),
    )
    people = self._people_file(number, chosen)

    def work():
      labels = self._labels(number, people)
      records = labels.corrected(read_list(chosen), self._root)
      self._write(folder / 'correct' / 'scores.json', records)

    self.stage(
      f'{name}/correct',
      {
        'reward': self._section('score')['reward'],
        'scale': dataclasses.asdict(self._labels(number).scale),
        'chosen': self._fingerprints(f'{name}/choose'),
        'people': None if people is None else file_sha256(people),
      },
      work,
    )
    return people

  def _labels(
    self, number: int, people: pathlib.Path | None = None
  ) -> RoundLabels:
    folder = self.workdir / name_of(number)
    return RoundLabels(folder, self.config, self._rubric, people)

  def _people_file(
    self, number: int, chosen_file: pathlib.Path
  ) -> pathlib.Path | None:
    """The file of people's labels for a round, if there is one."""
    correction = self.config.correction
    if not correction.people:
      return None
    path = self.workdir / correction.people.format(round=number)
    if distributed.true_everywhere(path.is_file()):
      return path
    if correction.wait:
      raise Waiting(
        f'round {number} waits for people: rate the clips listed in '
        f'{chosen_file}, below {self.workdir / name_of(number) / "sample"}, '
        f'put the ratings into {path}, and start the same command again'
      )
    return None

  def train_critic(
    self, number: int, state: State, people: pathlib.Path | None
  ) -> Network:
    """Trains the critic on labels of this round; returns the critic.

    Args:
      number: of the round.
      state: what it began with.
      people: file of people's labels, or None.
    """
    if not self.config.critic_training.enabled:
      return state.critic
    name = name_of(number)
    folder = self.workdir / name / 'train_critic'
    settings = {'train.seed': self.config.seed + number}

    def work():
      if distributed.is_primary():
        folder.mkdir(parents=True, exist_ok=True)
        template = inputs.critic_template(
          self.config.train_critic.model, self._critic
        )
        critic_prompts.write_prompts(
          folder, self._rubric.questions, template, self._rubric
        )
      labels = self._labels(number, people)
      feedback = labels.feedback(self.config.seed + number)
      self._write(folder / 'labels.json', feedback)
      call = self._call(
        'train_critic',
        train_critic.TrainCriticConfig,
        folder,
        {
          **state.critic.settings,
          'data.root': str(self.workdir / name / 'sample'),
          'data.hra': (str(folder / 'labels.json'),),
          'data.real': (),
          'data.questions': str(folder / critic_prompts.NAME),
          **settings,
        },
      )
      train_critic.run(call, self._logger)

    self.stage(
      f'{name}/train_critic',
      {
        'train_critic': self._section('train_critic'),
        'critic_training': self._section('critic_training'),
        'settings': settings,
        'labels': self._fingerprints(f'{name}/correct'),
      },
      work,
    )
    made_of = self._fingerprints(f'{name}/train_critic')
    if critic_parts.only_adapters(self.config.train_critic.trained):
      return state.critic.with_adapters(
        folder / 'export', fingerprint=made_of, keep=True
      )
    return Network(str(folder / 'export'), (), made_of)

  def align(self, number: int, state: State) -> Network:
    """Trains the model on the clips of a round; returns the model."""
    name = name_of(number)
    folder = self.workdir / name / 'align'
    settings = {
      'train.steps': self.config.steps_per_round,
      'train.seed': self.config.seed + number,
    }
    real = ('real',) if self.config.real.root else ()

    def work():
      call = self._call(
        'align',
        AlignConfig,
        folder,
        {
          **state.model.settings,
          'data.root': str(self._root),
          'data.synthetic': (
            str(self.workdir / name / 'correct' / 'scores.json'),
          ),
          'data.real': tuple(
            str(self.workdir / stage / 'real.json') for stage in real
          ),
          'data.cache': str(self.workdir / 'cache'),
          **settings,
        },
      )
      align.run(call, self._logger)

    self.stage(
      f'{name}/align',
      {
        'align': self._section('align'),
        'settings': settings,
        'scores': self._fingerprints(f'{name}/correct', *real),
        'model': state.model.fingerprint,
      },
      work,
    )
    made_of = self._fingerprints(f'{name}/align')
    if self.config.align.train.trainable == 'lora':
      # An export of adapters contains those that the run began with.
      return state.model.with_adapters(
        folder / 'export', fingerprint=made_of, keep=False
      )
    return Network(str(folder / 'export'), (), made_of)

  def training(self, number: int) -> guards.Training:
    """What the metrics of the alignment of a round say."""
    folder = self.workdir / name_of(number) / 'align'
    return guards.read_training(folder / 'metrics.jsonl')

  def measure(self, state: State) -> dict[str, dict[str, float]]:
    """Measures what the guards compare: by metric and prompt."""
    config, name = self.config.guards, state.name
    clips = f'{name}/guard_sample'
    self._sample(
      clips,
      state,
      self._prompts.guarded,
      {
        'prompts.seed': config.seed,
        'prompts.videos_per_prompt': config.clips_per_prompt,
        'output.keep_latents': name == BASE,
      },
    )
    # Always with the critic of the start: numbers of two critics do not
    # compare.
    self._score(f'{name}/guard_score', clips, self.base.critic)
    scores = {guards.REWARD: f'{name}/guard_score'}
    if config.critic is not None:
      scores[guards.HELD_OUT] = f'{name}/guard_held_out'
      self._score_by_other(scores[guards.HELD_OUT], clips, config.critic)
    path = self.workdir / name / 'measure' / 'measured.json'

    def work():
      folder = self.workdir / clips
      measured = guarded_clips.measure(
        folder,
        {
          name: read_list(self.workdir / stage / 'scores.json')
          for name, stage in scores.items()
        },
      )
      if state.name != BASE:
        measured[guards.ANCHOR] = self._anchor_distances(state)
      self._write(path, measured)

    self.stage(
      f'{name}/measure',
      {
        'scores': self._fingerprints(*scores.values()),
        'draws': config.draws,
      },
      work,
    )
    return parse_json(storage.read_text(path))

  def _anchor_distances(self, state: State) -> dict[str, float]:
    """Distance to base by prompt, on the clips of base."""
    config = self.config.sample
    folder = storage.to_path(state.model.path)
    distance = VelocityDistance(
      self._model,
      generators.open_model(folder, state.model.adapters),
      config.model,
      partitioning.make_mesh(config.mesh, jax.local_devices()),
      draws=self.config.guards.draws,
      batch_per_shard=config.run.batch_per_shard,
    )
    return guarded_clips.anchor_distances(
      self.workdir / BASE / 'guard_sample', distance
    )

  def _write(self, path: pathlib.Path, value: Any) -> None:
    """Writes JSON on the primary host; all hosts wait for it."""
    if distributed.is_primary():
      write_json(path, value)
    distributed.barrier(f'{path} is written')


def _check_named(section: str, model: Any) -> None:
  if not model.path and model.random is None:
    raise UserError(
      f'{section}.model.path is empty: give the folder of the model, as '
      f'--config.{section}.model.path=FOLDER'
    )
