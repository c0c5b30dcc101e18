"""What is measured on the clips of a model, and paired intervals of it.

Every model generates clips of the same prompts from the same noise, so values
are kept by prompt, and the bootstrap resamples prompts for both models at once.

P prompts, D resamples.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from lift_jax.data import video
from lift_jax.data.hra import DIMENSIONS
from lift_jax.evaluation import bootstrap, diversity, motion
from lift_jax.evaluation.bootstrap import BootstrapConfig, Estimate
from lift_jax.sampling import manifest
from lift_jax.toyworld import judge

ALL = 'all'
# Mean expected rewards by the critic that labelled clips, and by the second.
REWARDS = ('critic', 'second_critic')

# By measure, a mean over the clips of a prompt.
Values = dict[str, list[float]]


def measure(folder: pathlib.Path, base: pathlib.Path) -> Values:
  """Measures the clips of a `lift sample` job for every prompt.

  all, DIMENSION  share of clips that the checkers call Good
  reward          LiFT's, from the checkers' labels
  motion_size     mean difference of consecutive frames
  static          share of clips that stand still
  diversity       distance of clips of a prompt; see `evaluation.diversity`
  distance        the same to the base model's clip from the same noise

  Args:
    folder: of the job.
    base: that of the base model.
  """
  others = {
    (line['id'], line['index']): base / name
    for name, line in manifest.read_lines(base).items()
  }
  by_prompt: dict[str, list[dict[str, Any]]] = {}
  for clip in judge.judge_videos(folder):
    frames = video.decode(clip.path, where=str(clip.path)).frames
    other = video.decode(others[clip.key], where=str(others[clip.key])).frames
    moving = motion.measure(frames)
    is_good = {d: clip.verdicts[d].label == 'Good' for d in DIMENSIONS}
    features = diversity.grid_features(frames)
    by_prompt.setdefault(clip.caption, []).append(
      is_good
      | {
        ALL: all(is_good.values()),
        'reward': clip.reward,
        'motion_size': moving.difference,
        'static': moving.is_static,
        'distance': diversity.pairwise_distance(
          np.stack([features, diversity.grid_features(other)])
        ),
        'features': features,
      }
    )
  values: Values = {}
  for clips in by_prompt.values():
    features_nd = np.stack([clip.pop('features') for clip in clips])
    means = {name: np.mean([clip[name] for clip in clips]) for name in clips[0]}
    means['diversity'] = diversity.pairwise_distance(features_nd)
    for name, mean in means.items():
      values.setdefault(name, []).append(float(mean))
  return values


def rewards(
  records: Sequence[Mapping[str, Any]], captions: Sequence[str]
) -> list[float]:
  """Mean expected reward of the clips of each prompt, by a critic's records."""
  by_caption: dict[str, list[float]] = {caption: [] for caption in captions}
  for record in records:
    by_caption[record['caption']].append(record['soft_reward'])
  return [float(np.mean(values)) for values in by_caption.values()]


def accuracy(
  records: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
  """Share of labels that are right, by dimension; clips in the same order."""
  pairs = list(zip(records, truth, strict=True))
  return {
    name: float(
      np.mean([r['labels'][name] == t['labels'][name] for r, t in pairs])
    )
    for name in DIMENSIONS
  }


def mean(values: Mapping[str, Sequence[float]], name: str) -> float | None:
  """The mean of a measure; None if it was not taken."""
  return float(np.mean(values[name])) if name in values else None


def difference(
  values: Sequence[float], other: Sequence[float], config: BootstrapConfig
) -> Estimate:
  """The paired difference of two models in a measure, with its interval."""
  difference_p = np.asarray(values) - np.asarray(other)

  def metrics(weights_dp: np.ndarray) -> dict[str, np.ndarray]:
    return {'': weights_dp @ difference_p / len(difference_p)}

  return bootstrap.estimates(metrics, len(difference_p), 1, config)['']
