"""HTML report on the evaluation of a critic."""

import base64
from collections.abc import Mapping, Sequence
import dataclasses
import io
import json
import pathlib
from typing import Any

from PIL import Image

from lift_jax.data import video
from lift_jax.errors import UserError
from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.evaluation.comparison import Rating
from lift_jax.evaluation.critic_evaluation import Tree
from lift_jax.models.frames import evenly_spaced_frames
from lift_jax.report import (
  critic_table,
  critics_table,
  html,
  plots,
  preferences_table,
)
from lift_jax.report.colours import BLUE, VERMILION
from lift_jax.report.critic_findings import findings
from lift_jax.report.formatting import Row, cell, decimal, percent, percentage
from lift_jax.report.svg import Plot
from lift_jax.runtime import storage

# Records listed on the page; evaluation.json lists all.
_LISTED = 12

_NO_ANSWER = 'none'

# Titles of the terminal's table that the page, which has more room, rewords.
_LONG_TITLES = {
  '  one label only, %': '  majority-label baseline, %',
  '  gain over that': '  gain over the baseline, points',
  'too sure by, %': 'overconfidence, points',
  '  scaled': '  after temperature scaling',
  '  of base rates': '  of the base rates',
  'Order of clips': 'Ranking of clips',
  '  if all tie, %': '  if all were ties, %',
}


@dataclasses.dataclass(frozen=True)
class PageConfig:
  """Content of the page.

  Attributes:
    worst: number of the most confident disagreements to show.
    frames: number of frames of each, chosen like a critic's frames.
    frame_width: pixels of a frame's longer side.
  """

  worst: int
  frames: int
  frame_width: int

  def __post_init__(self):
    for name in ('worst', 'frames', 'frame_width'):
      low = 0 if name == 'worst' else 1
      if getattr(self, name) < low:
        raise UserError(
          f'report.{name} is {getattr(self, name)}; it must be {low} or more'
        )


def critic_page(
  result: Tree, worst: Sequence[Rating], config: PageConfig
) -> str:
  """The HTML page.

  Args:
    result: content of `evaluation.json`.
    worst: disagreements to show.
    config: how to show them.
  """
  sections = {**result['dimensions'], 'all': result['all']}
  metrics = result['settings']['metrics']
  return html.render(
    'critic.html',
    result=result,
    findings=findings(result),
    agreement=_agreement(sections),
    columns=critic_table.columns(result),
    rows=[
      dataclasses.replace(row, title=_LONG_TITLES.get(row.title, row.title))
      for row in critic_table.rows(result)
    ],
    coverage=_coverage(result),
    preferences=_preferences(result),
    critics=_critics(result),
    confusions={
      name: _confusion(name, section, result['classes'])
      for name, section in sections.items()
    },
    reliabilities=_reliabilities(result, sections),
    ranking=_ranking(result),
    disagreements=[
      _disagreement(rating, result['classes'], config) for rating in worst
    ],
    left_out=_left_out(result['left_out']),
    num_bins=metrics['num_bins'],
    has_temperature_by_dimension=metrics['temperature'] == 'dimension',
    settings=json.dumps(result['settings'], indent=1),
  )


def preferences_page(result: Tree) -> str:
  """The HTML page without ratings of single clips."""
  return html.render(
    'preferences.html',
    result=result,
    coverage=_coverage(result),
    preferences=_preferences(result),
    critics=_critics(result),
    settings=json.dumps(result['settings'], indent=1),
  )


def _coverage(result: Tree) -> str:
  return f'{result["settings"]["metrics"]["bootstrap"]["coverage"]:.0%}'


def _preferences(result: Tree) -> dict[str, Any] | None:
  """The table of pairs that people compared; None without any."""
  preferences = result['preferences']
  if preferences is None:
    return None
  return {
    'columns': list(preferences['dimensions']),
    'rows': preferences_table.rows(preferences),
    'pairs': preferences['pairs'],
    'not_scored': len(preferences['not_scored']),
    'tuning': preferences['tuning'],
    'votes': preferences['votes']
    and preferences_table.votes_line(preferences['votes']),
  }


def _critics(result: Tree) -> dict[str, Any] | None:
  """The table of several critics; None for one."""
  critics = result['critics']
  if critics is None:
    return None
  return {
    'columns': critics_table.columns(critics),
    'rows': critics_table.rows(critics),
  }


def _agreement(sections: Mapping[str, Tree]) -> Plot:
  measured = {
    name: (
      Estimate(**section['agreement']['accuracy']),
      section['agreement']['baseline_accuracy']['value'],
    )
    for name, section in sections.items()
  }
  numbers = '; '.join(
    f'{name} {accuracy.value:.1%}, baseline {baseline:.1%}'
    for name, (accuracy, baseline) in measured.items()
  )
  return Plot(
    plots.intervals(measured, 'majority-label baseline'),
    f'Accuracy of the critic: {numbers}',
    'Accuracy: share of ratings where the critic and the annotators agree.',
  )


