"""The page about a critic: how far to trust it, and where it went wrong."""

import base64
from collections.abc import Sequence
import dataclasses
import io
import json
import pathlib
from typing import Any

from PIL import Image

from lift_jax.data import video
from lift_jax.data.frames import choose_critic_frames
from lift_jax.data.hra import LABELS
from lift_jax.errors import UserError
from lift_jax.evaluation.comparison import Rating
from lift_jax.evaluation.critic_evaluation import Tree
from lift_jax.evaluation.scores import CLASSES
from lift_jax.report import critic_table, plots
from lift_jax.report.critic_findings import findings
from lift_jax.report.critic_table import decimal, percent
from lift_jax.report.html import Html, join, page, table, tag
from lift_jax.report.parts import badge, percentage, written
from lift_jax.report.style import BLUE, VERMILION

# Records listed on the page; evaluation.json lists all.
_LISTED = 12

_NO_ANSWER = 'none'


@dataclasses.dataclass(frozen=True)
class PageConfig:
  """What the page shows.

  Attributes:
    worst: how many of the surest answers that people disagree with.
    frames: of each of them, chosen as a critic's frames are.
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
  """The whole page.

  Args:
    result: what `evaluation.json` holds.
    worst: disagreements to show.
    config: how.
  """
  sections = {**result['dimensions'], 'all': result['all']}
  return page(
    'How far to trust this critic',
    tag('h1', 'How far to trust this critic'),
    tag('p', _subtitle(result), class_='muted'),
    _notice(result),
    tag('ul', *(tag('li', line) for line in findings(result)),
        class_='findings'),
    _agreement_figure(sections),
    tag('h2', 'Every number'),
    _table(result),
    tag('h2', 'What is taken for what'),
    _confusions(sections),
    tag('h2', 'Is it right as often as it says?'),
    _reliability(result, sections),
    tag('h2', 'Does it put videos in order?'),
    _order(result),
    tag('h2', 'Where it was surest, and people disagree'),
    _worst(worst, config),
    tag('h2', 'What was left out'),
    _left_out(result),
    tag('h2', 'How to read this'),
    _notes(result),
    tag('details',
        tag('summary', 'Settings of this evaluation'),
        tag('pre', json.dumps(result['settings'], indent=1))),
  )  # fmt: skip


def _subtitle(result: Tree) -> str:
  whole, counts = result['all'], result['counts']
  critic = f'Critic {result["critic"]}. ' if result['critic'] else ''
  aside = (
    f'; {counts["ratings_aside"]:,} more were set aside to fit temperatures '
    'and thresholds'
    if counts['ratings_aside']
    else ''
  )
  return (
    f'{critic}{whole["ratings"]:,} ratings by people of {whole["videos"]:,} '
    f'videos{aside}.'
  )


def _notice(result: Tree) -> Html | None:
  if not result['synthetic']:
    return None
  return tag(
    'p',
    tag('strong', 'Made up. '),
    'No scores and labels were given, so clips, ratings and answers were '
    'drawn by lot. These numbers say nothing about any critic.',
    class_='notice',
  )


def _agreement_figure(sections: dict[str, Tree]) -> Html:
  rows = [
    plots.Measured(
      name,
      numbers['accuracy']['value'],
      numbers['accuracy']['low'],
      numbers['accuracy']['high'],
      numbers['baseline_accuracy']['value'],
    )
    for name, section in sections.items()
    for numbers in (section['agreement'],)
  ]
  told = '; '.join(
    f'{row.name} {row.value:.1%}, against {row.reference:.1%}' for row in rows
  )
  return tag(
    'figure',
    plots.intervals(
      rows,
      reference_name='the most frequent label, always',
      title=f'Share of ratings where critic and people agree: {told}',
    ),
    tag(
      'figcaption',
      'Share of ratings where the critic names the label that people chose.',
    ),
  )


def _table(result: Tree) -> Html:
  names = critic_table.columns(result)
  body = []
  for row in critic_table.rows(result):
    if not row.cells:
      heading = tag('th', row.title, scope='rowgroup', colspan=len(names) + 1)
      body.append(tag('tr', heading, class_='group'))
      continue
    indent = 'padding-left:28px' if row.title.startswith(' ') else None
    cells = [tag('th', row.title.strip(), scope='row', style=indent)]
    cells += [tag('td', written(cell)) for cell in row.cells]
    body.append(tag('tr', *cells))
  head = tag('tr', *(tag('th', name, scope='col') for name in ('', *names)))
  coverage = result['settings']['metrics']['bootstrap']['coverage']
  return join(
    (
      tag(
        'div',
        tag('table', tag('thead', head), tag('tbody', *body)),
        class_='scroll',
      ),
      tag(
        'p',
        f'In brackets the interval of {coverage:.0%}, from drawing videos with '
        'replacement. In the rows about order, the last column ranks whole '
        'videos by their reward.',
        class_='about',
      ),
    )
  )


def _confusions(sections: dict[str, Tree]) -> Html:
  """A matrix for each dimension, labels from the best to the worst."""
  figures = []
  for name, section in sections.items():
    counts = [
      [line[CLASSES.index(label)] for label in LABELS] + line[len(CLASSES) :]
      for line in section['confusion'][::-1]
    ]
    is_answered = not section['errors']
    columns = [*LABELS] if is_answered else [*LABELS, _NO_ANSWER]
    figures.append(
      tag(
        'figure',
        tag('h3', name),
        plots.confusion_matrix(
          [line[: len(columns)] for line in counts],
          LABELS,
          columns,
          title=f'{name}: what people said, and what the critic said',
        ),
      )
    )
  return join(
    (
      tag(
        'p',
        'Each row holds the ratings that people gave one label; the shares '
        'are of the row.',
        class_='about',
      ),
      tag('div', *figures, class_='row'),
    )
  )


def _reliability(result: Tree, sections: dict[str, Tree]) -> Html:
  """Diagrams before and after scaling, dimension by dimension."""
  figures = []
  for name, section in sections.items():
    calibration = section['calibration']
    if calibration is None:
      continue
    drawn = []
    for kind, label, colour in (
      ('before', 'as it is', VERMILION),
      ('after', 'scaled', BLUE),
    ):
      if calibration[kind] is None:
        continue
      ece = percentage(calibration[kind]['ece'])
      drawn.append(
        plots.reliability_diagram(
          calibration[kind]['bins'],
          name=f'{label}: ECE {ece}',
          colour=colour,
          title=f'{name}, {label}: how often answers of each confidence are '
          f'right; ECE {ece}',
        )
      )
    temperature = result['temperatures'].get(name)
    told = f', T = {decimal(temperature)}' if temperature else ''
    figures.append(
      tag(
        'figure',
        tag('h3', name, tag('span', told, class_='muted')),
        *drawn,
      )
    )
  if not figures:
    return tag('p', 'The critic gives no probabilities.')
  return join(
    (
      tag(
        'p',
        'Dots on the dashed line are as often right as they are sure; below '
        'it the critic is too sure. Larger dots and higher bars hold more '
        'ratings. A whisker is the 95% interval of Wilson.',
        class_='about',
      ),
      tag('div', *figures, class_='row'),
    )
  )


def _order(result: Tree) -> Html:
  """The soft reward beside the score of the labels alone."""
  reward = result['reward']
  if not reward:
    return tag('p', 'No video is rated and answered in all of its dimensions.')
  rows = []
  names = {'soft': 'soft reward', 'labels': 'reward of labels'}
  for kind, ranking in reward.items():
    numbers = [
      critic_table.cell(ranking['spearman'], decimal),
      critic_table.cell(ranking['kendall'], decimal),
    ]
    numbers += [
      critic_table.cell(ranking['pairs'][key], percent)
      for key in ('without_ties', 'with_ties', 'with_ties_fitted_here')
    ]
    rows.append([names[kind], *map(written, numbers)])
  ranking = critic_table.main_reward(result)
  pairs = ranking['pairs']
  few = (
    f'{pairs["count"]:,} of {pairs["of"]:,}'
    if pairs['count'] < pairs['of']
    else f'{pairs["count"]:,}'
  )
  which = 'of one prompt' if pairs['same_prompt'] else 'of any prompts'
  head = ('', 'Spearman', 'Kendall tau-b', 'pairs, no ties, %',
          'pairs, with ties, %', 'with ties, best here, %')  # fmt: skip
  return join(
    (
      tag('div', table(head, rows), class_='scroll'),
      tag(
        'p',
        f'{ranking["clips"]:,} videos, {few} pairs {which}; people '
        f'rate both alike in {percentage(pairs["human_ties"])} of them. '
        if pairs['count']
        else 'There are no pairs. ',
        'The soft reward is the mean over what the critic might have '
        'answered; the labels are only what it did answer, which leaves many '
        'videos level. The last column takes the threshold of ties that is '
        'best on these very pairs, as VideoGen-RewardBench does.',
        class_='about',
      ),
    )
  )


def _worst(ratings: Sequence[Rating], config: PageConfig) -> Html:
  if not ratings:
    return tag('p', 'Nowhere, or none was asked for.')
  return join(_disagreement(rating, config) for rating in ratings)


def _disagreement(rating: Rating, config: PageConfig) -> Html:
  """A card with the clip, and the two answers side by side."""
  answer = rating.answer
  said, chosen = CLASSES[answer.label], CLASSES[rating.human]
  bars = None
  if answer.probabilities is not None:
    by_name = dict(zip(CLASSES, answer.probabilities, strict=True))
    values = [(label, by_name[label]) for label in LABELS]
    bars = plots.shares(
      values,
      marked=said,
      title='; '.join(f'{label} {value:.0%}' for label, value in values),
    )
  reasons = [tag('blockquote', reason) for reason in rating.rationales]
  return tag(
    'article',
    tag('h3', rating.dimension, tag('span', f', {rating.video}',
                                    class_='muted')),
    tag('p', rating.caption),
    _frames(rating, config),
    tag(
      'div',
      tag('div', tag('p', 'People: ', badge(chosen)),
          *(reasons or [tag('p', 'No reason given.', class_='muted')])),
      tag('div', tag('p', 'Critic: ', badge(said)),
          tag('blockquote', answer.text) if answer.text else None, bars),
      class_='sides',
    ),
    class_='card',
  )  # fmt: skip


def _frames(rating: Rating, config: PageConfig) -> Html:
  """Frames of the clip as pictures, or why there are none."""
  if not rating.path.is_file():
    return tag('p', 'The video file is not there.', class_='noframes')
  try:
    frames = jpegs(rating.path, config.frames, config.frame_width)
  except UserError as error:
    return tag('p', str(error), class_='noframes')
  return tag(
    'div',
    *(
      tag(
        'img',
        src=f'data:image/jpeg;base64,{base64.b64encode(data).decode()}',
        alt=f'frame {number} of {len(frames)}',
      )
      for number, data in enumerate(frames, start=1)
    ),
    class_='frames',
  )


def jpegs(path: pathlib.Path, num_frames: int, side: int) -> list[bytes]:
  """Frames of a clip as JPEG, the longer side of `side` pixels at most.

  Raises:
    UserError: the clip cannot be decoded.
  """
  clip = video.decode(
    path, num_frames, where=path.name, choose=choose_critic_frames
  )
  files = []
  for image_hw3 in clip.frames:
    image = Image.fromarray(image_hw3)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format='JPEG', quality=80)
    files.append(buffer.getvalue())
  return files


def _left_out(result: Tree) -> Html:
  """Counts of what was not compared, and the first of each kind."""
  left_out = result['left_out']
  kinds = (
    ('rated_not_scored', 'Human records about nothing that was scored'),
    ('scored_not_rated', 'Scored records that nobody rated'),
    (
      'errors',
      'Scored records with an error, whose ratings count as wrong',
    ),
    ('skipped', 'Records that could not be used'),
  )
  parts = []
  for key, name in kinds:
    items = left_out[key]
    if not items:
      parts.append(tag('p', f'{name}: 0'))
      continue
    listed = [tag('li', _told(item)) for item in items[:_LISTED]]
    if len(items) > _LISTED:
      listed.append(
        tag('li', f'and {len(items) - _LISTED:,} more, in evaluation.json')
      )
    parts.append(
      tag(
        'details',
        tag('summary', f'{name}: {len(items):,}'),
        tag('ul', *listed),
      )
    )
  return join(parts)


def _told(item: Any) -> str:
  return item if isinstance(item, str) else ': '.join(item)


def _notes(result: Tree) -> Html:
  terms = (
    ('One label only',
     'what always naming the most frequent label would reach. A critic that '
     'is not above it has learnt which label is common, and no more.'),
    ('Macro-F1',
     'F1 averaged over the labels, so that rare ones count as much as common '
     'ones.'),
    ('ECE',
     'how far confidence and accuracy are apart, on average over '
     f'{result["settings"]["metrics"]["num_bins"]} bins of confidence. NLL '
     'and Brier score measure the probabilities as a whole; lower is better, '
     'and the base rates are what a forecast that treats all clips alike '
     'would get.'),
    ('Temperature',
     'what the critic’s logits are divided by. Above 1 it was too sure. It is '
     'fitted on the ratings that were set aside, one for '
     + ('each dimension.' if result['settings']['metrics']['temperature']
        == 'dimension' else 'all dimensions.')),
    ('Pairs',
     'whether the higher reward is that of the better video. Without ties: '
     'of pairs that people rate differently. With ties: of all pairs, where '
     'differences below a threshold count as a tie; the threshold is fitted '
     'on what was set aside.'),
    ('Elsewhere',
     'the LiFT paper (arXiv 2412.04814) reports accuracies, averaged over '
     'the dimensions, of 87.68% for its critic of 13B parameters and 93.55% '
     'for that of 40B, on held-out ratings of its own data. On videos of '
     'other generators, VideoGen-RewardBench (arXiv 2501.13918) reports for '
     'LiFT 39.08% of pairs with ties and 57.26% without, where chance has '
     '41.86% and 50.30%. A good number here is a number about videos like '
     'these.'),
  )  # fmt: skip
  return tag(
    'ul',
    *(
      tag('li', tag('strong', f'{name}: '), meaning) for name, meaning in terms
    ),
  )
