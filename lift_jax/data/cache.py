"""Encoded videos on disk: what `lift prepare` writes and `lift align` reads.

  CACHE/made_by.json              fingerprint: all that determines the tensors
  CACHE/shards/NAME.array_record  records: safetensors of one video each
  CACHE/shards/NAME.json          the records of that shard, in order
  CACHE/index.json                all records, once a run has finished
  CACHE/skipped-HOST.json         unusable videos, and what is wrong with them
  CACHE/null_text.array_record    the embedding of the empty caption

A shard is valid once its .json exists; both files are written under a temporary
name and renamed. So a killed run loses only the shards that it was filling.
Lists and records have checksums, which every reader compares; the records of a
list that `drop_damaged` has shortened are not all of its shard. A list also has
the signature of its shard, which tells whether that has changed. Rewards are
not stored here but read from the alignment files, so that new scores require no
new encoding.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import json
import pathlib
from typing import Any, NamedTuple
import zlib

import numpy as np
import safetensors

from lift_jax.data.cache_lists import (
  Bucket,
  CacheEntry,
  CacheList,
  DamagedError,
  read_list,
  write_list,
)
from lift_jax.data.clip_paths import clip_sha256
from lift_jax.data.splits import Record
from lift_jax.errors import UserError
from lift_jax.runtime import storage
from lift_jax.runtime.files import (
  atomic_path,
  file_sha256,
  json_sha256,
  parse_json,
  remove_partials,
  write_json,
)
from lift_jax.runtime.progress import tracked
from lift_jax.runtime.storage import FileSignature
from lift_jax.weights import safetensors_files

FORMAT = 2
_INDEX = 'index.json'


class EncodedClip(NamedTuple):
  """A clip to write.

  Attributes:
    record: its record.
    data: from `pack`.
    signature: of its file.
    sha256: of the content of the file.
    frames_shape: see `CacheEntry`.
    flags: see `CacheEntry`.
    motion: see `CacheEntry`.
  """

  record: Record
  data: bytes
  signature: FileSignature
  sha256: str
  frames_shape: tuple[int, int, int]
  flags: tuple[str, ...]
  motion: float


class Skipped(NamedTuple):
  """A record that was skipped.

  Attributes:
    reason: what is wrong, with the file and the record.
    video_stamp: file signature of the video then; None if it was missing.
    flags: of the video, if it was skipped for one of them.
  """

  reason: str
  video_stamp: FileSignature | None
  flags: tuple[str, ...]


def record_key(record: Record) -> str:
  """Hash of video path and caption; independent of reward and JSON file."""
  return json_sha256([record.video, record.caption])[:32]


class LatentCache:
  """A cache folder, made with one set of settings.

  Args:
    folder: need not exist.
    fingerprint: flat dict of JSON values: hashes of the networks, sizes, rules.

  Raises:
    UserError: the folder was made with other settings.
  """

  def __init__(self, folder: pathlib.Path, fingerprint: Mapping[str, Any]):
    self.folder = folder
    self.fingerprint = json.loads(json.dumps({'format': FORMAT, **fingerprint}))
    self.hash = json_sha256(self.fingerprint, sort_keys=True)
    self._entries: dict[str, CacheEntry] | None = None
    self._check()

  def _check(self) -> None:
    if self.folder.exists() and not self.folder.is_dir():
      raise UserError(f'{self.folder} is a file; give a folder as data.cache')
    path = self.folder / 'made_by.json'
    if not path.exists():
      return
    try:
      found = dict(parse_json(storage.read_text(path))['made_by'])
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise UserError(f'{path}: not readable ({error}); delete it') from None
    stale = []
    for key in sorted(found.keys() | self.fingerprint.keys()):
      was, now = (
        repr(one[key]) if key in one else 'missing'
        for one in (found, self.fingerprint)
      )
      if was != now:
        stale.append(f'{key} was {was} and is now {now}')
    if stale:
      raise UserError(
        f'{self.folder} is stale: {"; ".join(stale)}; run lift prepare with '
        'another data.cache, or delete this one'
      )

  def start(self) -> None:
    """Creates the folder, deletes partial shards; only one host calls it."""
    shards = self.folder / 'shards'
    shards.mkdir(parents=True, exist_ok=True)
    write_json(
      self.folder / 'made_by.json',
      {'hash': self.hash, 'made_by': self.fingerprint},
    )
    remove_partials(self.folder)
    remove_partials(shards)
    for path in shards.glob('*.array_record'):
      if not path.with_suffix('.json').exists():
        path.unlink()

  def shards(self) -> list[str]:
    """Names of the complete shards."""
    return sorted(path.stem for path in self._lists())

  def _lists(self) -> Iterable[pathlib.Path]:
    return (self.folder / 'shards').glob('*.json')

  def finished(self) -> dict[str, CacheEntry]:
    """All records in complete shards, by key; reads the list of each shard."""
    entries = {}
    for path in tracked(sorted(self._lists()), 'list'):
      for entry in read_list(path).entries:
        if entry.key in entries:
          raise UserError(
            f'{path}: {entry.video} is also in {entries[entry.key].shard}; '
            'delete this shard and its .json'
          )
        entries[entry.key] = entry
    return entries

  def write_index(self) -> None:
    """Merges the lists of all shards; one host calls it at the end."""
    entries = sorted(self.finished().values(), key=lambda e: e.key)
    write_list(self._index_path, CacheList(entries, hash=self.hash))
    self.forget()

  def write_skipped(self, host: int, skipped: Mapping[str, Skipped]) -> None:
    """Writes the list of records that `host` skipped, by key."""
    if skipped:
      content = {key: skip._asdict() for key, skip in skipped.items()}
      write_json(self.folder / f'skipped-{host:05}.json', content)

  def skipped(self) -> dict[str, Skipped]:
    """The records that the last run skipped, by key; those of a readable list.

    The others are looked at again.
    """
    skipped = {}
    for path in sorted(self.folder.glob('skipped-*.json')):
      try:
        content = parse_json(storage.read_text(path))
        for key, skip in content.items():
          found = skip['video_stamp']
          skipped[key] = Skipped(
            skip['reason'], found and tuple(found), tuple(skip['flags'])
          )
      except (ValueError, KeyError, TypeError, AttributeError):
        continue
    return skipped

  def clear_skipped(self) -> None:
    """Deletes the lists of skipped records; only one host calls it."""
    for path in self.folder.glob('skipped-*.json'):
      path.unlink()

  def entries(self) -> dict[str, CacheEntry]:
    """All records of the index, by key; {} before a run has finished.

    The index is read once, until `forget` is called.

    Raises:
      UserError: the index is damaged, or was made with other settings.
    """
    if self._entries is None and self._index_path.exists():
      index = read_list(self._index_path)
      if index.hash != self.hash:
        raise DamagedError(
          f'{self._index_path}: was made with other settings than made_by.json '
          'next to it'
        )
      self._entries = {entry.key: entry for entry in index.entries}
    return self._entries or {}

  def forget(self) -> None:
    """Has the index read again, which another host may have written."""
    self._entries = None

  @property
  def _index_path(self) -> pathlib.Path:
    return self.folder / _INDEX

  def write_shard(self, bucket: Bucket, clips: Sequence[EncodedClip]) -> None:
    """Writes one shard.

    Args:
      bucket: of all its records.
      clips: to write, in order.

    Raises:
      UserError: the disk is full, or writing fails otherwise.
    """
    keys = [record_key(clip.record) for clip in clips]
    size = 'x'.join(str(side) for side in bucket)
    # A name of its own, even where it replaces some records of another shard.
    name = f'{size}-{json_sha256(keys)[:32]}'
    path = self.shard_path(name)
    entries = [
      CacheEntry(
        key=key,
        video=clip.record.video,
        bucket=bucket,
        shard=name,
        position=position,
        crc32=zlib.crc32(clip.data),
        video_stamp=clip.signature,
        video_sha256=clip.sha256,
        frames_shape=clip.frames_shape,
        flags=tuple(clip.flags),
        motion=clip.motion,
      )
      for position, (key, clip) in enumerate(zip(keys, clips, strict=True))
    ]
    _write_records(path, [clip.data for clip in clips])
    self._write_shard_list(name, entries)

  def _write_shard_list(self, name: str, entries: list[CacheEntry]) -> None:
    """Writes the list of a shard whose file is complete."""
    path = self.shard_path(name)
    signature = storage.file_signature(path) or ()
    with _writing(path):
      write_list(path.with_suffix('.json'), CacheList(entries, '', signature))

  def shard_path(self, name: str) -> pathlib.Path:
    return self.folder / 'shards' / f'{name}.array_record'

  def check_shard(self, name: str) -> None:
    """Raises DamagedError if a shard is missing or cut; reads only its end."""
    from array_record.python.array_record_module import ArrayRecordReader

    path = self.shard_path(name)
    with _reading(str(path)):
      ArrayRecordReader(str(path)).close()

  def read_record(
    self, entry: CacheEntry, read: Callable[[int], bytes]
  ) -> bytes:
    """The bytes of a record, which are those that were written.

    Args:
      entry: the record.
      read: returns what lies at a position of its shard.

    Raises:
      DamagedError: the record is damaged.
    """
    path = self.shard_path(entry.shard)
    with _reading(f'{path}: record {entry.position} ({entry.video})'):
      data = read(entry.position)
      if zlib.crc32(data) != entry.crc32:
        raise ValueError('its checksum is another one')
      return data

  def drop_damaged(self, shard: str, *, verify: bool) -> list[str]:
    """Drops the damaged records of a shard; returns what is wrong with them.

    Its other records are kept. A shard without any, or without a readable list,
    is deleted.

    Args:
      shard: its name.
      verify: whether to read it even if its size and time of change are what
        they were when all of it was intact.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    path = self.shard_path(shard)
    intact, problems = [], []
    try:
      listed = read_list(path.with_suffix('.json'))
    except DamagedError as error:
      listed, problems = CacheList([]), [error.problem]
    is_unchanged = listed.signature == storage.file_signature(path)
    if is_unchanged and not verify:
      return []
    reader = ArrayRecordReader(str(path))
    for entry in listed.entries:
      try:
        self.read_record(entry, lambda position: reader.read([position])[0])
      except DamagedError as error:
        problems.append(error.problem)
      else:
        intact.append(entry)
    with contextlib.suppress(RuntimeError):  # what reading has raised already
      reader.close()
    if problems:
      # A disk that fails raises OSError here; that is no damage of the file.
      with contextlib.suppress(FileNotFoundError):
        file_sha256(path)
    if intact and (problems or not is_unchanged):
      self._write_shard_list(shard, intact)
    elif problems:
      with _writing(path):
        path.with_suffix('.json').unlink()
        path.unlink(missing_ok=True)
    return problems

  def drop_damaged_rest(self) -> list[str]:
    """Likewise for the index and the empty caption; only one host calls it.

    The index goes too if the shards have other records, or the empty caption is
    missing: without an index the cache is unfinished.
    """
    problems = []
    try:
      is_current = self.entries() == self.finished()
    except DamagedError as error:
      is_current, problems = False, [error.problem]
    if self._index_path.exists() or self.null_text_path.exists():
      try:
        self.null_text()
      except DamagedError as error:
        is_current, problems = False, [*problems, error.problem]
        self.null_text_path.unlink(missing_ok=True)
    if not is_current:
      self._index_path.unlink(missing_ok=True)
      self.forget()
    return problems

  @property
  def null_text_path(self) -> pathlib.Path:
    return self.folder / 'null_text.array_record'

  def write_null_text(self, text_sd: np.ndarray) -> None:
    """Writes the embedding of the empty caption [S, D]."""
    _write_records(self.null_text_path, [pack(text=text_sd)])

  def null_text(self) -> np.ndarray:
    """The embedding of the empty caption [S, D].

    Raises:
      DamagedError: it is missing or damaged.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    with _reading(str(self.null_text_path)):
      # ArrayRecord compares checksums of its own.
      return unpack(ArrayRecordReader(str(self.null_text_path)).read([0])[0])[
        'text'
      ]


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
  """Turns the error of a damaged file into a DamagedError."""
  try:
    yield
  except (RuntimeError, ValueError) as error:
    reason = str(error).split(';')[0] or 'not an ArrayRecord'
    raise DamagedError(f'{what} is damaged ({reason})') from error


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
  """Turns the error of a full disk into a UserError."""
  try:
    yield
  except (OSError, RuntimeError, ValueError) as error:
    raise UserError(
      f'{path}: could not be written ({error}); make room and run the same '
      'command again to resume'
    ) from error


def _write_records(path: pathlib.Path, records: Iterable[bytes]) -> None:
  from array_record.python.array_record_module import ArrayRecordWriter

  with _writing(path), atomic_path(path) as partial:
    # One record per group, as they are read one by one in random order.
    writer = ArrayRecordWriter(str(partial), 'group_size:1')
    for data in records:
      writer.write(data)
    writer.close()


def num_clips(folder: pathlib.Path) -> dict[Bucket, int]:
  """Clips of each bucket of a cache, however it was made; {} without one."""
  path = folder / _INDEX
  entries = read_list(path).entries if path.exists() else []
  return dict(collections.Counter(entry.bucket for entry in entries))


def check_unchanged(
  cache: LatentCache, record: Record, entry: CacheEntry
) -> None:
  """Raises UserError if the video exists and its content has changed.

  The content is read only if the size is the same and the modification time is
  not, as after a copy.
  """
  now = storage.file_signature(record.path)
  if now is None or now == entry.video_stamp:
    return
  if (
    now[0] != entry.video_stamp[0]
    or clip_sha256(record.path, record.where) != entry.video_sha256
  ):
    raise UserError(
      f'{record.where}: the video has changed since it was encoded in '
      f'{cache.folder}; restore it, delete it to go on with what was encoded, '
      'or run lift prepare with another data.cache'
    )


def pack(**arrays: np.ndarray) -> bytes:
  """Arrays as a record.

  That of an encoded video has `mean` and `logvar`, of the posterior
  [F, h, w, C], and `text`, the embedded caption [S, D].
  """
  specs = [(name, a.shape, a.dtype, a.copy) for name, a in arrays.items()]
  return safetensors_files.header_bytes(specs) + b''.join(
    array.tobytes() for array in arrays.values()
  )


def unpack(data: bytes) -> dict[str, np.ndarray]:
  """What `pack` was given, by name."""
  return {
    name: np.frombuffer(
      tensor['data'], safetensors_files.DTYPES[tensor['dtype']]
    ).reshape(tensor['shape'])
    for name, tensor in safetensors.deserialize(data)
  }
