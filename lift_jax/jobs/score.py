"""Rates videos with a critic, and turns the ratings into rewards.

usage: lift score --config=FILE.py[:variant] --workdir=DIR [--multihost]
                  [--config.SECTION.FIELD=VALUE ...]

Asks the critic the questions of its training about each captioned video.
DIR/scores.json has LiFT's published format (video, caption, answers), extended
by score, probabilities and flags; `lift align` and `lift evaluate` read it.
Each rating is appended to DIR/ratings.jsonl at once, and the same command again
resumes from there; on SIGTERM the job exits with status 143. With --multihost
each host rates its share on its own devices.

example: lift score --config=configs/score.py:smoke --workdir=DIR
"""

import dataclasses
import logging
import pathlib
import time
from typing import Any

import jax
import ml_collections

from lift_jax import partitioning
from lift_jax.cli import job_flags
from lift_jax.data import clip_flags, critic_prompts
from lift_jax.data.json_records import ReadResult
from lift_jax.data.rubric import LABELS, Scale
from lift_jax.errors import UserError
from lift_jax.evaluation.scores import ScoredRecord, read_scores
from lift_jax.jobs import inputs
from lift_jax.models import critic_config, critic_tokens, quantization
from lift_jax.models.critics import Critic
from lift_jax.partitioning import MeshConfig
from lift_jax.runtime import distributed, hub, storage
from lift_jax.runtime.batching import Shape
from lift_jax.runtime.files import write_json
from lift_jax.runtime.journal import Journal, differences
from lift_jax.runtime.progress import Progress, tracked
from lift_jax.runtime.shutdown import Stopped, stop_signal
from lift_jax.scoring import config as config_of
from lift_jax.scoring.output import scored_record
from lift_jax.scoring.rater import Rater
from lift_jax.scoring.scorer import Scorer
from lift_jax.scoring.videos import CaptionedVideo, key_of, read_videos
from lift_jax.toyworld import dataset

_SCORES = 'scores.json'


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
  """Sections of a scoring job; the mesh is that of one host's devices.

  If `videos.files` is empty, `toy_clips` clips of the toy world are used.
  """

  model: critic_config.CriticModelConfig
  videos: config_of.VideosConfig
  toy_clips: int
  prompts: config_of.ScoringPromptsConfig
  reward: config_of.RewardConfig
  mesh: MeshConfig
  run: config_of.ScoringRunConfig
  frames: config_of.FramesConfig = config_of.FramesConfig()


def main(argv: list[str]) -> int:
  with job_flags.start(argv, ScoreConfig, 'score') as (call, logger):
    run(call, logger)
  return 0


