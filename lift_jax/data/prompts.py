"""Prompts and the names of the clips that are generated from them.

A file of prompts has one of the usual forms: plain lines, a list of strings or
objects (such as alignment files and the full-info files of VBench), or a file
of human feedback.
"""

from collections.abc import Iterator
import dataclasses
import hashlib
import pathlib
from typing import Any

from lift_jax.data import hra
from lift_jax.data.json_records import (
  LINES_SUFFIX,
  RecordError,
  as_object,
  check_unicode,
  integer_field,
  is_printable,
  json_type,
  location,
  parse_list,
  read_text,
  text_field,
)
from lift_jax.data.questions import find_questions
from lift_jax.errors import UserError, listing
from lift_jax.runtime import storage

# Keys of the text in objects, if no key is given.
_TEXT_KEYS = ('prompt', 'caption', 'prompt_en')
_CONVERSATIONS = 'conversations'

# Keys of the name in objects. VBench finds clips by `prompt_en` even if they
# were generated from a longer text (`prompt_opt` in the files of LiFT); files
# of `data.suites` have a `name`.
_NAME_KEYS = ('prompt_en', 'name')

_FORMS = {
  '.txt': 'a file of one prompt per line',
  LINES_SUFFIX: 'a file of one string or object per line',
  '.json': 'a list of strings or objects',
}


@dataclasses.dataclass(frozen=True)
class Prompt:
  """One text to generate clips from.

  Attributes:
    id: the record's own, or else a hash of name and text: in both cases
      independent of other prompts and their order.
    text: input of the model; one line.
    name: that file names are made from; one line.
    where: for messages: 'prompts.txt line 3'.
    num_clips: how many clips to generate; None leaves it to the job.
    seed: base seed of its clips; None leaves it to the job.
  """

  id: str
  text: str
  name: str
  where: str
  num_clips: int | None = None
  seed: int | None = None


def read_prompts(
  path: str | pathlib.Path, text_key: str = '', name_key: str = ''
) -> tuple[list[Prompt], int]:
  """Reads the prompts of a .txt, .jsonl or .json file, in its order.

  White space at both ends of a prompt is stripped, and line breaks within
  become spaces. The entries of human feedback (`lift_jax.data.hra`) that share
  a caption are one prompt. Of an object, "id", "clips" (how many) and
  "base_seed" are read too.

  Args:
    path: the file.
    text_key: key of the text in objects; '' takes the one of "prompt",
      "caption", "prompt_en" and "conversations" that is present.
    name_key: key of the name; '' takes "prompt_en", "name", or else the text.

  Returns:
    The prompts, and the number of skipped duplicates (same id, text and name).

  Raises:
    UserError: a bad file or record, no prompt, or two prompts with the same id.
  """
  path = storage.to_path(path)
  prompts, num_duplicates = {}, 0
  for prompt in _prompts(path, text_key, name_key):
    first = prompts.setdefault(prompt.id, prompt)
    if first is prompt:
      continue
    if (first.text, first.name) != (prompt.text, prompt.name):
      raise UserError(
        f'{prompt.where}: the id {prompt.id!r} belongs to another prompt at '
        f'{first.where}; give each prompt its own id'
      )
    num_duplicates += 1
  if not prompts:
    form = _FORMS[path.suffix.lower()]
    raise UserError(f'{path}: {form}, but it contains no prompt; write one')
  return list(prompts.values()), num_duplicates


def _prompts(
  path: pathlib.Path, text_key: str, name_key: str
) -> Iterator[Prompt]:
  items = _items(path)
  questions = find_questions(list(_conversations(items, text_key)))
  captions = set()
  for where, item in items:
    try:
      if _is_conversation(item, text_key):
        text, _ = hra.split_text(
          hra.human_texts(item)[0],
          questions,
          'list the captions in a .txt file',
        )
        if text in captions:
          continue
        captions.add(text)
        # An id would belong to one of several questions about the caption.
        own_id = num_clips = seed = None
      else:
        text = _text(item, text_key)
        own_id = _id(item)
        num_clips = _count(item, 'clips', least=1)
        seed = _count(item, 'base_seed', least=0)
      text = _one_line(text, 'the prompt')
      name = _one_line(_name(item, name_key, text), 'the name')
    except RecordError as error:
      raise UserError(f'{where}: {error}') from None
    if own_id is None:
      digest = hashlib.sha256(f'{name}\n{text}'.encode()).hexdigest()
      own_id = digest[:16]
    yield Prompt(own_id, text, name, where, num_clips, seed)


