"""A critic that errs in a known manner, for `lift evaluate` to measure.

It sees the true labels through noise and is surer than it should be, as
fine-tuned models are; some clips it cannot answer about.

L labels, from good to bad
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lift_jax.data.hra import LABELS
from lift_jax.rewards.weights import RewardMap
from lift_jax.scoring.config import RewardConfig
from lift_jax.scoring.output import scored_record
from lift_jax.toyworld import annotators
from lift_jax.toyworld.checkers import Verdict

# How far it misjudges: standard deviations, in labels.
_NOISE = {'semantic': 0.6, 'motion': 0.8, 'fidelity': 0.7}
# How fast its probabilities fall with the squared distance from what it sees;
# 1 / (2 noise^2), at most 1.4, would be calibrated.
_SHARPNESS = 5.0
# Share of the clips that it fails on.
_FAILURES = 0.02


def score(
  video: str,
  caption: str,
  verdicts: Mapping[str, Verdict],
  rng: np.random.Generator,
) -> dict[str, Any]:
  """A record as `lift score` writes it.

  Args:
    video: path of the clip, relative to the root of its records.
    caption: what it should show.
    verdicts: true ones, by dimension.
    rng: draws the errors.
  """
  line = {'video': video, 'caption': caption, 'critic': 'simulated'}
  if rng.random() < _FAILURES:
    line['error'] = 'the answer begins with no label'
  else:
    labels, probabilities, answers = {}, {}, {}
    for dimension, verdict in verdicts.items():
      seen = LABELS.index(verdict.label) + rng.normal(0, _NOISE[dimension])
      distance_l = np.arange(len(LABELS)) - seen
      weight_l = np.exp(-_SHARPNESS * (distance_l**2 - min(distance_l**2)))
      probability_l = (weight_l / weight_l.sum()).round(6).tolist()
      label = LABELS[int(np.argmax(probability_l))]
      said = annotators.change_label(dimension, verdict, label)
      labels[dimension] = label
      probabilities[dimension] = dict(zip(LABELS, probability_l, strict=True))
      answers[dimension] = f'{label}. {said.rationale}'
    line |= {
      'labels': labels,
      'probabilities': probabilities,
      'answers': answers,
      'label_mass': dict.fromkeys(labels, 1.0),
    }
  worth = RewardMap()
  return scored_record(
    line, RewardConfig(worth.good, worth.normal, worth.bad, 'soft', None)
  )
