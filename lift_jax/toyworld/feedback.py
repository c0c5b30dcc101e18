"""Simulated feedback on generated clips, and flawless clips to set beside them.

What `lift train_critic` and `lift align` read of people's work: what several of
them say of a folder of clips, and clips that nobody has to rate because they
are as their captions say.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from lift_jax.data import video
from lift_jax.data.hra import DIMENSIONS
from lift_jax.data.json_records import location
from lift_jax.errors import UserError
from lift_jax.runtime.files import atomic_folder, read_json, write_json
from lift_jax.toyworld import annotators, checkers, flaws, scenes
from lift_jax.toyworld.annotators import Rated

REAL = 'real.json'

_RECIPE = 'recipe.json'
_FORMAT = 1  # goes up when the same arguments give other files
# Nearly lossless, as what is real should look at least as good as what is
# generated; at 18 small shapes fade by a few levels.
_CRF = 12


def annotate(
  root: pathlib.Path,
  clips: Sequence[tuple[str, str]],
  target: pathlib.Path,
  questions: Mapping[str, str],
  seed: int,
  people: Sequence[annotators.Annotator] = annotators.ANNOTATORS,
) -> list[Rated]:
  """Lets people rate clips, and writes what they say in the published form.

  Args:
    root: the folder that videos are relative to.
    clips: (video, caption) of each.
    target: of the settled labels, NAME.json; beside it NAME_all.json holds
      everything that people said, of which labels may disagree.
    questions: what they are asked, by dimension.
    seed: of their errors; those of a clip also depend on its number.
    people: who they are.

  Raises:
    UserError: no clip, or one that is not of the toy world.
  """
  if not clips:
    raise UserError(f'{target}: no clip to rate; give at least one')
  rated = []
  for index, (name, caption) in enumerate(clips):
    verdicts, _ = checkers.check_video(
      root / name, caption, f'{location("clip to rate,", index)} ({name})'
    )
    rated.append(
      annotators.rate_clip(name, caption, verdicts, people, (seed, index))
    )
  # The settled ones last: where they are, everything is.
  write_json(
    target.with_name(f'{target.stem}_all.json'),
    annotators.all_entries(rated, questions),
  )
  write_json(target, annotators.settled_entries(rated, questions))
  return rated


def real_clips(
  folder: pathlib.Path,
  num_clips: int,
  seed: int,
  root: pathlib.Path | None = None,
) -> None:
  """Writes flawless clips of training scenes, unless they are there already.

  Equal arguments give equal files. The folder is built beside and renamed when
  it is whole.

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
  if _is_there(folder, recipe):
    return
  every = scenes.training_scenes()
  order = np.random.default_rng(seed).permutation(len(every))
  with atomic_folder(folder) as partial:
    (partial / 'videos').mkdir()
    records = []
    for index in range(num_clips):
      clip = flaws.draw_clip(
        every[order[index % len(every)]],
        np.random.default_rng((seed, index)),
        dict.fromkeys(DIMENSIONS, 'Good'),
      )
      name = f'videos/real_{index:04d}.mp4'
      video.write_mp4(partial / name, clip.frames_thw3, flaws.FPS, _CRF)
      records.append(
        {'video': (inside / name).as_posix(), 'caption': clip.caption}
      )
    write_json(partial / REAL, records)
    write_json(partial / _RECIPE, recipe)


def _is_there(folder: pathlib.Path, recipe: Mapping[str, Any]) -> bool:
  """Whether the folder holds these clips; False if it is free to be made."""
  if not folder.exists():
    return False
  path = folder / _RECIPE
  if not path.is_file():
    raise UserError(
      f'{folder}: holds other things than real clips; name a new folder'
    )
  if read_json(path) != recipe:
    raise UserError(
      f'{path}: real clips were made with other settings; delete the folder or '
      'name a new one'
    )
  return True
