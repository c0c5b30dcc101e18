"""HTML report that compares video models, with clips side by side.

The page is self-contained and has no scripts. A clip is shown by a strip of
frames, which an animation of the page moves through, so that the clips of a
pair play together; style rules for the choices of menus hide the other pairs.
"""

import base64
from collections.abc import Mapping, Sequence
import dataclasses
import io
import json
import os
import pathlib
from typing import Any
import urllib.parse

import numpy as np
from PIL import Image

from lift_jax.comparison.clip_sets import SampledClip
from lift_jax.comparison.metrics import HIGHER
from lift_jax.comparison.pair_choice import GAIN, KINDS, LOSS, RANDOM
from lift_jax.data import video
from lift_jax.data.hra import DIMENSIONS as CRITIC_DIMENSIONS
from lift_jax.data.vbench_dimensions import DIMENSIONS, PublishedRow
from lift_jax.errors import UserError
from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import compare_plots, compare_table, html
from lift_jax.report.compare_findings import findings, verdict
from lift_jax.report.svg import Plot
from lift_jax.runtime import storage

Tree = dict[str, Any]

# Strips are JPEG files, no longer than the format allows.
_QUALITY = 70
_MAX_STRIP = 65_000
_SECONDS = 6.0  # of an animation if the frame rate is unknown

