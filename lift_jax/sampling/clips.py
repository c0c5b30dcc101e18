"""Which clips a job makes: how each is called, and where its noise starts.

The name and the seed of a clip follow from its prompt and its index alone.
Neither the other prompts, their order, the batch, the host nor the mesh has a
say in them.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import string
import unicodedata

from lift_jax.data.prompts import Prompt
from lift_jax.errors import UserError

# A file name may have 255 bytes. Prompts get this many of them, which leaves
# the longest name of VBench (210) whole; a pattern's own text gets fewer.
_PROMPT_BYTES = 220
_PATTERN_BYTES = 16

# Two prompts that give one file name: an error, or the first of them is made.
# VBench holds two such pairs.
SAME_NAME = ('error', 'first')

_FIELDS = ('id', 'prompt', 'index')

# What Linux, macOS or Windows refuse in a name, or shells and URLs stumble on.
_FORBIDDEN = frozenset('/\\:*?"<>|')
# Control and format characters, surrogates, line and paragraph separators.
_UNPRINTABLE = ('Cc', 'Cf', 'Cs', 'Zl', 'Zp')


@dataclasses.dataclass(frozen=True)
class Clip:
  """One clip to make.

  Attributes:
    prompt: what it shows.
    index: among the clips of its prompt, from 0.
    seed: of all its noise, in [0, 2^53).
    stem: of its files' names.
    initial_noise: hash of the file that it starts from, or None where its
      noise is drawn.
  """

  prompt: Prompt
  index: int
  seed: int
  stem: str
  initial_noise: str | None = None


def clip_seed(base_seed: int, prompt_id: str, index: int) -> int:
  """The seed of a clip in [0, 2^53), which any JSON reader keeps exactly."""
  text = f'{base_seed}/{index}/{prompt_id}'
  digest = hashlib.sha256(text.encode()).digest()
  return int.from_bytes(digest[:8]) >> 11


def safe_name(text: str, max_bytes: int) -> str:
  """`text` as a part of a file name, of at most `max_bytes` in UTF-8.

  Forbidden and unprintable characters become '_', as does a dot in front; what
  is too long is cut. A text that had to be changed ends with '~' and eight hex
  digits of its hash, so that different texts keep different names.
  """
  name = ''.join(
    '_'
    if char in _FORBIDDEN or unicodedata.category(char) in _UNPRINTABLE
    else char
    for char in text
  )
  if name.startswith('.'):
    name = '_' + name[1:]
  if name == text and len(name.encode()) <= max_bytes:
    return name
  mark = '~' + hashlib.sha256(text.encode()).hexdigest()[:8]
  kept = name.encode()[: max_bytes - len(mark)].decode(errors='ignore')
  return kept.rstrip() + mark


def check_pattern(pattern: str, clips_per_prompt: int) -> None:
  """Raises UserError unless file names can be made from `pattern`."""
  where = f'output.name is {pattern!r}'
  try:
    parts = list(string.Formatter().parse(pattern))
  except ValueError as error:
    raise UserError(f'{where}: {error}; write such as {{id}}') from None
  fields = [field for _, field, _, _ in parts if field is not None]
  if len(set(fields)) < len(fields) or any(
    field is not None and (field not in _FIELDS or spec or conversion)
    for _, field, spec, conversion in parts
  ):
    raise UserError(
      f'{where}: it may hold {{id}}, {{prompt}} and {{index}}, each once and '
      'as it stands'
    )
  if not {'id', 'prompt'} & set(fields):
    raise UserError(f'{where}: add {{id}} or {{prompt}}, or all are called so')
  if clips_per_prompt > 1 and 'index' not in fields:
    raise UserError(
      f'{where}: with {clips_per_prompt} videos of a prompt add {{index}}'
    )
  own = ''.join(text for text, *_ in parts)
  if len(own.encode()) > _PATTERN_BYTES or safe_name(own, 255) != own:
    raise UserError(
      f'{where}: its own text may have {_PATTERN_BYTES} bytes, without '
      f'{" ".join(sorted(_FORBIDDEN))} and without a dot in front'
    )


def make_clips(
  prompts: Sequence[Prompt],
  clips_per_prompt: int,
  base_seed: int,
  pattern: str,
  same_name: str = 'error',
) -> tuple[list[Clip], list[Prompt]]:
  """All clips, those of a prompt one after the other.

  Args:
    prompts: with different ids.
    clips_per_prompt: how many of each.
    base_seed: see `clip_seed`.
    pattern: of file names.
    same_name: what becomes of a prompt whose files would be called as those of
      an earlier one: see `SAME_NAME`.

  Returns:
    The clips, and the prompts that were left out.

  Raises:
    UserError: a bad pattern, or two prompts that it would give one name.
  """
  check_pattern(pattern, clips_per_prompt)
  named = sum(f'{{{field}}}' in pattern for field in ('id', 'prompt'))
  max_bytes = _PROMPT_BYTES // named
  clips, left_out, by_stem = [], [], {}
  for prompt in prompts:
    stems = [
      pattern.format(
        id=safe_name(prompt.id, max_bytes),
        prompt=safe_name(prompt.name, max_bytes),
        index=index,
      )
      for index in range(clips_per_prompt)
    ]
    # Any of them: without a mark between, 'a' + '10' is 'a1' + '0'.
    taken = [stem for stem in stems if stem in by_stem]
    if not taken:
      by_stem |= dict.fromkeys(stems, prompt)
      clips += [
        Clip(prompt, index, clip_seed(base_seed, prompt.id, index), stem)
        for index, stem in enumerate(stems)
      ]
    elif same_name == 'first':
      left_out.append(prompt)
    else:
      raise UserError(
        f'{prompt.where}: its videos would be called {taken[0]!r}, as those of '
        f'{by_stem[taken[0]].where}; put {{id}} into output.name, or set '
        'prompts.same_name = first to leave this one out'
      )
  return clips, left_out
