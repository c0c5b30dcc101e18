"""The stages of one seed: clips, labels, critics, and the arms.

Folders of the seed's workdir:

  prompts/         of every set of clips
  clips/           of the base model: to train on
  labels/          records of clips for `lift align`, by who labelled them
  critics/N/       ratings, and workdir of `lift train_critic`, by critic
  critics/rated/   of the base model: clips to rate
  real/            clips that were not generated
  prepare/         workdir of `lift prepare`
  cache/           the clips of clips/ and real/, encoded
  arms/NAME/       align/, and clips/ of the evaluated prompts; so is base/
  values/NAME.json what was measured on these clips
  stages/          fingerprint and duration of each finished stage
"""

from collections.abc import Sequence
import dataclasses
import json
import logging
import pathlib
from typing import Any

from evidence_parts import measures
from evidence_parts.arms import CHECKERS, CRITIC, METHODS, Arm, Settings
from evidence_parts.config import EvidenceConfig, RoundsConfig
import numpy as np

from lift_jax.cli import job_flags
from lift_jax.data.hra import read_questions
from lift_jax.jobs import align, prepare, sample, score, train_critic
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.demo_stages import write_prompts
from lift_jax.jobs.stages import StagedJob, model_fingerprint
from lift_jax.models.generators import open_model
from lift_jax.runtime.files import json_sha256, read_json, write_json
from lift_jax.scoring.videos import read_videos
from lift_jax.toyworld import dataset, feedback, judge, scenes, weights

# The first labels clips; the second, of other ratings and another seed, only
# judges the result.
CRITICS = (0, 1)

BASE = 'base'
_RATED = 'critics/rated'