def _items(path: pathlib.Path) -> list[tuple[str, Any]]:
  """(where, string or object) of each record; blank lines are skipped."""
  name, suffix = str(path), path.suffix.lower()
  if suffix not in _FORMS:
    raise UserError(
      f'{name}: prompts cannot be read from this type of file; give one of '
      f'{listing(_FORMS)}'
    )
  text = read_text(name, path)
  if not text.strip():
    return []
  if suffix == '.txt':
    items = [
      (f'line {number}', line)
      for number, line in enumerate(text.split('\n'), start=1)
      if line.strip()
    ]
  else:
    is_lines = suffix == LINES_SUFFIX
    items = parse_list(name, text, 'strings or objects', is_lines)
  return [(location(name, place), item) for place, item in items]


def _conversations(
  items: list[tuple[str, Any]], text_key: str
) -> Iterator[str]:
  """Yields the human turns of entries of human feedback."""
  for where, item in items:
    if _is_conversation(item, text_key):
      try:
        yield from hra.human_texts(item)
      except RecordError as error:
        raise UserError(f'{where}: {error}') from None


def _is_conversation(item: Any, text_key: str) -> bool:
  return (
    not text_key and isinstance(item, dict) and _keys(item) == [_CONVERSATIONS]
  )


def _keys(item: dict[str, Any]) -> list[str]:
  """The present keys that may hold the text of an object."""
  return [key for key in (*_TEXT_KEYS, _CONVERSATIONS) if key in item]


def _text(item: Any, text_key: str) -> str:
  if isinstance(item, str):
    return item
  item = as_object(item, 'a string or an object')
  keys = [text_key] if text_key else _keys(item)
  if len(keys) > 1:
    raise RecordError(
      f'{listing(map(repr, keys))} may all be the text; set '
      'prompts.text_key to one of them'
    )
  if not keys or keys[0] not in item:
    wanted = map(repr, keys or _TEXT_KEYS)
    raise RecordError(
      f'no {" or ".join(wanted)} among the keys {_all_keys(item)}; set '
      'prompts.text_key to the one that holds the text'
    )
  return text_field(item, keys[0])


def _name(item: Any, name_key: str, text: str) -> str:
  if isinstance(item, str):
    return text
  present = [key for key in _NAME_KEYS if key in item]
  if not name_key and not present:
    return text
  key = name_key or present[0]
  if key not in item:
    raise RecordError(
      f'no {key!r} among the keys {_all_keys(item)}; set prompts.name_key to '
      'the one that holds the name'
    )
  return text_field(item, key)


def _id(item: Any) -> str | None:
  if isinstance(item, str) or 'id' not in item:
    return None
  value = item['id']
  if isinstance(value, int) and not isinstance(value, bool):
    return str(value)
  if not isinstance(value, str):
    raise RecordError(
      f'"id" is {json_type(value)}; write a string or an integer, or omit it'
    )
  return _one_line(value, 'the id')


def _count(item: Any, key: str, least: int) -> int | None:
  """The integer at `key`; None if there is none."""
  if isinstance(item, str) or key not in item:
    return None
  return integer_field(item, key, least)


def _one_line(text: str, subject: str) -> str:
  """The text on one line; `subject` is its name in messages."""
  check_unicode(text, subject)
  lines = text.replace('\t', ' ').splitlines()
  text = ' '.join(line.strip() for line in lines if line.strip())
  if not text:
    raise RecordError(f'{subject} is blank; fill it in or delete the record')
  if not is_printable(text):
    raise RecordError(
      f'{subject} {text[:40]!r} contains a control character; delete it'
    )
  return text


def _all_keys(item: dict[str, Any]) -> str:
  return listing(map(repr, item)) or '(none)'
