"""Prompts: what the model is told, and what the clips of it are called.

A file of prompts is read as it is, whichever of the usual forms it has: plain
lines, a JSON list of texts or objects (alignment files and the full-info files
of VBench among them), the same one a line, or a file of human feedback.
"""

from collections.abc import Iterator
import dataclasses
import hashlib
import pathlib
from typing import Any

from lift_jax.data import hra
from lift_jax.data.json_records import (
  RecordFault,
  as_object,
  check_unicode,
  is_printable,
  kind,
  parse_json,
  parse_list,
  place,
  read_text,
  text_field,
)
from lift_jax.errors import UserError, listing

# Where objects have their text, if no key is given.
_TEXT_KEYS = ('prompt', 'caption', 'prompt_en')
_CONVERSATIONS = 'conversations'

# VBench looks clips up by this text even where they were made from a longer
# one (`prompt_opt` in the files of LiFT).
_NAME_KEY = 'prompt_en'

_FORMS = {
  '.txt': 'a file of one prompt a line',
  '.jsonl': 'a file of one text or object a line',
  '.json': 'a list of texts or objects',
}


@dataclasses.dataclass(frozen=True)
class Prompt:
  """One text to make clips of.

  Attributes:
    id: the record's own, or else a hash of name and text: either way it
      depends on no other prompt and on no order.
    text: what the model is told; one line.
    name: what files are called after; one line.
    where: for messages: 'prompts.txt line 3'.
  """

  id: str
  text: str
  name: str
  where: str


def read_prompts(
  path: str | pathlib.Path, text_key: str = '', name_key: str = ''
) -> tuple[list[Prompt], int]:
  """The prompts of a .txt, .jsonl or .json file, in its order.

  White space at both ends of a prompt is left out, and line breaks within
  become spaces. The entries of human feedback (`lift_jax.data.hra`) that share
  a caption are one prompt.

  Args:
    path: the file.
    text_key: where objects have the text; '' takes the one of "prompt",
      "caption", "prompt_en" and "conversations" that is there.
    name_key: where they have the name; '' takes "prompt_en", or else the text.

  Returns:
    The prompts, and how many were left out because they repeat an earlier one
    (the same id, text and name).

  Raises:
    UserError: a bad file or record, no prompt at all, or one id that stands
      for two prompts.
  """
  path = pathlib.Path(path)
  prompts, num_repeated = {}, 0
  for prompt in _prompts(path, text_key, name_key):
    first = prompts.setdefault(prompt.id, prompt)
    if first is prompt:
      continue
    if (first.text, first.name) != (prompt.text, prompt.name):
      raise UserError(
        f'{prompt.where}: the id {prompt.id!r} belongs to another prompt at '
        f'{first.where}; give each prompt its own id'
      )
    num_repeated += 1
  if not prompts:
    form = _FORMS[path.suffix.lower()]
    raise UserError(f'{path}: {form}, but it holds no prompt; write one')
  return list(prompts.values()), num_repeated


def _prompts(
  path: pathlib.Path, text_key: str, name_key: str
) -> Iterator[Prompt]:
  items = _items(path)
  questions = hra.find_questions(list(_conversations(items, text_key)))
  captions = set()
  for where, item in items:
    try:
      if _is_conversation(item, text_key):
        text, _ = hra.split_text(
          hra.human_text(item), questions, 'list the captions in a .txt file'
        )
        if text in captions:
          continue
        captions.add(text)
        # An id there belongs to one of several questions about the caption.
        own_id = None
      else:
        text = _text(item, text_key)
        own_id = _id(item)
      text = _one_line(text, 'the prompt')
      name = _one_line(_name(item, name_key, text), 'the name')
    except RecordFault as fault:
      raise UserError(f'{where}: {fault}') from None
    if own_id is None:
      digest = hashlib.sha256(f'{name}\n{text}'.encode()).hexdigest()
      own_id = digest[:16]
    yield Prompt(own_id, text, name, where)


def _items(path: pathlib.Path) -> list[tuple[str, Any]]:
  """(where, text or object) of each record; blank lines are passed over."""
  name, suffix = str(path), path.suffix.lower()
  if suffix not in _FORMS:
    raise UserError(
      f'{name}: not a kind of file that prompts are read from; name one of '
      f'{listing(_FORMS)}'
    )
  text = read_text(name, path)
  if not text.strip():
    return []
  if suffix == '.json':
    items = parse_list(name, text, 'texts or objects')
    return [(place(name, index), item) for index, item in enumerate(items)]
  items = []
  for number, line in enumerate(text.split('\n'), start=1):
    if not line.strip():
      continue
    item = line
    if suffix == '.jsonl':
      item = parse_json(name, line, 'a text or an object', number)
    items.append((f'{name} line {number}', item))
  return items


def _conversations(
  items: list[tuple[str, Any]], text_key: str
) -> Iterator[str]:
  """What people were told in the entries of human feedback."""
  for where, item in items:
    if _is_conversation(item, text_key):
      try:
        yield hra.human_text(item)
      except RecordFault as fault:
        raise UserError(f'{where}: {fault}') from None


def _is_conversation(item: Any, text_key: str) -> bool:
  return (
    not text_key and isinstance(item, dict) and _keys(item) == [_CONVERSATIONS]
  )


def _keys(item: dict[str, Any]) -> list[str]:
  """The keys at which an object may have its text."""
  return [key for key in (*_TEXT_KEYS, _CONVERSATIONS) if key in item]


def _text(item: Any, text_key: str) -> str:
  if isinstance(item, str):
    return item
  item = as_object(item, 'a text or an object')
  keys = [text_key] if text_key else _keys(item)
  if len(keys) > 1:
    raise RecordFault(
      f'any of {listing(map(repr, keys))} may be the text; set '
      'prompts.text_key to one of them'
    )
  if not keys or keys[0] not in item:
    looked_for = map(repr, keys or _TEXT_KEYS)
    raise RecordFault(
      f'no {" or ".join(looked_for)} among the keys {_all_keys(item)}; set '
      'prompts.text_key to the one that holds the text'
    )
  return text_field(item, keys[0])


def _name(item: Any, name_key: str, text: str) -> str:
  if isinstance(item, str) or not name_key and _NAME_KEY not in item:
    return text
  key = name_key or _NAME_KEY
  if key not in item:
    raise RecordFault(
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
    raise RecordFault(
      f'"id" is {kind(value)}; write a text or a whole number, or leave it out'
    )
  return _one_line(value, 'the id')


def _one_line(text: str, subject: str) -> str:
  """The text on one line; `subject` is what to call it in a fault."""
  check_unicode(text, subject)
  lines = text.replace('\t', ' ').splitlines()
  text = ' '.join(line.strip() for line in lines if line.strip())
  if not text:
    raise RecordFault(f'{subject} is blank; fill it in or delete the record')
  if not is_printable(text):
    raise RecordFault(
      f'{subject} {text[:40]!r} holds a control character; delete that'
    )
  return text


def _all_keys(item: dict[str, Any]) -> str:
  return listing(map(repr, item)) or '(none)'
