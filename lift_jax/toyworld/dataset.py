"""Drawn clips with all that people and critics would say of them.

`write_clips` makes data for every job that is given none:

  folder/videos/clip_0000.mp4 ...   clips with and without flaws
  folder/videos/real_0000.mp4 ...   clips without
  folder/alignment.json             captions, and scores by the true labels
  folder/real.json                  captions of the clips without flaws
  folder/hra.json                   ratings by simulated annotators
  folder/scores.jsonl               scores by a simulated critic

`write_real_clips` makes clips without flaws alone. Equal arguments give equal
files; a set that is there already is kept.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import pathlib
from typing import Any

import numpy as np

from lift_jax.data import video
from lift_jax.data.hra import DIMENSIONS, read_questions
from lift_jax.errors import UserError
from lift_jax.rewards.weights import RewardMap, video_reward
from lift_jax.runtime.files import atomic_folder, read_json, write_json
from lift_jax.toyworld import (
  annotators,
  checkers,
  feedback,
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

_NUM_REAL = 2  # clips without flaws in a set of `write_clips`

_RECIPE = 'recipe.json'
_FORMAT = 1  # goes up when the same arguments give other files
# Nearly lossless, as what is real should look at least as good as what is
# generated; at 18 small shapes fade by a few levels.
_CRF = 12
_FLAWLESS = dict.fromkeys(DIMENSIONS, 'Good')


def write_clips(
  folder: pathlib.Path,
  num_clips: int,
  num_frames: int = 9,
  height: int = 32,
  width: int = 32,
  seed: int = 0,
) -> None:
  """Writes clips, ratings and scores; see the head of this file.

  As in real sets, not everything is in every file: `scores.jsonl` lacks the
  last rated clip, and has a clip that nobody has rated.

  Args:
    folder: to be made.
    num_clips: clips with scores; there are some without flaws besides.
    num_frames: frames of each clip, at least 5.
    height: even, in pixels.
    width: even, in pixels.
    seed: of everything that is drawn.

  Raises:
    UserError: the folder holds something else.
  """
  recipe = {
    'num_clips': num_clips,
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
    order = _scene_order(num_clips + _NUM_REAL, seed)
    for index, scene in enumerate(order):
      is_real = index >= num_clips
      rng = np.random.default_rng((seed, index))
      labels = _FLAWLESS if is_real else None
      clip = flaws.draw_clip(scene, rng, labels, num_frames, height, width)
      number = index - num_clips if is_real else index
      name = f'videos/{"real" if is_real else "clip"}_{number:04d}.mp4'
      video.write_mp4(partial / name, clip.frames_thw3, flaws.FPS, _CRF)
      records.append({'video': name, 'caption': clip.caption})
      clips.append(clip)
      verdicts.append(_true_verdicts(clip))
    alignment = [
      records[index] | {'score': _reward(clips[index])}
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
    # Without the last that is rated, and with one that nobody has rated.
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
    (partial / SCORES).write_text(''.join(lines))


def write_real_clips(
  folder: pathlib.Path,
  num_clips: int,
  seed: int,
  root: pathlib.Path | None = None,
) -> None:
  """Writes clips without flaws, of training scenes.

  Args:
    folder: to be made, with `real.json` and the folder `videos` in it.
    num_clips: how many; a scene returns when all others have had their turn.
    seed: of the choice of scenes, and of all that varies between clean clips.
    root: the folder, or one above it, that paths in `real.json` are relative
      to; None for `folder`.

  Raises:
    UserError: the folder holds something else.
  """
  inside = (
    pathlib.PurePath()
    if root is None
    else folder.resolve().relative_to(root.resolve())
  )
  recipe = {
    'num_clips': num_clips,
    'seed': seed,
    'inside': inside.as_posix(),
    'format': _FORMAT,
  }
  if _is_written(folder, recipe):
    return
  records = []
  with _writing_set(folder, recipe) as partial:
    for index, scene in enumerate(_scene_order(num_clips, seed)):
      rng = np.random.default_rng((seed, index))
      clip = flaws.draw_clip(scene, rng, _FLAWLESS)
      name = f'videos/real_{index:04d}.mp4'
      video.write_mp4(partial / name, clip.frames_thw3, flaws.FPS, _CRF)
      records.append(
        {'video': (inside / name).as_posix(), 'caption': clip.caption}
      )
    write_json(partial / REAL, records)


def _scene_order(count: int, seed: int) -> list[scenes.Scene]:
  """Training scenes by lot; one returns when all others have had their turn."""
  every = scenes.training_scenes()
  order = np.random.default_rng(seed).permutation(len(every))
  return [every[order[index % len(every)]] for index in range(count)]


def _reward(clip: ToyClip) -> float:
  """The score that its true labels are worth."""
  return video_reward(clip.labels, RewardMap(), decimals=2)


def _true_verdicts(clip: ToyClip) -> dict[str, checkers.Verdict]:
  return checkers.judge(
    clip.asked, truth_of(clip.shown, clip.fidelity, clip.motion)
  )


def _is_written(folder: pathlib.Path, recipe: Mapping[str, Any]) -> bool:
  """Whether the folder holds this set; False if it is free to be made."""
  if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
    return False
  path = folder / _RECIPE
  if not path.is_file():
    raise UserError(
      f'{folder}: holds other things than clips of the toy world; name a new '
      'folder'
    )
  if read_json(path) != recipe:
    raise UserError(
      f'{path}: clips of the toy world were made with other settings; delete '
      'the folder or name a new one'
    )
  return True


@contextlib.contextmanager
def _writing_set(
  folder: pathlib.Path, recipe: Mapping[str, Any]
) -> Iterator[pathlib.Path]:
  """A folder to fill, which becomes `folder` once the set is complete."""
  with atomic_folder(folder, all_hosts=False) as partial:
    (partial / 'videos').mkdir()
    yield partial
    write_json(partial / _RECIPE, recipe)