def run(
  call: job_flags.Invocation, logger: logging.Logger, *, can_stop: bool = True
) -> Scale:
  """Runs the job; returns the scale of its scores.

  Args:
    call: of the job.
    logger: for progress.
    can_stop: False leaves SIGTERM to the caller.
  """
  config, workdir = call.config, call.workdir
  quantization.check_installed(config.run.quantize)
  critic = config.frames.of(critic_config.open_chosen(config.model, workdir))
  inputs.log_adapters(critic.adapters, logger)
  prompts = read_prompts(config, critic)
  template = critic_config.choose_template(
    config.model, critic, prompts.template
  )
  if prompts.template not in (None, template):
    logger.warning(
      'score: model.template is %s, but this critic was trained with %s',
      template,
      prompts.template,
    )
  tokenizer = critic.open_tokenizer(template)
  labels = critic_tokens.label_ids(tokenizer, prompts.labels)
  scale = config.reward.reward_map().scale(prompts.rubric)
  checkpoint = critic.fingerprint  # reads the headers of all weights
  found = _read_videos(config, workdir, prompts)
  mesh = partitioning.make_mesh(config.mesh, jax.local_devices())
  logger.info('score: %s', partitioning.describe(mesh))
  reasons = [f'{where}: {reason}' for where, reason in found.skipped]
  inputs.report_skipped(workdir, reasons, len(found.records), logger)

  fingerprint = {
    'critic': checkpoint,
    'made_by': _made_by(config, template, prompts),
  }
  journal = Journal(workdir / 'ratings.jsonl', _key, jax.process_index())
  keys = [video.key for video in found.records]
  if distributed.is_primary():
    journal.gather(keys)
  distributed.barrier('the ratings are merged')
  # For all videos, so that every host raises the same error.
  done = _rated(journal, found.records, fingerprint, config.videos)
  mine = found.records[jax.process_index() :: jax.process_count()]
  done = {video.key: done[video.key] for video in mine if video.key in done}
  logger.info(
    'score: %d of %d videos are rated in %s', len(done), len(mine), workdir
  )
  job_flags.write_config(call, 'score')

  def make_scorer() -> Scorer:
    return Scorer(
      critic,
      mesh,
      config.model.compute_dtype,
      config.model.attention,
      quantize=config.run.quantize,
      label_ids=labels,
      stop_ids=tokenizer.stop_ids,
      pad_id=tokenizer.pad_id,
    )

  rater = Rater(
    make_scorer,
    partitioning.batch_shards(mesh),
    tokenizer,
    labels,
    prompts,
    fingerprint,
    critic.frames,
    config.prompts,
    config.run,
    config.videos,
  )
  with distributed.independent_work('every host has rated its videos'):
    is_done = _rate(rater, mine, done, journal, mesh, logger, can_stop)
  is_done = distributed.true_everywhere(is_done)
  if distributed.is_primary():
    journal.gather(keys)
    _write_scores(config, workdir, journal, found.records, scale, logger)
  if not is_done:
    raise Stopped
  return scale


def _made_by(
  config: ScoreConfig, template: str, prompts: critic_prompts.CriticPrompts
) -> dict[str, Any]:
  """What determines a rating, besides the critic's weights."""
  made_by: dict[str, Any] = {
    'compute_dtype': config.model.compute_dtype,
    'template': template,
    'questions': dict(prompts.questions),
    'space_before_caption': prompts.space_before_caption,
    'max_answer_tokens': config.prompts.max_answer_tokens,
  }
  # What is new has no entry at its default, so that older ratings remain.
  if prompts.labels != LABELS:
    made_by['labels'] = list(prompts.labels)
  if config.frames.given:
    made_by['frames'] = config.frames.given
  if config.run.quantize != quantization.NONE:
    made_by['quantize'] = config.run.quantize
  return made_by


def rate_listed(
  section: ml_collections.ConfigDict,
  folder: pathlib.Path,
  file: str,
  logger: logging.Logger,
) -> tuple[list[ScoredRecord], Scale]:
  """Scores clips for another job; returns the scores, and their scale.

  Args:
    section: of this job's config; its videos are replaced.
    folder: of the clips; gets a workdir, `critic`.
    file: their list, in the folder.
    logger: for progress.
  """
  call = job_flags.make_call(
    section,
    ScoreConfig,
    folder / 'critic',
    {'videos.root': str(folder), 'videos.files': (file,)},
  )
  scale = run(call, logger, can_stop=False)
  scores = str(call.workdir / _SCORES)
  return read_scores(folder, (scores,), scale=scale).records, scale


def read_prompts(
  config: ScoreConfig, critic: Critic
) -> critic_prompts.CriticPrompts:
  """The questions of the config, or else those of the critic's training.

  Raises:
    UserError: there are none, or they are bad.
  """
  questions = config.prompts.questions
  if not questions and not config.model.path:  # a random critic has none
    questions = str(critic_tokens.questions_path())
  folders = [*(adapter.folder for adapter in critic.adapters), critic.path]
  return critic_prompts.find_prompts(questions, folders)


def _key(line) -> str:
  return key_of(line['video'], line['caption'])


