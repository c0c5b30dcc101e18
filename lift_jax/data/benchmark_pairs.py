"""Pairs of two public benchmarks, as the objects of `pair_records`.

VideoGen-RewardBench (arXiv 2501.13918) is a .csv file with the columns

  path_A, path_B, prompt, Overall, and any of VQ, MQ and TA

with A, B or same. GenAI-Bench (arXiv 2406.04485) has votes about pairs, as
.csv, JSON or JSON lines, with

  prompt, left_video, right_video, vote_type

where a vote is leftvote, rightvote, tievote or bothbad_vote. A video that is
named by its URL is expected at the path of the URL below the data root, as
`wget --force-directories --no-host-directories` saves it.

Other columns are ignored.
"""

from collections.abc import Callable, Mapping
import csv
import io
import pathlib
from typing import Any
import urllib.parse

from lift_jax.data.json_records import load_list, read_text
from lift_jax.errors import UserError

# VideoGen-RewardBench: its dimensions by our names, and its preferences.
BENCHMARK_DIMENSIONS = {'TA': 'semantic', 'MQ': 'motion', 'VQ': 'fidelity'}
_PREFERENCES = {'A': 'first', 'B': 'second', 'same': 'same'}
_VIDEOGEN_COLUMNS = ('path_A', 'path_B', 'prompt', 'Overall')

# GenAI-Bench: our preference, and what both clips of a tie are.
_VOTES = {
  'leftvote': ('first', ''),
  'rightvote': ('second', ''),
  'tievote': ('same', 'good'),
  'bothbad_vote': ('same', 'bad'),
}
_GENAI_COLUMNS = ('left_video', 'right_video', 'prompt', 'vote_type')


def load(name: str, path: pathlib.Path, items: str) -> list[tuple[str, Any]]:
  """(place, object) of each record of a file of pairs.

  Objects that are of no benchmark stay as they are, and so do values that a
  benchmark does not have: `pair_records` reports them with their place.

  Args:
    name: of the file in messages.
    path: of the file.
    items: expected items of a list, for messages.

  Raises:
    UserError: not a list, or a .csv file of no benchmark.
  """
  if path.suffix.lower() == '.csv':
    return _load_csv(name, path)
  return [
    (place, _from_genai(item) if _is_genai(item) else item)
    for place, item in load_list(name, path, items)
  ]


def _is_genai(item: Any) -> bool:
  return isinstance(item, dict) and 'vote_type' in item


def _load_csv(name: str, path: pathlib.Path) -> list[tuple[str, Any]]:
  rows = csv.DictReader(io.StringIO(read_text(name, path), newline=''))
  convert = _converter(name, rows.fieldnames or ())
  try:
    return [(f'line {rows.line_num}', convert(row)) for row in rows]
  except csv.Error as error:
    raise UserError(
      f'{name}: line {rows.line_num}: not CSV ({error}); save it as CSV in '
      'UTF-8'
    ) from None


def _converter(
  name: str, columns: Any
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
  """What makes an object from a row of a .csv file with these columns."""
  is_genai = 'vote_type' in columns
  wanted = _GENAI_COLUMNS if is_genai else _VIDEOGEN_COLUMNS
  if missing := [column for column in wanted if column not in columns]:
    raise UserError(
      f'{name}: no column {", ".join(missing)}; a .csv file has those of '
      'VideoGen-RewardBench or GenAI-Bench, other pairs are a list in .json'
    )
  return _from_genai if is_genai else _from_videogen


def _from_videogen(row: Mapping[str, Any]) -> dict[str, Any]:
  preference = {
    name: _PREFERENCES.get(text, text)
    for name, text in row.items()
    if name in ('Overall', *BENCHMARK_DIMENSIONS)
  }
  return {
    'caption': row['prompt'],
    'videos': [row['path_A'], row['path_B']],
    'overall': preference.pop('Overall'),
    'dimensions': {
      BENCHMARK_DIMENSIONS[name]: found for name, found in preference.items()
    },
  }


def _from_genai(row: Mapping[str, Any]) -> dict[str, Any]:
  vote = row['vote_type']
  overall, both = _VOTES.get(vote, (vote, ''))
  item = {
    'caption': row.get('prompt'),
    'videos': [_local(row.get(f'{side}_video')) for side in ('left', 'right')],
    'overall': overall,
  }
  return item | ({'both': both} if both else {})


def _local(video: Any) -> Any:
  """The path of a clip below the data root."""
  if not isinstance(video, str) or '://' not in video:
    return video
  return urllib.parse.unquote(urllib.parse.urlsplit(video).path).lstrip('/')
