"""Contact sheets: one image with a few frames of each clip and its prompt.

A clip that cannot be read gets a cell that says so, and the job continues. Text
is in Pillow's built-in font: the page looks the same everywhere, but the font
covers little more than English; missing glyphs appear as its empty box.
"""

import bisect
from collections.abc import Sequence
import dataclasses
import functools
import pathlib
import re
import unicodedata

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lift_jax.data import video
from lift_jax.errors import UserError
from lift_jax.runtime import storage
from lift_jax.runtime.files import atomic_path

# Lengths in pixels, colours as grey levels.
_MAX_WIDTH = 2048  # of the page, about the width of a large screen
_MARGIN = 28  # around the page
_CELL_GAP = 28  # between cells
_FRAME_GAP = 3  # between frames of a clip
_TEXT_GAP = 7  # between frames and text

_HEADER_SIZE = 18
_TEXT_SIZE = 13
_LINE_HEIGHT = 18

_WHITE, _PALE, _GREY, _DARK = ((level,) * 3 for level in (255, 244, 115, 45))

_TEXT_LINES = 2
# More than fits on two lines.
_MAX_CHARACTERS = 2000

# A Unicode noncharacter, which no font has: it is drawn as the box for missing
# glyphs.
_MISSING = '\uffff'


@dataclasses.dataclass(frozen=True)
class SheetClip:
  """The contents of one cell.

  Attributes:
    video: the clip; it may be missing or damaged.
    title: one line, usually the file name. If it is too long its middle is
      omitted, as names often differ at the end.
    text: the caption or prompt, of which two lines are shown.
  """

  video: pathlib.Path
  title: str
  text: str


def write_contact_sheet(
  path: str | pathlib.Path,
  clips: Sequence[SheetClip],
  *,
  frames_per_clip: int = 4,
  frame_width: int = 160,
  max_clips: int = 40,
) -> None:
  """Writes a PNG with a cell for each clip.

  The file is written under a temporary name and renamed, so it is complete or
  absent. Clips are decoded one after the other, and only small frames are kept.

  Args:
    path: of the PNG; its folder must exist.
    clips: what to show, in order.
    frames_per_clip: frames evenly spaced from the first to the last one; all
      frames of a shorter clip.
    frame_width: pixels of a frame's longer side.
    max_clips: of more clips an evenly spaced selection is shown, and the header
      gives the total.

  Raises:
    OSError: the file cannot be written.
  """
  shown = [clips[index] for index in _spread(len(clips), max_clips)]
  cells = [_cell(clip, frames_per_clip, frame_width) for clip in shown]
  page = _page(cells, _header(len(shown), len(clips)))
  path = storage.to_path(path)
  with atomic_path(path) as partial:
    page.save(partial, format='PNG')


def _spread(num: int, max_chosen: int) -> list[int]:
  """Evenly spaced indices below `num`, the first and the last included."""
  if num <= max_chosen:
    return list(range(num))
  return [
    index * (num - 1) // max(1, max_chosen - 1) for index in range(max_chosen)
  ]


def _header(num_shown: int, num_clips: int) -> str:
  noun = 'clip' if num_clips == 1 else 'clips'
  choice = f'{num_shown:,} of ' if num_shown < num_clips else ''
  return f'{choice}{num_clips:,} {noun}'


