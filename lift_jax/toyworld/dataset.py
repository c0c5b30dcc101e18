"""Toy datasets: rendered clips with simulated ratings and critic scores.

`write_clips` makes the data of jobs that are given none:

  folder/videos/clip_0000.mp4 ...   clips with and without flaws
  folder/videos/real_0000.mp4 ...   clips without
  folder/alignment.json             captions, true labels, scores from them
  folder/real.json                  captions of the clips without flaws
  folder/hra.json                   ratings by simulated annotators
  folder/scores.jsonl               scores by a simulated critic

`write_real_clips` makes a set of real clips alone. Equal arguments give equal
files; an existing dataset is kept.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import json
import math
import pathlib
from typing import Any, Protocol

import numpy as np

from lift_jax.data.hra import DIMENSIONS, read_questions
from lift_jax.data.rubric import LIFT
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from lift_jax.rewards.weights import video_reward
from lift_jax.runtime.files import (
  atomic_folder,
  is_complete,
  read_json,
  write_json,
  write_text,
)
from lift_jax.toyworld import (
  annotators,
  checkers,
  feedback,
  filmed,
  flaws,
  scenes,
  simulated_critic,
)
from lift_jax.toyworld.flaws import ToyClip
from lift_jax.toyworld.measures import truth_of

ALIGNMENT = 'alignment.json'
REAL = 'real.json'
HRA = 'hra.json'
SCORES = 'scores.jsonl'

_NUM_REAL = 2  # clips without flaws in a dataset of `write_clips`

_RECIPE = 'recipe.json'
_FORMAT = 3  # increment if the same arguments give other files
# Nearly lossless, as real clips should look at least as good as generated ones;
# at 18, small shapes fade by a few levels.
_CRF = 12
_FLAWLESS = dict.fromkeys(DIMENSIONS, 'Good')


def write_clips(
  folder: pathlib.Path,
  num_clips: int,
  num_frames: int = 9,
  height: int = 32,
  width: int = 32,
  seed: int = 0,
  clips_per_prompt: int = 1,
) -> None:
  """Writes clips, ratings and scores; see the module docstring.

  As in real datasets, files differ in their clips: `scores.jsonl` lacks the
  last rated clip, and has one without ratings.

  Args:
    folder: the folder to write.
    num_clips: clips with scores, in addition to the clips without flaws.
    num_frames: frames of each clip, at least 5.
    height: even, in pixels.
    width: even, in pixels.
    seed: of everything that is random.
    clips_per_prompt: clips of each caption, which follow one another; if there
      are several, the first is without flaws.

  Raises:
    UserError: the folder contains something else.
  """
  recipe = {
    'num_clips': num_clips,
    'clips_per_prompt': clips_per_prompt,
    'num_frames': num_frames,
    'height': height,
    'width': width,
    'seed': seed,
    'format': _FORMAT,
  }
  if _is_written(folder, recipe):
    return
  records, clips, verdicts = [], [], []
  with _writing_set(folder, recipe) as partial:
    num_prompts = math.ceil(num_clips / clips_per_prompt)
    order = _scene_order(num_prompts + _NUM_REAL, seed)
    prompts, real = order[:num_prompts], order[num_prompts:]
    asked = [prompts[i // clips_per_prompt] for i in range(num_clips)]
    for index, scene in enumerate([*asked, *real]):
      is_real = index >= num_clips
      rng = np.random.default_rng((seed, index))
      is_best = clips_per_prompt > 1 and index % clips_per_prompt == 0
      labels = _FLAWLESS if is_real or is_best else None
      clip = flaws.draw_clip(scene, rng, labels, num_frames, height, width)
      number = index - num_clips if is_real else index
      name = f'videos/{"real" if is_real else "clip"}_{number:04d}.mp4'
      write_mp4(partial / name, clip.frames_thw3, flaws.FPS, _CRF)
      records.append({'video': name, 'caption': clip.caption})
      clips.append(clip)
      verdicts.append(_true_verdicts(clip))
    alignment = [
      records[index]
      | {'score': _reward(clips[index]), 'labels': clips[index].labels}
      for index in range(num_clips)
    ]
    rated = [
      annotators.rate_clip(
        **records[index],
        verdicts=verdicts[index],
        annotators=annotators.ANNOTATORS,
        seed=(seed, index),
      )
      for index in range(num_clips)
    ]
    # Without the last rated clip, and with one that is not rated.
    scores = [
      simulated_critic.score(
        **records[index],
        verdicts=verdicts[index],
        rng=np.random.default_rng((seed, index, 1)),
      )
      for index in (*range(num_clips - 1), num_clips)
    ]
    questions = read_questions(feedback.questions_path())
    write_json(partial / ALIGNMENT, alignment)
    write_json(partial / REAL, records[num_clips:])
    write_json(partial / HRA, annotators.settled_entries(rated, questions))
    lines = [json.dumps(record) + '\n' for record in scores]
    write_text(partial / SCORES, ''.join(lines))


class _Clip(Protocol):
  @property
  def caption(self) -> str: ...

  @property
  def frames_thw3(self) -> np.ndarray: ...


def write_real_clips(
  folder: pathlib.Path,
  num_clips: int,
  seed: int,
  kind: str = 'filmed',
  root: pathlib.Path | None = None,
) -> None:
  """Writes real clips, `data.real` of `lift align`.

  Args:
    folder: the folder to write, with `real.json` and the folder `videos`.
    num_clips: number of clips.
    seed: of the clips.
    kind: one of `REAL_KINDS`.
    root: `folder` or one above it, which paths in `real.json` are relative to;
      None for `folder`.

  Raises:
    UserError: the folder contains something else.
  """
  inside = (
    pathlib.PurePath()
    if root is None
    else folder.resolve().relative_to(root.resolve())
  )
  recipe = {
    'kind': kind,
    'num_clips': num_clips,
    'seed': seed,
    'inside': inside.as_posix(),
    'format': _FORMAT,
  }
  if _is_written(folder, recipe):
    return
  records = []
  with _writing_set(folder, recipe) as partial:
    for index, clip in enumerate(REAL_KINDS[kind](num_clips, seed)):
      name = f'videos/real_{index:04d}.mp4'
      write_mp4(partial / name, clip.frames_thw3, flaws.FPS, _CRF)
      records.append(
        {'video': (inside / name).as_posix(), 'caption': clip.caption}
      )
    write_json(partial / REAL, records)


def _filmed_clips(count: int, seed: int) -> Iterable[_Clip]:
  """Clips of another domain than the prompts."""
  for index in range(count):
    yield filmed.draw_clip(np.random.default_rng((seed, index)))


def _clean_clips(count: int, seed: int) -> Iterable[_Clip]:
  """Clips without flaws, of training scenes: what prompts ask for."""
  for index, scene in enumerate(_scene_order(count, seed)):
    rng = np.random.default_rng((seed, index))
    yield flaws.draw_clip(scene, rng, _FLAWLESS)


REAL_KINDS = {'filmed': _filmed_clips, 'clean': _clean_clips}


def _scene_order(count: int, seed: int) -> list[scenes.Scene]:
  """Training scenes in random order; they repeat once all have been used."""
  training = scenes.training_scenes()
  order = np.random.default_rng(seed).permutation(len(training))
  return [training[order[index % len(training)]] for index in range(count)]


def _reward(clip: ToyClip) -> float:
  """The reward for the true labels of a clip."""
  return video_reward(clip.labels, LIFT, decimals=2)


def _true_verdicts(clip: ToyClip) -> dict[str, checkers.Verdict]:
  return checkers.judge(
    clip.asked, truth_of(clip.shown, clip.fidelity, clip.motion)
  )


def _is_written(folder: pathlib.Path, recipe: Mapping[str, Any]) -> bool:
  """Whether the folder contains this dataset; False if it may be written.

  Raises:
    UserError: the folder contains something else.
  """
  if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
    return False
  if not is_complete(folder):
    return False
  path = folder / _RECIPE
  if not path.is_file():
    raise UserError(
      f'{folder}: contains other files than clips of the toy world; use a new '
      'folder'
    )
  if read_json(path) != recipe:
    raise UserError(
      f'{path}: clips of the toy world were made with other settings; delete '
      'the folder or use a new one'
    )
  return True


@contextlib.contextmanager
def _writing_set(
  folder: pathlib.Path, recipe: Mapping[str, Any]
) -> Iterator[pathlib.Path]:
  """A temporary folder that becomes `folder` once the dataset is complete."""
  with atomic_folder(folder, all_hosts=False) as partial:
    (partial / 'videos').mkdir()
    yield partial
    write_json(partial / _RECIPE, recipe)
