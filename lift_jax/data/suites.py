"""Suites of prompts that video models are compared on.

`lift compare prompts` writes a suite as a file of prompts for `lift sample`,
which states the number of clips of each prompt and the seed that their noise
follows from: two models get the same prompts and the same noise.

  {"suite": "vbench_long", "data": [
    {"id": "3f2a...", "prompt": "In a still frame, a red stop sign stands ...",
     "name": "In a still frame, a stop sign", "clips": 25, "base_seed": 0,
     "dimensions": ["temporal_flickering"]}, ...]}

VBench looks clips up by their name, `NAME-INDEX.mp4`, whatever text they were
generated from.
"""

import collections
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from lift_jax.data import vbench_dimensions
from lift_jax.data.json_records import (
  RecordError,
  as_object,
  integer_field,
  load_list,
  location,
  text_field,
)
from lift_jax.data.prompts import read_prompts
from lift_jax.errors import UserError, listing
from lift_jax.runtime.files import json_sha256, read_json, write_json

VBENCH, VBENCH_LONG, HRA_TEST = 'vbench', 'vbench_long', 'hra_test'
# Both are scored on the same prompts; VBench-Long is for clips of 5 s or more.
VBENCH_SUITES = (VBENCH, VBENCH_LONG)
LONG_SECONDS = 5.0

# Clips of each prompt. Of the prompts about flicker VBench keeps 5 that do not
# move, so more are generated.
NUM_CLIPS = 5
NUM_FLICKER_CLIPS = 25
FLICKER = 'temporal_flickering'
STYLE = 'appearance_style'

# Keys of the text in VBench's full-info file, and in LiFT's rewritten one.
_NAME_KEY, _REWRITTEN_KEY = 'prompt_en', 'prompt_opt'

_WANTED = '{"prompt", "name", "clips"}'


@dataclasses.dataclass(frozen=True)
class SuitePrompt:
  """A prompt and what its clips are for.

  Attributes:
    name: that file names are made from.
    text: what the clips are generated from.
    num_clips: how many there should be.
    dimensions: of VBench; empty in other suites.
    style: that VBench looks for in the clips, such as 'Van Gogh style'; ''
      for none.
  """

  name: str
  text: str
  num_clips: int
  dimensions: tuple[str, ...] = ()
  style: str = ''


@dataclasses.dataclass(frozen=True)
class Suite:
  """A list of prompts with distinct names.

  Attributes:
    name: 'vbench', 'vbench_long', 'hra_test', or the name of a file.
    prompts: in the order of their file.
  """

  name: str
  prompts: tuple[SuitePrompt, ...]

  @property
  def keys(self) -> list[tuple[str, int]]:
    """(name, index) of every clip that there should be."""
    return [
      (prompt.name, index)
      for prompt in self.prompts
      for index in range(prompt.num_clips)
    ]

  @property
  def num_clips(self) -> int:
    return sum(prompt.num_clips for prompt in self.prompts)


def make_suite(
  name: str, file: pathlib.Path, text_key: str, num_clips: int | None
) -> Suite:
  """The suite of a file of prompts.

  Args:
    name: one of 'vbench' and 'vbench_long', for a full-info file; 'hra_test',
      for the test part of human feedback; or any name, for other prompts.
    file: of the prompts.
    text_key: key of the text to generate from; '' takes the rewritten prompts
      of a full-info file if it has them, and detects it in other files.
    num_clips: clips of each prompt; None is VBench's 5, and 25 for flicker.

  Raises:
    UserError: a bad file or record, or two prompts with the same name.
  """
  if name in VBENCH_SUITES:
    return Suite(name, _vbench_prompts(file, text_key, num_clips))
  prompts, _ = read_prompts(file, text_key)
  return _checked(
    Suite(
      name,
      tuple(
        SuitePrompt(
          prompt.name, prompt.text, num_clips or prompt.num_clips or NUM_CLIPS
        )
        for prompt in prompts
      ),
    ),
    file,
  )