def _page(cells: Sequence[Image.Image], header: str) -> Image.Image:
  """The cells row by row, on a page that is about square or taller."""
  cell_width = max((cell.width for cell in cells), default=0)
  pitch = cell_width + _CELL_GAP
  area = pitch * sum(cell.height + _CELL_GAP for cell in cells)
  num_columns = min(round(area**0.5 / pitch), _MAX_WIDTH // pitch, len(cells))
  num_columns = max(1, num_columns)
  rows = [
    cells[first : first + num_columns]
    for first in range(0, len(cells), num_columns)
  ]
  heights = [max(cell.height for cell in row) + _CELL_GAP for row in rows]

  font = _font(_HEADER_SIZE)
  body_width = num_columns * pitch - _CELL_GAP
  body_width = max(body_width, round(font.getlength(header)))
  top = _MARGIN + _HEADER_SIZE + _CELL_GAP
  page_height = top + sum(heights) - _CELL_GAP + _MARGIN
  page = Image.new('RGB', (body_width + 2 * _MARGIN, page_height), _WHITE)
  ImageDraw.Draw(page).text((_MARGIN, _MARGIN), header, _DARK, font)
  for row, height in zip(rows, heights, strict=True):
    for column, cell in enumerate(row):
      page.paste(cell, (_MARGIN + column * pitch, top))
    top += height
  return page


def _cell(
  clip: SheetClip, frames_per_clip: int, frame_width: int
) -> Image.Image:
  """Frames side by side, below them the title and the text."""
  width = frames_per_clip * (frame_width + _FRAME_GAP) - _FRAME_GAP
  strip = _strip(clip, frames_per_clip, frame_width, width)
  title = _shorten(_legible(clip.title), width)
  lines = _wrap(_legible(clip.text), width, _TEXT_LINES)
  text_top = strip.height + _TEXT_GAP
  height = text_top + (1 + len(lines)) * _LINE_HEIGHT
  cell = Image.new('RGB', (width, height), _WHITE)
  cell.paste(strip, (0, 0))
  draw = ImageDraw.Draw(cell)
  font = _font(_TEXT_SIZE)
  draw.text((0, text_top), title, _DARK, font)
  for index, line in enumerate(lines, start=1):
    draw.text((0, text_top + index * _LINE_HEIGHT), line, _GREY, font)
  return cell


def _strip(
  clip: SheetClip, frames_per_clip: int, frame_width: int, width: int
) -> Image.Image:
  """The frames side by side, or why there are none."""
  try:
    with storage.local_file(clip.video) as path:
      frames_thw3 = video.decode(
        path, frames_per_clip, where=clip.title, choose=_spread
      ).frames
  except UserError as error:
    # The message is 'where: path reason; remedy'; the title is shown below.
    reason = str(error).removeprefix(f'{clip.title}: {clip.video} ')
    return _notice(reason.partition(';')[0], frame_width, width)
  except (OSError, ValueError) as error:  # such as folders without permission
    reason = getattr(error, 'strerror', None) or type(error).__name__
    return _notice(f'cannot be read ({reason})', frame_width, width)
  frames = [_scaled(image_hw3, frame_width) for image_hw3 in frames_thw3]
  strip = Image.new('RGB', (width, frames[0].height), _WHITE)
  for index, frame in enumerate(frames):
    strip.paste(frame, (index * (frame.width + _FRAME_GAP), 0))
  return strip


def _scaled(image_hw3: np.ndarray, side: int) -> Image.Image:
  """A frame [H, W, 3] whose longer side is `side` pixels."""
  height, width = image_hw3.shape[:2]
  scale = side / max(height, width)
  size = max(1, round(width * scale)), max(1, round(height * scale))
  return Image.fromarray(image_hw3).resize(size, Image.Resampling.LANCZOS)


def _notice(reason: str, frame_width: int, width: int) -> Image.Image:
  """A pale box with the reason, as high as a frame of 3:2."""
  box = Image.new('RGB', (width, round(frame_width * 2 / 3)), _PALE)
  ImageDraw.Draw(box).text(
    (width / 2, box.height / 2),
    '\n'.join(_wrap(_legible(f'This file {reason}.'), width - 2 * _MARGIN, 3)),
    _GREY,
    _font(_TEXT_SIZE),
    anchor='mm',
    align='center',
  )
  return box


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
  font = ImageFont.load_default(size=size)
  assert isinstance(font, ImageFont.FreeTypeFont)  # as a size is given
  return font


@functools.cache
def _has_glyph(character: str) -> bool:
  """Whether the font has a glyph for the character."""
  font = _font(_TEXT_SIZE)
  # Masks are buffers, which no stub says.
  # pyrefly: ignore[bad-argument-type]
  return bytes(font.getmask(character)) != bytes(font.getmask(_MISSING))


def _legible(text: str) -> str:
  """One line that the font can draw: é becomes e, — becomes -.

  A run of characters without a replacement becomes one box.
  """
  text = ' '.join(text[:_MAX_CHARACTERS].split())
  text = ''.join(map(_replacement, text))
  return re.sub(f'{_MISSING}[{_MISSING} ]*{_MISSING}', _MISSING, text)


@functools.cache
def _replacement(character: str) -> str:
  """The character itself, or the nearest that the font has."""
  if _has_glyph(character):
    return character
  category = unicodedata.category(character)
  if category == 'Pd':  # dashes
    return '-'
  if category in ('Mn', 'Cf'):  # combining accents and joiners
    return ''
  parts = unicodedata.normalize('NFKD', character)
  return ''.join(filter(_has_glyph, parts)) or _MISSING


def _num_fitting(text: str, width: float) -> int:
  """How many characters fit into the width."""
  return (
    bisect.bisect_right(
      range(len(text) + 1),
      width,
      key=lambda num: _font(_TEXT_SIZE).getlength(text[:num]),
    )
    - 1
  )


def _shorten(text: str, width: int) -> str:
  """The text, with … instead of its middle if it is too long."""
  font = _font(_TEXT_SIZE)
  if font.getlength(text) <= width:
    return text
  half = (width - font.getlength('…')) / 2
  num_first = _num_fitting(text, half)
  num_last = _num_fitting(text[::-1], half)
  return f'{text[:num_first]}…{text[len(text) - num_last :]}'


def _wrap(text: str, width: int, max_lines: int) -> list[str]:
  """Wraps the text; the last line ends with … if something is omitted.

  Lines break between words, or within a word that is too long for a line.
  """
  lines = []
  while text and len(lines) < max_lines:
    num = _num_fitting(text, width)
    if num < len(text):
      is_last = len(lines) == max_lines - 1
      if is_last:
        num = _num_fitting(text, width - _font(_TEXT_SIZE).getlength('…'))
      # At least one character, or the loop would not end.
      num = text.rfind(' ', 1, num + 1) if ' ' in text[1 : num + 1] else num
      num = max(1, num)
      if is_last:
        return [*lines, text[:num].rstrip(' ,.;:') + '…']
    lines.append(text[:num])
    text = text[num:].lstrip()
  return lines
