"""Readers for lists of videos to rate, with their captions.

Lists of `{"video", "caption"}`, as LiFT publishes them; manifests of `lift
sample`; conversations (HRA); or pairs of clips, also those of benchmarks (see
`data.pair_records`). A clip that is listed several times with the same caption
is rated once.
"""

from collections.abc import Sequence
import dataclasses
import functools
import pathlib
from typing import Any

from lift_jax.data import benchmark_pairs, hra, pair_records
from lift_jax.data.clip_paths import ClipFolder
from lift_jax.data.json_records import (
  BadRecords,
  ReadResult,
  RecordError,
  as_object,
  check_unicode,
  fetch_clips,
  find_files,
  json_type,
  location,
  text_field,
)
from lift_jax.data.questions import find_questions
from lift_jax.errors import UserError
from lift_jax.runtime.files import json_sha256
from lift_jax.runtime.progress import tracked


@dataclasses.dataclass(frozen=True)
class CaptionedVideo:
  """A clip to rate.

  Attributes:
    video: see `clip_paths.ClipFolder.find`.
    path: of the file, absolute, with symbolic links resolved.
    caption: what it should show.
    file: the file that lists it, as given by the caller.
    place: in that file: 'record 3', or 'line 4' of JSON lines.
    category: group of its prompt; '' if unknown.
  """

  video: str
  path: pathlib.Path
  caption: str
  file: str
  place: str
  category: str = ''

  @property
  def where(self) -> str:
    """For messages: 'test.json record 3 (videos/x.mp4)'."""
    return f'{location(self.file, self.place)} ({self.video})'

  @functools.cached_property
  def key(self) -> str:
    """Identifies clip and caption, see `key_of`."""
    return key_of(self.video, self.caption)


def key_of(video: str, caption: str) -> str:
  """Hash (16 hex digits) of the path of a clip and its caption."""
  return json_sha256([video, caption])[:16]


def read_videos(
  root: str | pathlib.Path,
  files: Sequence[str],
  on_bad_record: str,
  questions: Sequence[str] = (),
  follow_links: str = 'hub',
  category_key: str = '',
) -> ReadResult[CaptionedVideo]:
  """Reads and checks lists of videos.

  Duplicates of clip and caption are read once.

  Args:
    root: the folder that paths are relative to, and may not leave.
    files: lists of them (see `json_records.parse_list`), relative to the root
      or absolute.
    on_bad_record: 'error' raises at the first bad record; 'skip' collects bad
      records.
    questions: of the conversations, if known; others are detected.
    follow_links: see `clip_paths.ClipFolder`.
    category_key: key of the category of a record, a text or a list of texts;
      '' reads none.

  Raises:
    UserError: a bad file or record, or no usable record at all.
  """
  bad = BadRecords(on_bad_record)
  clips = ClipFolder.open(root, follow_links)
  if not files:
    raise UserError('videos.files is empty; list at least one file of videos')
  videos = {}
  for name, path in zip(files, find_files(clips.root, files), strict=True):
    items = benchmark_pairs.load(
      name, path, 'objects with "video" and "caption"'
    )
    fetch_clips(clips.root, [item for _, item in items])
    found = _find_questions([item for _, item in items])
    for place, item in tracked(items, 'record'):
      try:
        for video in _videos(clips, item, questions, found, name, place):
          if category_key in item:
            category = _category(item[category_key], category_key)
            video = dataclasses.replace(video, category=category)
          videos.setdefault(video.key, video)
      except RecordError as fault:
        bad.add(name, place, fault)
  return bad.result(list(videos.values()), files)


def _find_questions(items: list[Any]) -> tuple[str, ...]:
  """The questions of conversations, which follow their captions."""
  texts = []
  for item in items:
    if isinstance(item, dict) and 'conversations' in item:
      try:
        texts += hra.human_texts(item)
      except RecordError:
        continue  # reported when this record is read
  return find_questions(texts) if texts else ()


def _videos(
  clips: ClipFolder,
  item: Any,
  questions: Sequence[str],
  found: Sequence[str],
  file: str,
  place: str,
) -> list[CaptionedVideo]:
  """The clip of a record, or both clips of a pair."""
  item = as_object(item, '{"video", "caption"}')
  if 'videos' in item:
    names, caption = pair_records.videos_of(item), text_field(item, 'caption')
  elif 'conversations' in item:
    names = [text_field(item, 'video')]
    text = hra.human_texts(item)[0]
    # Known questions first: the text that a few clips share may be longer.
    known = [one for one in questions if text.rstrip().endswith(one)]
    caption, _ = hra.split_text(text, known or found)
  elif 'files' in item:  # of a manifest
    files = item['files'] if isinstance(item['files'], dict) else {}
    names = [name for name in files if name.endswith('.mp4')]
    if len(names) != 1:
      raise RecordError('"files" must name one mp4 file; give a manifest')
    caption = text_field(item, 'prompt')
  else:
    names, caption = [text_field(item, 'video')], text_field(item, 'caption')
  check_unicode(caption, 'the caption')
  return [
    CaptionedVideo(
      *clips.find(name, require_file=True), caption.strip(), file, place
    )
    for name in names
  ]


def _category(value: Any, key: str) -> str:
  texts = value if isinstance(value, list) else [value]
  if not all(isinstance(text, str) for text in texts):
    raise RecordError(f'"{key}" is {json_type(value)}; write a string')
  category = ', '.join(texts)
  check_unicode(category, f'"{key}"')
  return category
