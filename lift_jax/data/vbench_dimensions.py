"""VBench's dimensions: ranges, weights, and the totals of the leaderboard.

As in https://github.com/Vchitect/VBench, scripts/constant.py and
scripts/cal_final_score.py. Scores are between 0 and 1.
"""

from collections.abc import Mapping
import dataclasses

QUALITY, SEMANTIC, TOTAL = 'quality', 'semantic', 'total'
TOTALS = (QUALITY, SEMANTIC, TOTAL)

_GROUP_WEIGHTS = {QUALITY: 4.0, SEMANTIC: 1.0}


@dataclasses.dataclass(frozen=True)
class Dimension:
  """How a dimension counts.

  Attributes:
    group: 'quality' or 'semantic'.
    low: score that is normalised to 0.
    high: score that is normalised to 1.
    weight: in its group.
  """

  group: str
  low: float = 0.0
  high: float = 1.0
  weight: float = 1.0

  def normalised(self, score: float) -> float:
    return (score - self.low) / (self.high - self.low)


# In the order of the leaderboard.
DIMENSIONS = {
  'subject_consistency': Dimension(QUALITY, 0.1462),
  'background_consistency': Dimension(QUALITY, 0.2615),
  'temporal_flickering': Dimension(QUALITY, 0.6293),
  'motion_smoothness': Dimension(QUALITY, 0.706, 0.9975),
  'dynamic_degree': Dimension(QUALITY, weight=0.5),
  'aesthetic_quality': Dimension(QUALITY),
  'imaging_quality': Dimension(QUALITY),
  'object_class': Dimension(SEMANTIC),
  'multiple_objects': Dimension(SEMANTIC),
  'human_action': Dimension(SEMANTIC),
  'color': Dimension(SEMANTIC),
  'spatial_relationship': Dimension(SEMANTIC),
  'scene': Dimension(SEMANTIC, 0.0, 0.8222),
  'appearance_style': Dimension(SEMANTIC, 0.0009, 0.2855),
  'temporal_style': Dimension(SEMANTIC, 0.0, 0.364),
  'overall_consistency': Dimension(SEMANTIC, 0.0, 0.364),
}


def coefficients(total: str) -> dict[str, float]:
  """What each dimension's normalised score counts in a total.

  They add up to 1.
  """
  shares = {}
  groups = _GROUP_WEIGHTS if total == TOTAL else {total: 1.0}
  for group, group_weight in groups.items():
    members = {n: d for n, d in DIMENSIONS.items() if d.group == group}
    weights = sum(dimension.weight for dimension in members.values())
    for name, dimension in members.items():
      share = dimension.weight / weights
      shares[name] = share * group_weight / sum(groups.values())
  return shares


def totals(scores: Mapping[str, float]) -> dict[str, float]:
  """Quality, Semantic and Total, as the leaderboard computes them.

  Args:
    scores: by dimension; one that is missing has the score 0, which is below 0
      once it is normalised.
  """
  return {
    total: sum(
      share * DIMENSIONS[name].normalised(scores.get(name, 0.0))
      for name, share in coefficients(total).items()
    )
    for total in TOTALS
  }


@dataclasses.dataclass(frozen=True)
class PublishedRow:
  """Scores that somebody published.

  Attributes:
    model: name of the model.
    source: where the scores are from, such as 'LiFT paper'.
    evaluator: 'vbench' or 'vbench_long'; None where the source does not say.
    scores: by dimension.
  """

  model: str
  source: str
  evaluator: str | None
  scores: Mapping[str, float]


def _row(
  model: str, source: str, evaluator: str | None, percents: str
) -> PublishedRow:
  """A row from percents in the order of `DIMENSIONS`."""
  numbers = [float(number) / 100 for number in percents.split()]
  scores = dict(zip(DIMENSIONS, numbers, strict=True))
  return PublishedRow(model, source, evaluator, scores)


_BOARD = 'VBench leaderboard'
_LIFT = 'LiFT paper'

# The leaderboard scores clips of CogVideoX with VBench-Long. The paper (arXiv
# 2412.04814) does not say which of the two it used; its column names are
# scrambled in the text, so the order of its dimensions is a reconstruction.
PUBLISHED = (
  _row(
    'CogVideoX-2B', _BOARD, 'vbench_long',
    '96.78 96.63 98.89 97.73 59.86 60.82 61.68 '
    '83.37 62.63 98.00 79.41 69.90 51.14 24.80 24.36 26.66',
  ),
  _row(
    'CogVideoX-5B', _BOARD, 'vbench_long',
    '96.23 96.52 98.66 96.92 70.97 61.98 62.90 '
    '85.23 62.11 99.40 82.81 66.35 53.20 24.91 25.38 27.59',
  ),
  _row(
    'CogVideoX-2B', _LIFT, None,
    '94.58 95.45 96.94 97.86 60.22 61.94 63.04 '
    '85.75 69.11 97.34 80.86 61.78 53.30 24.67 24.19 27.34',
  ),
  _row(
    'CogVideoX-5B', _LIFT, None,
    '94.84 95.64 97.19 97.81 62.78 63.13 63.14 '
    '88.99 70.98 98.40 82.50 55.94 56.57 24.70 25.12 27.84',
  ),
  _row(
    'CogVideoX-2B-LiFT (13B critic)', _LIFT, None,
    '96.15 96.48 98.10 98.17 61.89 63.24 64.01 '
    '91.27 77.45 97.90 84.40 64.66 56.76 24.86 24.83 27.23',
  ),
  _row(
    'CogVideoX-2B-LiFT (40B critic)', _LIFT, None,
    '96.82 96.79 98.20 98.33 62.85 63.72 64.19 '
    '91.77 79.34 98.44 85.15 66.04 57.63 25.92 25.23 27.93',
  ),
)  # fmt: skip