def _vbench_prompts(
  file: pathlib.Path, text_key: str, num_clips: int | None
) -> tuple[SuitePrompt, ...]:
  """The prompts of a full-info file, where two of them are listed twice."""
  prompts: dict[str, SuitePrompt] = {}
  entries = load_list(str(file), file, 'entries of VBench_full_info.json')
  for place, item in entries:
    try:
      item = as_object(item, '{"prompt_en", "dimension"}')
      name = ' '.join(text_field(item, _NAME_KEY).split())
      key = text_key or (
        _REWRITTEN_KEY if _REWRITTEN_KEY in item else _NAME_KEY
      )
      text = ' '.join(text_field(item, key).split())
      dimensions = _dimensions(item)
      style = _style(item)
    except RecordError as error:
      raise UserError(f'{location(str(file), place)}: {error}') from None
    if name in prompts:
      text = prompts[name].text
      dimensions = (*prompts[name].dimensions, *dimensions)
      style = prompts[name].style or style
    raw = NUM_FLICKER_CLIPS if FLICKER in dimensions else NUM_CLIPS
    prompts[name] = SuitePrompt(name, text, num_clips or raw, dimensions, style)
  if not prompts:
    raise UserError(f'{file}: no prompt; give VBench_full_info.json')
  return tuple(prompts.values())


def _dimensions(
  item: dict[str, Any], key: str = 'dimension'
) -> tuple[str, ...]:
  dimensions = item.get(key)
  is_list = isinstance(dimensions, list) and all(
    isinstance(name, str) for name in dimensions
  )
  if not is_list:
    raise RecordError(f'"{key}" is not a list of names; give a file of VBench')
  unknown = set(dimensions) - vbench_dimensions.DIMENSIONS.keys()
  if unknown:
    raise RecordError(
      f'"{key}" has {listing(unknown)}, which VBench 1 does not have; give its '
      'VBench_full_info.json, not that of VBench-2.0 or of image-to-video'
    )
  return tuple(dimensions)


def _style(item: dict[str, Any]) -> str:
  """The style of an entry of a full-info file; '' for none."""
  more = item.get('auxiliary_info')
  inner = more.get(STYLE) if isinstance(more, dict) else None
  if inner is None:
    return ''
  return text_field(as_object(inner, f'{{"{STYLE}"}}'), STYLE)


def write_suite(path: pathlib.Path, suite: Suite, seed: int) -> None:
  """Writes a suite as prompts for `lift sample`.

  Args:
    path: a .json file.
    suite: to write.
    seed: of the noise; it must be the same for all models.
  """
  data = [
    {
      # Of the name alone: a clip keeps its noise if its text is rewritten.
      'id': json_sha256(prompt.name)[:16],
      'prompt': prompt.text,
      'name': prompt.name,
      'clips': prompt.num_clips,
      'base_seed': seed,
      'dimensions': list(prompt.dimensions),
      **({'style': prompt.style} if prompt.style else {}),
    }
    for prompt in suite.prompts
  ]
  write_json(path, {'suite': suite.name, 'data': data})


def read_suite(path: pathlib.Path) -> Suite:
  """Reads a file of `write_suite`.

  Raises:
    UserError: a bad file or record, or two prompts with the same name.
  """
  content = read_json(path)
  name = content.get('suite')
  if not isinstance(name, str) or not isinstance(content.get('data'), list):
    raise UserError(
      f'{path}: not a suite; give a file that lift compare prompts wrote'
    )
  prompts = []
  for place, item in load_list(str(path), path, f'objects with {_WANTED}'):
    try:
      item = as_object(item, _WANTED)
      prompts.append(
        SuitePrompt(
          text_field(item, 'name'),
          text_field(item, 'prompt'),
          integer_field(item, 'clips', least=1),
          _dimensions(item, 'dimensions'),
          text_field(item, 'style') if 'style' in item else '',
        )
      )
    except RecordError as error:
      raise UserError(f'{location(str(path), place)}: {error}') from None
  return _checked(Suite(name, tuple(prompts)), path)


def suite_of(name: str, clips: Sequence[tuple[str, int, str]]) -> Suite:
  """The suite of clips that exist: (name, index, text) of each."""
  counts: dict[str, int] = {}
  texts = {}
  for prompt, index, text in clips:
    counts[prompt] = max(counts.get(prompt, 0), index + 1)
    texts[prompt] = text
  return Suite(
    name,
    tuple(
      SuitePrompt(prompt, texts[prompt], count)
      for prompt, count in counts.items()
    ),
  )


def _checked(suite: Suite, path: pathlib.Path) -> Suite:
  if not suite.prompts:
    raise UserError(f'{path}: no prompt; list at least one')
  counts = collections.Counter(prompt.name for prompt in suite.prompts)
  ((name, count),) = counts.most_common(1)
  if count > 1:
    raise UserError(
      f'{path}: {count} prompts are named {name!r}; give each its own name'
    )
  return suite
