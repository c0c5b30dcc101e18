"""Runs of `lift train_critic` at the smallest size there is."""

from collections.abc import Sequence
import json
import pathlib
from typing import Any

import numpy as np

from lift_jax.data.hra import DIMENSIONS, conversation
from lift_jax.data.video_write import write_mp4
from tests.jobs import jobs

CONFIG = jobs.REPOSITORY / 'configs' / 'critic_tiny.py'

STEPS = 6
SIZES = {
  'model.random.vision_tower.image_size': 16,
  'model.random.vision_tower.patch_size': 8,
  'model.random.vision_tower.width': 16,
  'model.random.vision_tower.num_layers': 2,  # of which the first one runs
  'model.random.vision_tower.num_heads': 2,
  'model.random.vision_tower.mlp_width': 16,
  'model.random.llm.width': 16,
  'model.random.llm.num_layers': 1,
  'model.random.llm.num_heads': 2,
  'model.random.llm.num_kv_heads': 2,
  'model.random.llm.head_dim': 8,
  'model.random.llm.mlp_width': 16,
  'data.split.validation': 0.2,
  'data.split.test': 0.2,
  'data.split.seed': 4,  # which spreads ten clips well
  'data.text_buckets': (160,),
  'train.steps': STEPS,
  'train.batch_size': 8,
  'train.log_every': 1,
  'lora.rank': 2,
  'lora.alpha': 4.0,
  'optimizer.warmup_steps': 2,
  # See `jobs`.
  'optimizer.eps': 1e-4,
  'checkpoint.every_steps': 2,
  'checkpoint.keep': 2,
  'validation.every_steps': 0,
}

# Short, as each letter may be a token of its own.
QUESTIONS = {name: f' Judge the {name}.' for name in DIMENSIONS}

_LABELS = ('Good', 'Normal', 'Bad', 'Good')


def arguments(workdir: pathlib.Path, **settings) -> list[str]:
  """Of a `lift train_critic`; settings are named like `data__root`."""
  named = {key.replace('__', '.'): value for key, value in settings.items()}
  return [
    'train_critic',
    f'--config={CONFIG}',
    f'--workdir={workdir}',
    *(f'--config.{key}={value}' for key, value in (SIZES | named).items()),
  ]


def entry(index: int, dimension: str, label: str | None = None) -> dict:
  """What an annotator says of a clip of `make_clips`."""
  label = label or _LABELS[(index + DIMENSIONS.index(dimension)) % 4]
  return conversation(
    name_of(index),
    f'a square, take {index} {chr(97 + index)}',
    QUESTIONS[dimension],
    label,
    f'I saw {label}.',
  )


def entries(indices: Sequence[int]) -> list[dict[str, Any]]:
  """All dimensions of clips of `make_clips`."""
  return [entry(index, name) for index in indices for name in DIMENSIONS]


def name_of(index: int) -> str:
  return f'videos/{index:03d}.mp4'


def make_clips(root: pathlib.Path, num_clips: int) -> None:
  """Clips of 5 to 9 frames, 16 x 16, and what people said in hra.json."""
  (root / 'videos').mkdir(parents=True)
  for index in range(num_clips):
    rng = np.random.default_rng(index)
    size = 5 + index % 5, 16, 16, 3
    frames = rng.integers(0, 256, size, np.uint8)
    write_mp4(root / name_of(index), frames, 8)
  write(root / 'hra.json', entries(range(num_clips)))


def write(path: pathlib.Path, items: list) -> None:
  path.write_text(json.dumps(items), encoding='utf-8')


def make_flawed_clips(root: pathlib.Path, num_clips: int) -> None:
  """Plain clips of 5 frames, 28 x 28, whose flaws nobody can overlook.

  About half of them have stripes, half of them flicker, and one has nothing to
  do with the other. All of them are what their caption says.
  """
  (root / 'videos').mkdir(parents=True)
  items = []
  for index in range(num_clips):
    rng = np.random.default_rng(index)
    # By lot, so that the caption tells nothing.
    flaws = {
      'semantic': False,
      'motion': rng.random() < 0.5,
      'fidelity': rng.random() < 0.5,
    }
    colour_3 = rng.uniform(80, 220, 3)
    frames = np.broadcast_to(colour_3, (5, 28, 28, 3)).copy()
    if flaws['motion']:
      frames[1::2] *= 0.2
    if flaws['fidelity']:
      frames[:, ::4] = frames[:, 1::4] = 0
    frames = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
    write_mp4(root / name_of(index), frames, 8)
    for name, is_bad in flaws.items():
      label = 'Bad' if is_bad else 'Good'
      items.append(
        conversation(
          name_of(index),
          f'clip {index}',
          QUESTIONS[name],
          label,
          'It is so.',
        )
      )
  write(root / 'hra.json', items)


# A critic that is large enough to learn what `make_flawed_clips` shows.
LEARNING = {
  'model.random.vision_tower.image_size': 28,
  'model.random.vision_tower.patch_size': 14,
  'model.random.vision_tower.width': 32,
  'model.random.vision_tower.mlp_width': 64,
  'model.random.llm.width': 32,
  'model.random.llm.num_layers': 2,
  'model.random.llm.head_dim': 16,
  'model.random.llm.mlp_width': 64,
  'data.split.validation': 0.0,
  'data.split.test': 0.3,
  'data.with_rationale': False,
  'data.text_buckets': (112,),
  'train.steps': 160,
  'train.batch_size': 16,
  'train.log_every': 25,
  'optimizer.learning_rate': 3e-3,
  'optimizer.warmup_steps': 10,
  'optimizer.eps': 1e-8,
  'checkpoint.every_steps': 1000,
}
