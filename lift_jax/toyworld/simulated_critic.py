"""A simulated critic with known errors, for `lift evaluate` to measure.

It observes the true labels with noise and is overconfident, as fine-tuned
models are; it fails on some clips.

L labels, from good to bad
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lift_jax.data.hra import LABELS
from lift_jax.data.rubric import LIFT
from lift_jax.scoring.config import RewardConfig
from lift_jax.scoring.output import scored_record
from lift_jax.toyworld import annotators
from lift_jax.toyworld.checkers import Verdict

# Standard deviations of its errors, in labels.
_NOISE = {'semantic': 0.6, 'motion': 0.8, 'fidelity': 0.7}
# Decay of its probabilities with the squared distance from the observed label;
# 1 / (2 noise^2), at most 1.4, would be calibrated.
_SHARPNESS = 5.0
# Fraction of clips that it fails on.
_FAILURES = 0.02


def score(
  video: str,
  caption: str,
  verdicts: Mapping[str, Verdict],
  rng: np.random.Generator,
) -> dict[str, Any]:
  """Scores a clip; returns a record as `lift score` writes it.

  Args:
    video: path of the clip, relative to the root of its records.
    caption: prompt of the clip.
    verdicts: true verdicts by dimension.
    rng: for the errors.
  """
  record = {'video': video, 'caption': caption, 'critic': 'simulated'}
  if rng.random() < _FAILURES:
    record['error'] = 'the answer begins with no label'
  else:
    labels, probabilities, answers = {}, {}, {}
    for dimension, verdict in verdicts.items():
      observed = LABELS.index(verdict.label) + rng.normal(0, _NOISE[dimension])
      distance_l = np.arange(len(LABELS)) - observed
      weight_l = np.exp(-_SHARPNESS * (distance_l**2 - min(distance_l**2)))
      probability_l = (weight_l / weight_l.sum()).round(6).tolist()
      label = LABELS[int(np.argmax(probability_l))]
      answer = annotators.change_label(dimension, verdict, label)
      labels[dimension] = label
      probabilities[dimension] = dict(zip(LABELS, probability_l, strict=True))
      answers[dimension] = f'{label}. {answer.rationale}'
    record |= {
      'labels': labels,
      'probabilities': probabilities,
      'answers': answers,
      'label_mass': dict.fromkeys(labels, 1.0),
      'made_by': {'template': 'simulated'},
    }
  return scored_record(
    record, RewardConfig(*LIFT.rewards, kind='soft', decimals=None)
  )