def _read_videos(
  config: ScoreConfig,
  workdir: pathlib.Path,
  prompts: critic_prompts.CriticPrompts,
) -> ReadResult[CaptionedVideo]:
  """The videos to rate: those of the config, or clips of the toy world."""
  videos = config.videos
  if videos.files or not config.toy_clips:
    if not videos.root:
      raise UserError(
        'videos.root is empty: give the folder of the videos, '
        'as --config.videos.root=FOLDER'
      )
    return read_videos(
      hub.data_folder(videos.root, videos.files),
      videos.files,
      videos.on_bad_record,
      tuple(prompts.questions.values()),
      videos.follow_links,
    )
  folder = inputs.toy_clips(workdir, config.toy_clips)
  return read_videos(folder, (dataset.ALIGNMENT,), videos.on_bad_record)


def _rated(
  journal: Journal,
  videos: list[CaptionedVideo],
  fingerprint,
  rules: clip_flags.ClipRules,
) -> dict[str, Shape]:
  """The videos that are rated and have not changed since: shapes by key.

  Unreadable videos are tried again: they may have been fixed. So are flagged
  ones that the rules leave out, which loses their ratings.

  Raises:
    UserError: the ratings are those of another critic, or of other prompts.
  """
  lines, done = journal.read(), {}
  for video in tracked(videos, 'video'):
    line = lines.get(video.key)
    if line is None:
      continue
    found = {key: line.get(key) for key in fingerprint}
    for name, old, new in differences(found, fingerprint):
      raise UserError(
        f'{journal.path}: {video.video} was rated with {name} = {old!r}, which '
        f'is now {new!r}; give another --workdir'
      )
    signature = storage.file_signature(video.path)
    is_unchanged = tuple(line.get('stamp') or ()) == signature
    is_rated = 'probabilities' in line and not rules.why_skipped(line['flags'])
    if is_unchanged and is_rated:
      done[video.key] = tuple(line.get('shape', ()))
  return done


def _rate(rater: Rater, videos, done, journal, mesh, logger, can_stop) -> bool:
  """Rates the videos that are not done, with a progress bar, until SIGTERM.

  Returns:
    Whether all videos are done.
  """
  progress = Progress(
    len(videos),
    'video',
    done=len(done),
    logger=logger,
    enabled=distributed.is_primary(),
  )
  start = time.monotonic()
  with journal, stop_signal(can_stop) as stop, progress:
    is_done = rater.run(videos, done, journal, stop, progress, logger)
  seconds = time.monotonic() - start
  if rater.num_rated:
    logger.info(
      'score: %d videos in %.1f s, %.1f s of them on the devices, including '
      'compilation: %.3g videos/s/chip',
      rater.num_rated,
      seconds,
      rater.seconds,
      rater.num_rated / seconds / mesh.size,
    )
  return is_done


def _write_scores(
  config: ScoreConfig,
  workdir: pathlib.Path,
  journal: Journal,
  videos: list[CaptionedVideo],
  scale: Scale,
  logger: logging.Logger,
) -> None:
  """Writes all ratings in published format, in the order of the videos."""
  lines = journal.read()
  rated = [lines[video.key] for video in videos if video.key in lines]
  records = [
    scored_record(line, config.reward, scale)
    for line in tracked(rated, 'video')
  ]
  path = workdir / _SCORES
  write_json(path, records)
  errors = [record for record in records if 'error' in record]
  flagged = [record['flags'] for record in records if record['flags']]
  logger.info(
    'score: %d of %d videos in %s, %d of them flagged (see "flags")',
    len(records),
    len(videos),
    path,
    len(flagged),
  )
  if flagged:
    logger.info('score: flagged are %s', clip_flags.count(flagged))
  if errors:
    logger.warning(
      '%d videos have an "error" and no score; the first: %s: %s',
      len(errors),
      errors[0]['video'],
      errors[0]['error'],
    )
