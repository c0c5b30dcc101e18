"""Finds the questions that texts of captions and questions have in common."""

from collections.abc import Sequence
import re

# Longest question that can be found; published ones have 45 words.
_MAX_WORDS = 200

# Words of a text in reverse order, each with the white space before it, so that
# joining them in reverse gives the text again.
_Words = tuple[str, ...]


def find_questions(texts: Sequence[str]) -> tuple[str, ...]:
  """Finds the questions: the few endings that best describe many texts.

  A set of endings costs the number of words it takes to write down each ending
  once and each distinct caption before an ending once (minimum description
  length). An ending that is too short leaves words of its question on every
  caption; one that is too long, because some captions happen to end alike,
  must be written once more for the others. This also distinguishes questions
  that share their last words, and ignores a text whose ending is unique.

  Args:
    texts: captions with questions, as from `hra.human_texts`.

  Returns:
    Each question with one white space before it, normally a space, in the
    order of first occurrence; empty if the texts have no ending in common.
  """
  distinct = dict.fromkeys(text.rstrip() for text in texts)
  backwards = [
    tuple(reversed(re.findall(r'\s?\S+|\s', text))) for text in distinct
  ]
  endings = {
    _from_sentence(''.join(reversed(ending)))
    for ending in _endings(backwards, 0)[0]
  }
  # An ending that still contains part of a caption ends in another one.
  questions = [
    text
    for text in endings
    if not any(text != other and text.endswith(other) for other in endings)
  ]
  first = {
    question: next(
      index for index, text in enumerate(distinct) if text.endswith(question)
    )
    for question in questions
  }
  return tuple(sorted(first, key=lambda text: first[text]))


def _endings(texts: list[_Words], start: int) -> tuple[list[_Words], set]:
  """The best endings of distinct texts, and the distinct captions that remain.

  Either the common part of all texts is one ending, or each group of texts that
  share the next word has endings of its own.

  Args:
    texts: whose last `start` words are the same.
    start: number of words.
  """
  if len(texts) < 2:
    return [], set(texts)
  longest = min(_MAX_WORDS, *map(len, texts))
  length = start
  while length < longest and len({text[length] for text in texts}) == 1:
    length += 1
  endings = [texts[0][:length]] if length else []
  common = endings, {text[length:] for text in texts}
  if length == _MAX_WORDS:
    return common
  groups = {}
  for text in texts:
    groups.setdefault(text[length : length + 1], []).append(text)
  grouped = [], set()
  for group in groups.values():
    endings, captions = _endings(group, length)
    grouped[0].extend(endings)
    grouped[1].update(captions)
  return min(common, grouped, key=_num_words)


def _num_words(description: tuple[list[_Words], set]) -> int:
  """Number of words of endings and captions, each written once."""
  return sum(len(words) for part in description for words in part)


def _from_sentence(ending: str) -> str:
  """The ending without a leading remainder of the caption's last sentence.

  In a small file all captions may end in the same words. A question is a
  sentence of its own, so an ending that begins with a lower-case letter is cut
  at the next sentence.
  """
  while ending.lstrip()[:1].islower():
    end = re.search(r'[.!?]["\'”’)\]]*(?=\s\S)', ending)
    if end is None:
      break
    ending = ending[end.end() :]
  # Keep one white space, also if all captions end in white space.
  return ending[len(ending) - len(ending.lstrip()) - 1 :]
