"""Validates the toy world's checkers on clips with known flaws.

  python -m lift_jax.toyworld.pretraining.validate [--num_clips=2000] [--seed=0]

Prints a confusion matrix for each dimension and condition, with rows the truth
and columns the verdict: of clips as rendered, after encoding as mp4 like
`lift sample`, and after the blur and noise of a small video autoencoder. Then
the agreement of simulated annotators.
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import pathlib
import tempfile

import numpy as np

from lift_jax.data import video
from lift_jax.data.hra import DIMENSIONS, LABELS
from lift_jax.data.video_write import write_mp4
from lift_jax.toyworld import annotators, checkers, flaws, scenes
from lift_jax.toyworld.checkers import Verdict
from lift_jax.toyworld.flaws import ToyClip
from lift_jax.toyworld.render import blurred

# Simulated autoencoder: standard deviations of a blur, in pixels of 32, of a
# tint of the full clip and of noise per value, in levels of 255.
_SOFT_BLUR, _SOFT_TINT, _SOFT_NOISE = 0.5, 5.0, 2.0


@dataclasses.dataclass
class Result:
  """Verdicts on clips under one condition.

  Attributes:
    confusion_dll: [dimensions, labels, labels], clips by truth and verdict.
    num_named: those of `num_to_name` that name the right flaw.
    num_to_name: right verdicts on fidelity and motion that are not Good.
    verdicts: of each clip, by dimension.
  """

  confusion_dll: np.ndarray
  num_named: int = 0
  num_to_name: int = 0
  verdicts: list[dict[str, Verdict]] = dataclasses.field(default_factory=list)

  def agreement(self) -> dict[str, float]:
    """The fraction of right labels by dimension."""
    right_d = self.confusion_dll.diagonal(0, 1, 2).sum(1)
    rates_d = right_d / self.confusion_dll.sum((1, 2))
    return dict(zip(DIMENSIONS, rates_d.tolist(), strict=True))


def draw(index: int, seed: int, size: int = 32) -> ToyClip:
  """Clip `index` of a set: a random scene with random flaws."""
  rng = np.random.default_rng((seed, index))
  all_scenes = tuple(scenes.all_scenes())
  asked = all_scenes[rng.integers(len(all_scenes))]
  return flaws.draw_clip(asked, rng, height=size, width=size)


def round_trip(frames_thw3: np.ndarray) -> np.ndarray:
  """The frames after encoding to mp4 and decoding."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'clip.mp4'
    write_mp4(path, frames_thw3, flaws.FPS)
    return video.decode(path, where='clip').frames


def soften(frames_thw3: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The frames after a simulated small autoencoder."""
  sigma = _SOFT_BLUR * min(frames_thw3.shape[1:3]) / 32
  soft_3thw = blurred(np.moveaxis(frames_thw3, -1, 0).astype(float), sigma)
  soft_thw3 = np.moveaxis(soft_3thw, 0, -1) + rng.normal(0, _SOFT_TINT, 3)
  soft_thw3 = soft_thw3 + rng.normal(0, _SOFT_NOISE, soft_thw3.shape)
  return np.clip(np.rint(soft_thw3), 0, 255).astype(np.uint8)


def validate(
  clips: Sequence[ToyClip], change: Callable[[int, np.ndarray], np.ndarray]
) -> Result:
  """Judges clips after `change(index, frames)` of their frames."""
  num_labels = len(LABELS)
  result = Result(np.zeros((len(DIMENSIONS), num_labels, num_labels), int))
  for index, clip in enumerate(clips):
    verdicts = checkers.check(clip.caption, change(index, clip.frames_thw3))
    result.verdicts.append(verdicts)
    for number, dimension in enumerate(DIMENSIONS):
      truth, verdict = clip.labels[dimension], verdicts[dimension]
      row, column = LABELS.index(truth), LABELS.index(verdict.label)
      result.confusion_dll[number, row, column] += 1
      if dimension != 'semantic' and verdict.label == truth != 'Good':
        result.num_to_name += 1
        result.num_named += verdict.kinds == (getattr(clip, dimension).kind,)
  return result


def _print(title: str, result: Result) -> None:
  print(f'\n{title}')
  agreement = result.agreement()
  for dimension, confusion_ll in zip(
    DIMENSIONS, result.confusion_dll, strict=True
  ):
    print(
      f'{dimension:<10}'
      + ''.join(f'{label:>8}' for label in LABELS)
      + f'{agreement[dimension]:>10.2%} right'
    )
    for label, row_l in zip(LABELS, confusion_ll, strict=True):
      print(f'  {label:<8}' + ''.join(f'{count:>8}' for count in row_l))
  print(
    f'named right: {result.num_named} of {result.num_to_name} flaws of '
    'fidelity and motion'
  )


def _print_annotators(
  clips: Sequence[ToyClip],
  all_verdicts: Sequence[dict[str, Verdict]],
  seed: int,
) -> None:
  rated, num_right = [], dict.fromkeys(DIMENSIONS, 0)
  for index, (clip, verdicts) in enumerate(
    zip(clips, all_verdicts, strict=True)
  ):
    item = annotators.rate_clip(
      f'{index}.mp4',
      clip.caption,
      verdicts,
      annotators.ANNOTATORS,
      (seed, index),
    )
    rated.append(item)
    for dimension, truth in clip.labels.items():
      labels = [rating[dimension].label for rating in item.ratings]
      num_right[dimension] += annotators.settle(labels) == truth
  print(f'\n{len(annotators.ANNOTATORS)} annotators, rendered clips')
  for dimension, rates in annotators.agreement(rated).items():
    print(
      f'{dimension:<10} pairs agree {rates["pairs"]:.1%}, all '
      f'{rates["all"]:.1%}; settled labels true '
      f'{num_right[dimension] / len(clips):.1%}'
    )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--num_clips', type=int, default=2000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--size', type=int, default=32)
  given = parser.parse_args()
  clips = [draw(i, given.seed, given.size) for i in range(given.num_clips)]
  conditions = {
    'as rendered': lambda _, frames: frames,
    'after mp4': lambda _, frames: round_trip(frames),
    'softened': lambda index, frames: soften(
      frames, np.random.default_rng((given.seed, index, 1))
    ),
  }
  results = {}
  for title, change in conditions.items():
    results[title] = validate(clips, change)
    _print(f'{given.num_clips} clips, {title}', results[title])
  _print_annotators(clips, results['as rendered'].verdicts, given.seed)


if __name__ == '__main__':
  main()
