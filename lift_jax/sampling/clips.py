"""The clips that a job generates: file names and seeds.

The name and the seed of a clip depend on its prompt and index alone, not on the
other prompts, their order, the batch, the host or the mesh.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import string
import unicodedata

from lift_jax.data.prompts import Prompt
from lift_jax.errors import UserError

# A file name may have 255 bytes. Prompts get this many of them, enough for the
# longest name of VBench (210); the literal text of a pattern gets fewer.
_PROMPT_BYTES = 220
_PATTERN_BYTES = 16

# If two prompts give the same file name: raise, or keep only the first of them.
# VBench has two such pairs.
SAME_NAME = ('error', 'first')

_FIELDS = ('id', 'prompt', 'index')

# Characters that file systems forbid, or that are special in shells and URLs.
_FORBIDDEN = frozenset('/\\:*?"<>|')
# Control and format characters, surrogates, line and paragraph separators.
_UNPRINTABLE = ('Cc', 'Cf', 'Cs', 'Zl', 'Zp')


@dataclasses.dataclass(frozen=True)
class Clip:
  """One clip to generate.

  Attributes:
    prompt: its prompt.
    index: among the clips of its prompt, from 0.
    seed: of all its noise, in [0, 2^53).
    stem: file name without suffix.
    initial_noise: hash of the file that it starts from, or None if its noise is
      sampled.
  """

  prompt: Prompt
  index: int
  seed: int
  stem: str
  initial_noise: str | None = None


def clip_seed(base_seed: int, prompt_id: str, index: int) -> int:
  """The seed of a clip in [0, 2^53), which JSON readers represent exactly."""
  text = f'{base_seed}/{index}/{prompt_id}'
  digest = hashlib.sha256(text.encode()).digest()
  return int.from_bytes(digest[:8]) >> 11


def safe_name(text: str, max_bytes: int) -> str:
  """`text` as a part of a file name, of at most `max_bytes` in UTF-8.

  Forbidden and unprintable characters and a leading dot become '_'; a long text
  is truncated. If the text was changed, the name ends with '~' and eight hex
  digits of the hash of the text, so that different texts have different names.
  """
  name = text
  if not (text.isprintable() and _FORBIDDEN.isdisjoint(text)):
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
  """Raises UserError unless `pattern` is a valid pattern of file names."""
  where = f'output.name is {pattern!r}'
  try:
    parts = list(string.Formatter().parse(pattern))
  except ValueError as error:
    raise UserError(f'{where}: {error}; write for example {{id}}') from None
  fields = [field for _, field, _, _ in parts if field is not None]
  if len(set(fields)) < len(fields) or any(
    field is not None and (field not in _FIELDS or spec or conversion)
    for _, field, spec, conversion in parts
  ):
    raise UserError(
      f'{where}: it may contain {{id}}, {{prompt}} and {{index}}, each once '
      'and without a format'
    )
  if not {'id', 'prompt'} & set(fields):
    raise UserError(f'{where}: add {{id}} or {{prompt}} to tell clips apart')
  if clips_per_prompt > 1 and 'index' not in fields:
    raise UserError(
      f'{where}: with {clips_per_prompt} videos per prompt, add {{index}}'
    )
  literal = ''.join(text for text, *_ in parts)
  if (
    len(literal.encode()) > _PATTERN_BYTES or safe_name(literal, 255) != literal
  ):
    raise UserError(
      f'{where}: its literal text may have {_PATTERN_BYTES} bytes, without '
      f'{" ".join(sorted(_FORBIDDEN))} and without a leading dot'
    )


def make_clips(
  prompts: Sequence[Prompt],
  clips_per_prompt: int,
  base_seed: int,
  pattern: str,
  same_name: str = 'error',
) -> tuple[list[Clip], list[Prompt]]:
  """All clips, grouped by prompt.

  Args:
    prompts: with distinct ids.
    clips_per_prompt: clips of each prompt that does not state how many.
    base_seed: see `clip_seed`; of each prompt that does not state its own.
    pattern: of file names.
    same_name: what to do with a prompt whose files would have the same name as
      those of an earlier one, see `SAME_NAME`.

  Returns:
    The clips, and the prompts that were skipped.

  Raises:
    UserError: a bad pattern, or two prompts that it gives the same name.
  """
  counts = [prompt.num_clips or clips_per_prompt for prompt in prompts]
  check_pattern(pattern, max(counts, default=clips_per_prompt))
  named = sum(f'{{{field}}}' in pattern for field in ('id', 'prompt'))
  max_bytes = _PROMPT_BYTES // named
  clips, skipped, by_stem = [], [], {}
  for prompt, count in zip(prompts, counts, strict=True):
    seed = base_seed if prompt.seed is None else prompt.seed
    names = {
      'id': safe_name(prompt.id, max_bytes),
      'prompt': safe_name(prompt.name, max_bytes),
    }
    stems = [pattern.format(**names, index=index) for index in range(count)]
    # Any of them: without a separator, 'a' + '10' equals 'a1' + '0'.
    taken = [stem for stem in stems if stem in by_stem]
    if not taken:
      by_stem |= dict.fromkeys(stems, prompt)
      clips += [
        Clip(prompt, index, clip_seed(seed, prompt.id, index), stem)
        for index, stem in enumerate(stems)
      ]
    elif same_name == 'first':
      skipped.append(prompt)
    else:
      raise UserError(
        f'{prompt.where}: its videos would be named {taken[0]!r}, like those '
        f'of {by_stem[taken[0]].where}; put {{id}} into output.name, or set '
        'prompts.same_name = first to skip this prompt'
      )
  return clips, skipped
