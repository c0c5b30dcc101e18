"""A critic and people that do not exist, so that a demo needs no data.

The clips are those of `lift_jax.data.sample_clips`, whose flaws are known. The
people mostly say what the flaws are. The critic sees them through noise and is
surer than it should be, as fine-tuned models are; of some clips it makes
nothing. Everything is drawn from one seed.

  folder/clips/...   folder/labels.json   folder/scores.jsonl
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib

import numpy as np

from lift_jax.data.hra import HRARecord, conversation, read_hra, read_questions
from lift_jax.data.sample_clips import make_sample_clips
from lift_jax.errors import UserError
from lift_jax.evaluation.scores import CLASSES
from lift_jax.models.critic.prompt import questions_path
from lift_jax.rewards.weights import RewardMap
from lift_jax.runtime.files import write_json, write_text
from lift_jax.scoring.config import RewardConfig
from lift_jax.scoring.output import scored_record

_NUM_FRAMES, _HEIGHT, _WIDTH = 8, 64, 96

# Shares: a person is a step off, a second person agrees, the critic fails.
_SLIPS, _SECONDS, _FAILURES = 0.08, 0.3, 0.02

# How far the critic misjudges, in classes, and how fast its probability falls
# with the distance from what it sees; 1 / (2 noise^2) would be right.
_NOISE = {'semantic': 0.45, 'motion': 0.75, 'fidelity': 0.6}
_SHARPNESS = 3.5

_UNSURE = 'Hard to say; it is somewhere in between.'


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
  """A set of our own.

  Attributes:
    num_videos: how many clips.
    seed: of everything that is drawn.
  """

  num_videos: int
  seed: int

  def __post_init__(self):
    if self.num_videos < 20:
      raise UserError(
        f'synthetic.num_videos is {self.num_videos}; it must be 20 or more'
      )


def write_synthetic(
  folder: pathlib.Path, config: SyntheticConfig, reward_map: RewardMap
) -> None:
  """Writes clips, ratings and scores; see the head of this file for where.

  The first clip has no rating and the last one no score.
  """
  folder.mkdir(parents=True, exist_ok=True)
  clips = folder / 'clips'
  questions = read_questions(questions_path())
  make_sample_clips(
    clips,
    config.num_videos,
    _NUM_FRAMES,
    _HEIGHT,
    _WIDTH,
    seed=config.seed,
    questions=questions,
  )
  records = read_hra(clips, ('hra.json',), questions)
  by_video, reasons = {}, {}
  for record in records.records:
    by_video.setdefault(record.video, []).append(record)
    reasons[record.dimension, record.label] = record.rationale
  reward = RewardConfig(
    **dataclasses.asdict(reward_map), kind='soft', decimals=None
  )
  labels, scores = [], []
  for index, flaws in enumerate(by_video.values()):
    rng = np.random.default_rng((config.seed, index))
    if index > 0:
      labels += _ratings(rng, flaws, reasons)
    if index < len(by_video) - 1:
      line = _answers(rng, flaws, reasons)
      scores.append(scored_record(line, reward))
  write_json(folder / 'labels.json', labels)
  lines = ''.join(json.dumps(line) + '\n' for line in scores)
  write_text(folder / 'scores.jsonl', lines)


def _ratings(
  rng: np.random.Generator,
  flaws: Sequence[HRARecord],
  reasons: Mapping[tuple[str, str], str],
) -> list[dict]:
  """What people say of a clip, in the published form."""
  entries = []
  for record in flaws:
    place = CLASSES.index(record.label)
    if rng.random() < _SLIPS:
      place = abs(place - 1)  # a step down, or up from the lowest
    label = CLASSES[place]
    texts = [reasons.get((record.dimension, label), _UNSURE)]
    if rng.random() < _SECONDS:
      texts.append('Yes, so it seems to me too.')
    entries += [
      conversation(record.video, record.caption, record.question, label, text)
      for text in texts
    ]
  return entries


def _answers(
  rng: np.random.Generator,
  flaws: Sequence[HRARecord],
  reasons: Mapping[tuple[str, str], str],
) -> dict:
  """What the critic says of a clip, as `lift score` notes it."""
  line = {
    'video': flaws[0].video,
    'caption': flaws[0].caption,
    'critic': 'synthetic',
  }
  if rng.random() < _FAILURES:
    return line | {'error': 'the answer begins with no label'}
  labels, probabilities, answers = {}, {}, {}
  for record in flaws:
    name = record.dimension
    seen = CLASSES.index(record.label) + rng.normal(0, _NOISE[name])
    distance = np.arange(len(CLASSES)) - seen
    weights = np.exp(-_SHARPNESS * (distance**2 - (distance**2).min()))
    shares = (weights / weights.sum()).round(6).tolist()
    label = CLASSES[int(np.argmax(shares))]
    labels[name] = label
    probabilities[name] = dict(zip(CLASSES, shares, strict=True))
    answers[name] = f'{label}. {reasons.get((name, label), _UNSURE)}'
  return line | {
    'labels': labels,
    'probabilities': probabilities,
    'answers': answers,
    'label_mass': dict.fromkeys(labels, 1.0),
  }
