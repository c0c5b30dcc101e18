"""The checkers' verdicts on generated clips, as metrics for `lift compare`."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from lift_jax.data.hra import DIMENSIONS, LABELS
from lift_jax.data.rubric import LIFT
from lift_jax.errors import UserError
from lift_jax.rewards.weights import video_reward
from lift_jax.sampling import manifest
from lift_jax.toyworld import checkers, scenes
from lift_jax.toyworld.checkers import Verdict

# Kinds of flaws in verdicts; 'motion' is a direction other than the caption's.
KINDS = (*scenes.ATTRIBUTES, *checkers.TOLERANCES, 'nothing')

# Names of metrics.
NAME, ALL = 'checkers_{}', 'all'
# (name, title, better, whether it is a share).
_METRICS = (
  *((name, f'{name} Good', 'higher', True) for name in DIMENSIONS),
  (ALL, 'all three Good', 'higher', True),
  ('reward', 'mean reward', 'higher', False),
  ('speed', 'step, in image sides', 'neither', False),
  ('static', 'clips in which nothing moves', 'lower', True),
)


@dataclasses.dataclass(frozen=True)
class JudgedClip:
  """A generated clip with the checkers' verdicts.

  Attributes:
    key: id of the prompt, and index among its clips.
    caption: the prompt.
    video: path of the mp4 file in the workdir of the job.
    path: of the mp4 file.
    verdicts: by dimension.
    reward: LiFT's, from the three labels.
    speed: mean displacement of the shape per frame, in units of the shorter
      side, jitter and jumps included; None if no shape is found in two
      consecutive frames.
    is_static: whether nothing moves from the first frame to the last.
  """

  key: tuple[str, int]
  caption: str
  video: str
  path: pathlib.Path
  verdicts: Mapping[str, Verdict]
  reward: float
  speed: float | None
  is_static: bool


def judge_videos(workdir: pathlib.Path) -> list[JudgedClip]:
  """Judges the clips of a `lift sample` job, in the order of its manifest.

  Args:
    workdir: of the job.

  Raises:
    UserError: no clip, or one that is not of the toy world.
  """
  path = workdir / manifest.NAME
  lines = manifest.read_lines(workdir)
  if not lines:
    raise UserError(f'{path}: lists no clip; give the workdir of lift sample')
  return [
    judge_clip(
      (line['id'], line['index']),
      line['prompt'],
      name,
      workdir / name,
      f'{path} ({name})',
    )
    for name, line in lines.items()
  ]


def judge_clip(
  key: tuple[str, int], caption: str, video: str, path: pathlib.Path, where: str
) -> JudgedClip:
  """Judges one clip; `where` is the name of its record in errors."""
  verdicts, measured = checkers.check_video(path, caption, where)
  labels = {name: verdict.label for name, verdict in verdicts.items()}
  return JudgedClip(
    key,
    caption,
    video,
    path,
    verdicts,
    video_reward(labels, LIFT),
    _speed(measured.path_t2),
    measured.is_static,
  )


def _speed(path_t2: np.ndarray | None) -> float | None:
  if path_t2 is None:
    return None
  lengths_s = np.linalg.norm(np.diff(path_t2, axis=0), axis=1)
  lengths_s = lengths_s[np.isfinite(lengths_s)]
  return float(lengths_s.mean()) if lengths_s.size else None


def metric_file(clips: Sequence[JudgedClip]) -> dict[str, Any]:
  """The verdicts as metrics for `lift compare`; see `metric_files`.

  They are, by `NAME`: whether a clip is Good, in each dimension and in all
  three, which decides; its reward; its speed if it has one; and whether nothing
  moves.
  """
  return {
    'metrics': [
      {'name': NAME.format(name), 'title': title, 'group': 'Checkers',
       'better': better, 'is_share': is_share}
      for name, title, better, is_share in _METRICS
    ],
    'decisive': NAME.format(ALL),
    'clips': {
      clip.video: {
        NAME.format(name): value for name, value in _values(clip).items()
      }
      for clip in clips
    },
  }  # fmt: skip


def _values(clip: JudgedClip) -> dict[str, float]:
  is_good = {name: clip.verdicts[name].label == 'Good' for name in DIMENSIONS}
  values = {name: int(yes) for name, yes in is_good.items()}
  values |= {
    ALL: int(all(is_good.values())),
    'reward': clip.reward,
    'static': int(clip.is_static),
  }
  if clip.speed is not None:
    values['speed'] = clip.speed
  return values


def label_shares(clips: Sequence[JudgedClip]) -> dict[str, dict[str, float]]:
  """Shares of clips by dimension and label."""
  return {
    dimension: {
      label: _share([clip.verdicts[dimension].label == label for clip in clips])
      for label in LABELS
    }
    for dimension in DIMENSIONS
  }


def flaw_shares(clips: Sequence[JudgedClip]) -> dict[str, float]:
  """Shares of clips that have each kind of flaw."""
  kinds_of_clips = [
    {kind for verdict in clip.verdicts.values() for kind in verdict.kinds}
    for clip in clips
  ]
  return {
    kind: _share([kind in kinds for kinds in kinds_of_clips]) for kind in KINDS
  }


def _share(flags: Sequence[bool]) -> float:
  return sum(flags) / len(flags)