_KIND_TITLES = {
  GAIN: 'largest gain', LOSS: 'largest loss', RANDOM: 'random'
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ComparePageConfig:
  """Content of the page.

  Attributes:
    pairs: pairs to show of each kind: of the largest gains and losses of each
      metric, and of random ones.
    frames: most frames of a clip's preview.
    frame_width: pixels of a frame's longer side.
    max_bytes: of all previews; pairs beyond have links only.
    seed: of the random pairs.
  """

  pairs: int
  frames: int
  frame_width: int
  max_bytes: int
  seed: int

  def __post_init__(self):
    for name, least in (
      ('pairs', 0), ('frames', 1), ('frame_width', 16), ('max_bytes', 0),
    ):  # fmt: skip
      if getattr(self, name) < least:
        raise UserError(
          f'report.{name} is {getattr(self, name)}; it must be {least} or more'
        )


@dataclasses.dataclass(frozen=True)
class ShownPair:
  """A pair of clips.

  Attributes:
    model: index of the compared model.
    prompt: of both.
    reasons: (name of a metric, 'gain' or 'loss'), or ('', 'random').
    clips: by the name of the model.
    values: (title, text of the base, text of the other) of its metrics.
  """

  model: int
  prompt: str
  reasons: Sequence[tuple[str, str]]
  clips: Mapping[str, SampledClip]
  values: Sequence[tuple[str, str, str]]


@dataclasses.dataclass(frozen=True)
class CompareContent:
  """Content of the page.

  Attributes:
    result: content of `comparison.json`.
    pairs: clips to show, in this order.
    published: rows to print next to VBench's results.
  """

  result: Tree
  pairs: Sequence[ShownPair]
  published: Sequence[PublishedRow]


def compare_page(
  content: CompareContent, workdir: pathlib.Path, config: ComparePageConfig
) -> str:
  """The HTML page; for the arguments see `sections`."""
  result = content.result
  verdicts = [verdict(one) for one in result['comparisons']]
  return html.render(
    'compare.html',
    title=verdicts[0],
    result=result,
    verdicts=verdicts[1:],
    compared=sections(content, workdir, config),
    settings=json.dumps(result['settings'], indent=1),
  )


def sections(
  content: CompareContent, workdir: pathlib.Path, config: ComparePageConfig
) -> Tree:
  """What the template `compare_sections.html` takes, as `compared`.

  Args:
    content: what to show.
    workdir: folder of the page, which links are relative to.
    config: how to show clips.
  """
  result = content.result
  comparisons = result['comparisons']
  metrics = _metrics_with_pairs(result, content.pairs)
  tags = {name: f'm{number}' for number, name in enumerate(metrics)}
  return {
    'comparisons': [_comparison(one) for one in comparisons],
    'radar': _radar(result),
    'published': _published(result, content.published),
    'menu': [(tags[name], title) for name, title in metrics.items()],
    'kinds': _KIND_TITLES,
    'rules': _rules(list(tags.values()), len(comparisons)),
    'models': [f'{one["model"]} against {one["base"]}' for one in comparisons],
    'pairs': _shown(content.pairs, tags, workdir, config),
  }


def _comparison(comparison: Tree) -> Tree:
  return {
    'base': comparison['base'],
    'model': comparison['model'],
    'findings': findings(comparison),
    'rows': compare_table.rows(comparison),
    'people': compare_table.people_rows(comparison['people']),
    'coverage': f'{100 * comparison["coverage"]:g}%',
    'level': f'{100 * comparison["level"]:g}%',
    'plots': _difference_plots(comparison),
  }


def _difference_plots(comparison: Tree) -> list[Plot]:
  """Differences of shares, in percentage points."""
  shown = {
    row['title']: (
      Estimate(
        **{
          key: None if value is None else 100 * value
          for key, value in row['difference'].items()
        }
      ),
      bool(row['mark']),
    )
    for row in comparison['rows']
    if row['is_share'] and row['difference']['value'] is not None
  }
  if not shown:
    return []
  numbers = '; '.join(
    f'{name} {one.value:+.2f}' for name, (one, _) in shown.items()
  )
  unit = f'{comparison["model"]} minus {comparison["base"]}, percentage points'
  return [
    Plot(
      compare_plots.difference_intervals(shown, unit),
      f'Differences in percentage points: {numbers}',
      'Dots are filled where the difference is significant.',
    )
  ]


def _radar(result: Tree) -> Plot | None:
  """VBench's normalised scores, or a critic's rewards, or what decides."""
  names, models = _radar_values(result)
  if len(names) < 3:
    return None
  numbers = '; '.join(
    f'{model}: ' + ', '.join(f'{value:.3f}' for value in values)
    for model, values in models.items()
  )
  return Plot(
    compare_plots.model_radar(names, models),
    f'{", ".join(names)}; {numbers}',
    'From 0 in the centre to 1; further out is better.',
  )


def _radar_values(result: Tree) -> tuple[list[str], dict[str, list[float]]]:
  columns = {}
  for comparison in result['comparisons']:
    rows = {row['name']: row for row in comparison['rows']}
    columns.setdefault(comparison['base'], (rows, 'base'))
    columns[comparison['model']] = (rows, 'other')

  def scores(names, normalise):
    return {
      model: [
        float(np.clip(normalise(name, rows[name][side]['value']), 0, 1))
        for name in names
      ]
      for model, (rows, side) in columns.items()
    }

  known = set.intersection(*(set(rows) for rows, _ in columns.values()))
  if names := [name for name in DIMENSIONS if name in known]:
    values = scores(names, lambda name, x: DIMENSIONS[name].normalised(x))
    return [name.replace('_', ' ') for name in names], values
  names = [
    f'{kind}_{name}'
    for kind in ('critic', 'held_out')
    for name in CRITIC_DIMENSIONS
    if f'{kind}_{name}' in known
  ]
  rows = next(iter(columns.values()))[0]
  names = names or _with_decisive(result, rows)
  titles = [name.replace('_', ' ') for name in names]
  return titles, scores(names, lambda _, x: x)


def _with_decisive(result: Tree, rows: Mapping[str, Tree]) -> list[str]:
  """Shares in the group of the decisive metric that should be high."""
  decisive = rows.get(result['comparisons'][0]['decisive'])
  if decisive is None:
    return []
  return [
    name
    for name, row in rows.items()
    if row['group'] == decisive['group']
    and row['is_share']
    and row['better'] == HIGHER
  ]


def _published(result: Tree, published: Sequence[PublishedRow]) -> Tree | None:
  """VBench's table of these models and of published ones; None without one."""
  if not result['vbench']:
    return None
  return {
    'columns': [
      *result['vbench'],
      *(f'{row.model}, {row.source}' for row in published),
    ],
    'unclear': list(
      dict.fromkeys(row.source for row in published if row.evaluator is None)
    ),
    'rows': compare_table.published_rows(
      list(result['vbench'].values()), published
    ),
  }


def _metrics_with_pairs(
  result: Tree, pairs: Sequence[ShownPair]
) -> dict[str, str]:
  """Titles of the metrics that pairs were chosen by, by name."""
  chosen = {name for pair in pairs for name, _ in pair.reasons}
  return {
    row['name']: row['title']
    for comparison in result['comparisons']
    for row in comparison['rows']
    if row['name'] in chosen
  }


def _rules(tags: Sequence[str], num_models: int) -> list[str]:
  """Style rules that hide all pairs but those of the chosen menu items."""
  rules = [
    _rule({'kind': RANDOM}, RANDOM),
    *(
      _rule({'metric': tag, 'kind': kind}, f'{tag}-{kind}')
      for tag in tags
      for kind in KINDS
      if kind != RANDOM
    ),
  ]
  if num_models > 1:
    rules += [
      _rule({'model': f'model{number}'}, f'model{number}')
      for number in range(num_models)
    ]
  return rules


def _rule(chosen: Mapping[str, str], tag: str) -> str:
  conditions = ''.join(
    f':has(#{menu} option[value="{value}"]:checked)'
    for menu, value in chosen.items()
  )
  return f'main{conditions} .pairs article:not(.{tag}) {{ display: none; }}'


def _shown(
  pairs: Sequence[ShownPair],
  tags: Mapping[str, str],
  workdir: pathlib.Path,
  config: ComparePageConfig,
) -> list[Tree]:
  shown, num_bytes = [], 0
  for pair in pairs:
    clips = []
    for model, clip in pair.clips.items():
      strip = None
      if num_bytes < config.max_bytes:
        strip = _strip(clip, config)
      if strip is not None:
        num_bytes += len(strip['data'])
      clips.append(
        {'model': model, 'strip': strip, 'link': _link(clip.path, workdir)}
      )
    classes = [f'model{pair.model}']
    classes += [
      f'{tags[name]}-{kind}' if name else kind for name, kind in pair.reasons
    ]
    shown.append(
      {
        'prompt': pair.prompt,
        'classes': ' '.join(classes),
        'clips': clips,
        'numbers': pair.values,
      }
    )
  return shown


def _link(path: pathlib.Path, workdir: pathlib.Path) -> str | None:
  """A link to a file on disk; None for an object in a bucket."""
  if storage.is_remote(path) or storage.is_remote(workdir):
    return None
  return urllib.parse.quote(os.path.relpath(path, workdir))


def _strip(clip: SampledClip, config: ComparePageConfig) -> Tree | None:
  """Frames of a clip side by side, as JPEG; None if it cannot be read."""
  try:
    with storage.local_file(clip.path) as path:
      found = video.decode(
        path, config.frames, where=clip.video, choose=_spread
      )
  except UserError:
    return None
  frames = [
    _scaled(image_hw3, config.frame_width) for image_hw3 in found.frames
  ]
  width, height = frames[0].size
  frames = frames[: max(1, _MAX_STRIP // width)]
  strip = Image.new('RGB', (width * len(frames), height))
  for index, frame in enumerate(frames):
    strip.paste(frame, (index * width, 0))
  buffer = io.BytesIO()
  strip.save(buffer, 'JPEG', quality=_QUALITY)
  seconds = found.num_source_frames / found.fps if found.fps else _SECONDS
  return {
    'data': base64.b64encode(buffer.getvalue()).decode(),
    'frames': len(frames),
    'width': width,
    'height': height,
    'seconds': round(seconds, 3),
  }


def _spread(num_frames: int, count: int) -> list[int]:
  """Up to `count` indices over the clip, at equal steps."""
  return list(range(0, num_frames, -(-num_frames // count)))


def _scaled(image_hw3: np.ndarray, side: int) -> Image.Image:
  """A frame whose longer side is `side` pixels."""
  height, width = image_hw3.shape[:2]
  scale = side / max(height, width)
  size = max(1, round(width * scale)), max(1, round(height * scale))
  # Enlarged pixels stay sharp, as those of the toy world should.
  how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
  return Image.fromarray(image_hw3).resize(size, how)