def _confusion(name: str, section: Tree, classes: Sequence[str]) -> Plot:
  """The confusion matrix, labels from the best to the worst."""
  counts = [
    line[: len(classes)][::-1] + line[len(classes) :]
    for line in section['confusion'][::-1]
  ]
  labels = classes[::-1]
  columns = [*labels, _NO_ANSWER] if section['errors'] else [*labels]
  return Plot(
    plots.confusion_matrix(
      [line[: len(columns)] for line in counts], labels, columns
    ),
    f'{name}: confusion matrix of annotators (rows) and critic (columns)',
  )


def _reliabilities(
  result: Tree, sections: Mapping[str, Tree]
) -> dict[str, dict[str, Any]]:
  """Temperatures, and reliability diagrams before and after, by dimension."""
  shown = {}
  for name, section in sections.items():
    calibration = section['calibration']
    if calibration is None:
      continue
    drawn = []
    for kind, label, colour in (
      ('before', 'uncalibrated', VERMILION),
      ('after', 'calibrated', BLUE),
    ):
      if calibration[kind] is None:
        continue
      ece = percentage(calibration[kind]['ece'])
      figure = plots.reliability_diagram(
        calibration[kind]['bins'], f'{label}: ECE {ece}', colour
      )
      title = f'{name}, {label}: accuracy over confidence; ECE {ece}'
      drawn.append(Plot(figure, title))
    temperature = result['temperatures'].get(name)
    shown[name] = {
      'temperature': decimal(temperature) if temperature else None,
      'plots': drawn,
    }
  return shown


def _ranking(result: Tree) -> dict[str, Any] | None:
  """Rankings by the soft reward and by the reward of the labels."""
  main = critic_table.main_reward(result)
  if main is None:
    return None
  names = {'soft': 'soft reward', 'labels': 'reward of the labels'}
  rows = []
  for kind, ranking in result['reward'].items():
    pairs = ranking['pairs']
    rows.append(
      Row(
        names[kind],
        (
          cell(ranking['spearman'], decimal),
          cell(ranking['kendall'], decimal),
          cell(pairs['without_ties'], percent),
          cell(pairs['with_ties'], percent),
          cell(pairs['with_ties_fitted_here'], percent),
        ),
      )
    )
  pairs = main['pairs']
  return {
    'rows': rows,
    'clips': main['clips'],
    'pairs': pairs,
    'ties': percentage(pairs['human_ties']) if pairs['count'] else None,
  }


def _disagreement(
  rating: Rating, classes: Sequence[str], config: PageConfig
) -> dict[str, Any]:
  """A clip with the annotators' and the critic's answers."""
  answer = rating.answer
  assert answer is not None  # `worst` chooses among those answered
  said = classes[answer.label]
  probabilities = None
  if answer.probabilities is not None:
    by_class = zip(classes, answer.probabilities, strict=True)
    shares = dict(reversed(list(by_class)))
    probabilities = Plot(
      plots.bars(
        shares, '{:.0%}'.format, size=(112, 13.5), left=47, marked=said
      ),
      '; '.join(f'{label} {share:.0%}' for label, share in shares.items()),
    )
  frames, problem = [], None
  if not rating.path.is_file():
    problem = 'The video file is missing.'
  else:
    try:
      frames = jpegs(rating.path, config.frames, config.frame_width)
    except UserError as error:
      problem = str(error)
  return {
    'rating': rating,
    'chosen': classes[rating.human],
    'said': said,
    'probabilities': probabilities,
    'frames': [base64.b64encode(data).decode() for data in frames],
    'problem': problem,
  }


def jpegs(path: pathlib.Path, num_frames: int, side: int) -> list[bytes]:
  """Frames of a clip as JPEG, with a longer side of at most `side` pixels.

  Raises:
    UserError: the clip cannot be decoded.
  """
  with storage.local_file(path) as local:
    clip = video.decode(
      local, num_frames, where=path.name, choose=evenly_spaced_frames
    )
  files = []
  for image_hw3 in clip.frames:
    image = Image.fromarray(image_hw3)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format='JPEG', quality=80)
    files.append(buffer.getvalue())
  return files


def _left_out(
  records: Mapping[str, Sequence[str | Sequence[str]]],
) -> dict[str, dict[str, Any]]:
  """By kind, the number of records, the first of them, and how many more."""
  return {
    kind: {
      'count': len(items),
      'listed': [
        item if isinstance(item, str) else ': '.join(item)
        for item in items[:_LISTED]
      ],
      'more': max(0, len(items) - _LISTED),
    }
    for kind, items in records.items()
  }
