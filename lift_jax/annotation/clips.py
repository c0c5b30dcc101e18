"""The clips of a project: read from lists, as tasks of clips or pairs."""

import dataclasses
import itertools

from lift_jax import config_lib
from lift_jax.annotation.store import Store
from lift_jax.data.clip_paths import FOLLOW_LINKS
from lift_jax.data.json_records import ON_BAD_RECORD
from lift_jax.errors import UserError
from lift_jax.runtime import hub
from lift_jax.scoring.videos import CaptionedVideo, read_videos

_TASKS = ('clips', 'pairs', 'both')


@dataclasses.dataclass(frozen=True)
class ClipListConfig:
  """Which clips to rate.

  Attributes:
    root: folder that paths in the files are relative to, or the id of a data
      set on the hub; '' for clips of the toy world.
    files: lists of clips and captions, see `scoring.videos`; relative to the
      root or absolute.
    tasks: 'clips' rates each; 'pairs' compares the clips of each caption with
      one another, two at a time; or 'both'.
    category_key: key of the group of a record's prompt, over which work is
      balanced; a record without it is in the group ''.
    on_bad_record: 'error' stops at the first bad record; 'skip' lists and
      skips them.
    follow_links: links out of the root that may be followed; see
      `clip_paths.ClipFolder`.
  """

  root: str
  files: tuple[str, ...]
  tasks: str
  category_key: str
  on_bad_record: str
  follow_links: str

  def __post_init__(self):
    config_lib.check_choice('data.tasks', self.tasks, _TASKS)
    config_lib.check_choice(
      'data.on_bad_record', self.on_bad_record, ON_BAD_RECORD
    )
    config_lib.check_choice(
      'data.follow_links', self.follow_links, FOLLOW_LINKS
    )


def add_clips(store: Store, config: ClipListConfig) -> list[str]:
  """Adds tasks for the clips of the lists, and the examples of the rubric.

  Returns:
    Why records were skipped.

  Raises:
    UserError: a bad list, or no caption has two clips to compare.
  """
  if not config.files:
    raise UserError('data.files is empty; list at least one file of clips')
  questions = store.settings.rubric.questions.values()
  found = read_videos(
    hub.data_folder(config.root, config.files),
    config.files,
    config.on_bad_record,
    tuple(questions),
    config.follow_links,
    config.category_key,
  )
  tasks = []
  if config.tasks != 'pairs':
    tasks += [([_clip(one)], one.category) for one in found.records]
  if config.tasks != 'clips':
    pairs = _pairs(found.records)
    if not pairs:
      raise UserError(
        f'{", ".join(config.files)}: no two clips have one caption; set '
        'data.tasks to clips'
      )
    tasks += pairs
  store.add_tasks(tasks)
  for by_label in store.settings.rubric.examples.values():
    for video in itertools.chain(*by_label.values()):
      store.add_clip(video, '')
  return [f'{where}: {reason}' for where, reason in found.skipped]


def _clip(video: CaptionedVideo) -> tuple[str, str]:
  return video.video, video.caption


def _pairs(
  videos: list[CaptionedVideo],
) -> list[tuple[list[tuple[str, str]], str]]:
  """All pairs of clips of each caption, with the category of the first."""
  by_caption: dict[str, list[CaptionedVideo]] = {}
  for video in videos:
    by_caption.setdefault(video.caption, []).append(video)
  return [
    ([_clip(first), _clip(second)], first.category)
    for same in by_caption.values()
    for first, second in itertools.combinations(
      sorted(same, key=lambda one: one.video), 2
    )
  ]