class Study(StagedJob):
  """One seed in its folder; finished stages are not run again.

  Args:
    call: of the evidence, with the seed's workdir.
    is_search: whether to evaluate on prompts for training that are not trained
      on, in place of held-out ones.
    logger: for the stages and their jobs.
  """

  def __init__(
    self,
    call: job_flags.Invocation,
    is_search: bool,
    logger: logging.Logger,
  ):
    super().__init__(call, 'evidence', [], logger)
    self.config: EvidenceConfig = call.config
    clips = self.config.clips
    training = _shuffled(scenes.training_scenes(), self.config.seed)
    held_out = _shuffled(scenes.held_out_scenes(), self.config.seed)
    self._prompts = training[: clips.prompts]
    others = training[clips.prompts :]
    self._evaluated = (others if is_search else held_out)[-clips.evaluated :]
    # The search trains no critic.
    num_rated = 0 if is_search else len(CRITICS) * clips.rated
    self._rated = others[: -(-num_rated // clips.per_prompt)]

  def stage(self, name, fingerprint, work):
    """See `StagedJob`; which stages there are depends on the arms."""
    if name not in self._stages:
      self._stages.append(name)
    super().stage(name, fingerprint, work)

  # Clips and their labels.

  def start(self) -> None:
    """What arms share: clips, labelled and encoded, and the base evaluated."""
    per_prompt = self.config.clips.per_prompt
    self._sample('clips', weights.T2V, self._prompts, per_prompt)
    self._label('clips')
    self._evaluate(BASE, weights.T2V)
    count, seed = self.config.clips.real, self.config.seed

    def work():
      folder = self.workdir / 'real'
      dataset.write_real_clips(folder, count, seed, root=self.workdir)

    self.stage('real', {'real': count, 'seed': seed}, work)
    self._prepare()

  def _prepare(self) -> None:
    """Encodes the clips that most arms train on, so that arms only read."""

    def work():
      call = self._call(
        'align',
        AlignConfig,
        self.workdir / 'prepare',
        {
          **self._data('cache'),
          'model.path': str(weights.T2V),
          'data.synthetic': (str(self._labels('clips', CHECKERS)),),
        },
      )
      prepare.run(call, self._logger)

    self.stage('prepare', self._fingerprints('clips', 'real'), work)

  def _data(self, cache: str) -> dict[str, Any]:
    """Where `lift align` finds clips that were not generated, and a cache."""
    return {
      'data.root': str(self.workdir),
      'data.cache': str(self.workdir / cache),
      'data.real': (f'real/{dataset.REAL}',),
    }

  def _sample(
    self,
    name: str,
    model: pathlib.Path,
    captions: list[str],
    per_prompt: int,
    noise_seed: int = 0,
  ) -> None:
    """Samples clips into the folder of the name, as a stage of the name."""
    prompts = self.workdir / 'prompts' / f'{json_sha256(captions)[:8]}.jsonl'
    settings = {
      'prompts.videos_per_prompt': per_prompt,
      'prompts.seed': self.config.seed + noise_seed,
    }

    def work():
      write_prompts(prompts, captions)
      call = self._call(
        'sample',
        sample.SampleConfig,
        self.workdir / name,
        {'model.path': str(model), 'prompts.file': str(prompts), **settings},
      )
      sample.run(call, self._logger)

    self.stage(
      name,
      {'sample': self._section('sample'), 'prompts': captions}
      | settings
      | model_fingerprint(open_model(model)),
      work,
    )

  def _label(self, name: str) -> None:
    """The checkers' labels of the clips in a folder."""
    path = self._labels(name, CHECKERS)

    def work():
      records = [
        {
          'video': clip.path.relative_to(self.workdir).as_posix(),
          'caption': clip.caption,
          'score': clip.reward,
          'labels': {n: v.label for n, v in clip.verdicts.items()},
        }
        for clip in judge.judge_videos(self.workdir / name)
      ]
      write_json(path, records)

    self.stage(f'{name}/{CHECKERS}', self._fingerprints(name), work)

  def _labels(self, name: str, whose: str) -> pathlib.Path:
    return self.workdir / 'labels' / name / f'{whose}.json'

  # Critics.

  def train_critics(self) -> None:
    """Each critic on ratings of its own clips."""
    clips = self.config.clips
    self._sample(_RATED, weights.T2V, self._rated, clips.per_prompt)
    found = read_videos(self.workdir / _RATED, ('manifest.jsonl',), 'error')
    rated = [(f'{_RATED}/{clip.video}', clip.caption) for clip in found.records]
    for number in CRITICS:
      folder = self.workdir / _critic(number)
      seed = self.config.seed + 1000 * number
      part = rated[number * clips.rated :][: clips.rated]

      def work(folder=folder, seed=seed, part=part):
        feedback.annotate(
          self.workdir,
          part,
          folder / 'hra.json',
          read_questions(feedback.questions_path()),
          seed,
        )
        call = self._call(
          'train_critic',
          train_critic.TrainCriticConfig,
          folder,
          {
            'model.path': str(weights.CRITIC),
            'data.root': str(self.workdir),
            'data.hra': (str(folder / 'hra.json'),),
            'data.questions': str(feedback.questions_path()),
            'data.split.seed': seed,
            'train.seed': seed,
          },
        )
        train_critic.run(call, self._logger)

      self.stage(
        _critic(number),
        {'train_critic': self._section('train_critic'), 'seed': seed}
        | {'clips': part}
        | self._fingerprints(_RATED),
        work,
      )

  def score(self, name: str, number: int) -> list[dict[str, Any]]:
    """A critic's records of the clips in a folder."""
    self.train_critics()
    stage = f'{name}/critic_{number}'
    folder = self.workdir / 'labels' / stage

    def work():
      call = self._call(
        'score',
        score.ScoreConfig,
        folder,
        {
          'model.path': str(self.workdir / _critic(number) / 'export'),
          'videos.root': str(self.workdir / name),
          'videos.files': ('manifest.jsonl',),
        },
      )
      score.run(call, self._logger)

    self.stage(stage, self._fingerprints(name, _critic(number)), work)
    return _read_list(folder / 'scores.json')

  # Arms.

  def run(self, name: str, arm: Arm, settings: Settings) -> None:
    """Trains an arm on the clips of the base model, and evaluates it.

    Args:
      name: of its folder.
      arm: what it learns from.
      settings: of `lift align`.
    """
    self._align(name, weights.T2V, self._records('clips', arm), settings)
    self._evaluate(name, self._model(name))

  def run_rounds(self, name: str, arm: Arm, settings: Settings) -> None:
    """As `run`, in rounds, each on clips of the model of the last.

    The prompts are divided among the rounds; once they have been used up, they
    come again with other noise. The first round needs no new clips.
    """
    rounds, clips = self.config.rounds, self.config.clips
    steps = self.config.align.train.steps // rounds.share
    settings = {**settings, 'train.steps': steps}
    model, source = weights.T2V, 'clips'
    for index, one in enumerate(round_names(name, rounds)):
      again, part = divmod(index, rounds.share)
      prompts = self._prompts[part :: rounds.share]
      cache = 'cache'
      if index:
        # Arms may run at the same time, and one cache has one writer.
        cache = f'arms/{one}/cache'
        source = f'arms/{one}/training'
        self._sample(source, model, prompts, clips.per_prompt, again)
        if arm.labels == CHECKERS:
          self._label(source)
      records = [
        record
        for record in self._records(source, arm)
        if record['caption'] in prompts
      ]
      self._align(one, model, records, settings, cache)
      model = self._model(one)
      self._evaluate(one, model)

  def _records(self, name: str, arm: Arm) -> list[dict[str, Any]]:
    """Records for `lift align` of the clips in a folder."""
    method = METHODS[arm.method]
    if arm.labels == CRITIC:
      return [
        record
        | {
          'video': f'{name}/{record["video"]}',
          'score': record[method.score],
        }
        for record in self.score(name, CRITICS[0])
      ]
    records = _read_list(self._labels(name, CHECKERS))
    if method.is_labelled:
      return records
    return [record | {'score': 1.0} for record in records]

  def _align(
    self,
    name: str,
    model: pathlib.Path,
    records: list[dict[str, Any]],
    settings: Settings,
    cache: str = 'cache',
  ) -> None:
    folder = self.workdir / 'arms' / name / 'align'
    scored = folder / 'scored.json'

    def work():
      write_json(scored, records)
      call = self._call(
        'align',
        AlignConfig,
        folder,
        {
          **self._data(cache),
          'model.path': str(model),
          'data.synthetic': (str(scored),),
          'train.seed': self.config.seed,
          **settings,
        },
      )
      align.run(call, self._logger)

    self.stage(
      f'arms/{name}/align',
      {'align': self._section('align'), 'seed': self.config.seed}
      | {'settings': dict(settings), 'records': json_sha256(records)[:16]}
      | model_fingerprint(open_model(model)),
      work,
    )

  def _model(self, name: str) -> pathlib.Path:
    return self.workdir / 'arms' / name / 'align' / 'export'

  # Evaluation.

  def _evaluate(self, name: str, model: pathlib.Path) -> None:
    """Measures clips of the evaluated prompts, from the same noise each time.

    Args:
      name: of an arm or a round, or BASE, which must be the first.
      model: to sample from.
    """
    clips = f'arms/{name}/clips'
    per_prompt = self.config.clips.per_evaluated
    self._sample(clips, model, self._evaluated, per_prompt)

    def work():
      base = self.workdir / 'arms' / BASE / 'clips'
      values = measures.measure(self.workdir / clips, base)
      write_json(self._values(name), values)

    self.stage(f'arms/{name}/values', self._fingerprints(clips), work)

  def evaluated(self) -> list[str]:
    """Names of the arms and rounds that were evaluated."""
    return sorted(
      path.stem for path in (self.workdir / 'values').glob('*.json')
    )

  def judge(self, name: str) -> None:
    """Both critics rate the clips of an arm that was evaluated."""
    for number in CRITICS:
      self.score(f'arms/{name}/clips', number)

  def values(self, name: str) -> measures.Values | None:
    """Mean of each measure for every prompt; None before it is evaluated.

    With the critics' rewards, if they have judged.
    """
    path = self._values(name)
    if not path.is_file():
      return None
    values = read_json(path)
    for number, measure in zip(CRITICS, measures.REWARDS, strict=True):
      folder = self.workdir / 'labels' / 'arms' / name / 'clips'
      scores = folder / f'critic_{number}' / 'scores.json'
      if scores.is_file():
        values[measure] = measures.rewards(_read_list(scores), self._evaluated)
    return values

  def critic_accuracy(self) -> dict[str, float] | None:
    """How often the critic labels clips as the checkers do, by dimension.

    Of the clips that are trained on; None before it has labelled them.
    """
    scores = self.workdir / 'labels' / 'clips' / 'critic_0' / 'scores.json'
    if not scores.is_file():
      return None
    truth = _read_list(self._labels('clips', CHECKERS))
    return measures.accuracy(_read_list(scores), truth)

  def _values(self, name: str) -> pathlib.Path:
    return self.workdir / 'values' / f'{name}.json'

  def conditions(self) -> dict[str, Any]:
    """What decides the result of an arm besides its settings."""
    train = self.config.align.train
    return {
      'clips': dataclasses.asdict(self.config.clips),
      'steps': train.steps,
      'batch_size': train.batch_size,
    }


def _critic(number: int) -> str:
  return f'critics/{number}'


def _read_list(path: pathlib.Path) -> list[dict[str, Any]]:
  return json.loads(path.read_text(encoding='utf-8'))


def round_names(name: str, rounds: RoundsConfig) -> list[str]:
  """The names of the rounds of an arm in rounds, as those of arms."""
  return [f'{name}_{number + 1}' for number in range(rounds.count)]


def _shuffled(known: Sequence[scenes.Scene], seed: int) -> list[str]:
  """Captions in random order."""
  order = np.random.default_rng(seed).permutation(len(known))
  return [known[index].caption for index in order]
