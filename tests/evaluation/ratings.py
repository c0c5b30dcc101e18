"""Ratings by critics whose quality is known, and how to evaluate them."""

import pathlib

import numpy as np

from lift_jax.data.hra import DIMENSIONS
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.evaluation.comparison import Rating
from lift_jax.evaluation.critic_evaluation import MetricsConfig
from lift_jax.evaluation.scores import Answer, ScoredRecord


def config(**changes) -> MetricsConfig:
  fields = {
    'num_bins': 15, 'temperature': 'dimension', 'max_pairs': 2000,
    'bootstrap': BootstrapConfig(draws=100, coverage=0.95, seed=0),
  }  # fmt: skip
  return MetricsConfig(**fields | changes)


def ratings(
  seed: int = 0,
  num_videos: int = 90,
  noise: float = 1.0,
  sharpness: float = 1.0,
  has_probabilities: bool = True,
  fail_every: int = 0,
) -> list[Rating]:
  """A critic whose logits are those of people, with noise, times sharpness.

  Without noise and with a sharpness of 1 people draw their labels from what
  the critic gives: it is calibrated.
  """
  rng = np.random.default_rng(seed)
  result = []
  for index in range(num_videos):
    answers, human = {}, {}
    for dimension in DIMENSIONS:
      logits = rng.normal(0, 2, 3)
      human[dimension] = int((logits + rng.gumbel(size=3)).argmax())
      seen = sharpness * (logits + noise * rng.normal(0, 1, 3))
      weights = np.exp(seen - seen.max())
      shares = tuple((weights / weights.sum()).tolist())
      label = int(np.argmax(shares))
      answers[dimension] = Answer(
        label, '', shares if has_probabilities else None
      )
    is_error = bool(fail_every) and index % fail_every == 0
    scored = ScoredRecord(
      video=f'{index}.mp4', path=pathlib.Path(f'{index}.mp4'),
      caption=f'prompt {index // 3}', answers={} if is_error else answers,
      error='no label' if is_error else '', critic='c', flags=(),
      file='scores.json', place=f'record {index}',
    )  # fmt: skip
    result += [
      Rating(
        scored.video, scored.path, scored.caption, dimension, human[dimension],
        (), scored.answers.get(dimension), scored, f'labels.json {dimension}',
      )
      for dimension in DIMENSIONS
    ]  # fmt: skip
  return result
