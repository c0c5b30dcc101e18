"""Encoded videos on disk: what `lift prepare` writes and `lift align` reads.

  CACHE/made_by.json              fingerprint: all that determines the tensors
  CACHE/shards/NAME.array_record  records: safetensors of one video each
  CACHE/shards/NAME.json          the records of that shard, in order
  CACHE/index.json                all records, once a run has finished
  CACHE/skipped-HOST.json         unusable videos, and what is wrong with them
  CACHE/null_text.safetensors     the embedding of the empty caption

A shard is valid once its .json exists; both files are written under a temporary
name and renamed. So a killed run loses only the shards that it was filling.
Rewards are not stored here but read from the alignment files, so that new
scores require no new encoding.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import safetensors

from lift_jax.data.clip_paths import clip_sha256
from lift_jax.data.records import AlignmentRecord
from lift_jax.errors import UserError
from lift_jax.runtime import storage
from lift_jax.runtime.files import (
  atomic_path,
  json_sha256,
  write_json,
)
from lift_jax.runtime.storage import FileSignature
from lift_jax.weights import safetensors_files

FORMAT = 2

# Latent frames, height and width: all that a compiled step depends on.
Bucket = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class CacheEntry:
  """Location of one encoded video, and its source.

  Attributes:
    key: see `record_key`.
    video: path of the source, for messages.
    bucket: latent frames, height and width.
    shard: name of the shard.
    position: index in the shard.
    video_stamp: file signature of the source.
    video_sha256: hash of its content.
    flags: what is unusual about the source, see `clip_flags`.
  """

  key: str
  video: str
  bucket: Bucket
  shard: str
  position: int
  video_stamp: FileSignature
  video_sha256: str
  flags: tuple[str, ...]


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


def record_key(record: AlignmentRecord) -> str:
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
    self._check()

  def _check(self) -> None:
    if self.folder.exists() and not self.folder.is_dir():
      raise UserError(f'{self.folder} is a file; give a folder as data.cache')
    path = self.folder / 'made_by.json'
    if not path.exists():
      return
    try:
      found = dict(json.loads(storage.read_text(path))['made_by'])
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise UserError(f'{path}: not readable ({error}); delete it') from None
    stale = [
      f'{key} was {found.get(key)!r} and is now {self.fingerprint.get(key)!r}'
      for key in sorted(found.keys() | self.fingerprint.keys())
      if found.get(key) != self.fingerprint.get(key)
    ]
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
    for path in storage.children(shards):
      is_orphan = path.suffix == '.array_record' and not (
        path.with_suffix('.json').exists()
      )
      if is_orphan or path.name.endswith('.partial'):
        path.unlink()

  def finished(self) -> dict[str, CacheEntry]:
    """All records in complete shards, by key; reads the list of each shard."""
    entries = {}
    for path in sorted((self.folder / 'shards').glob('*.json')):
      for entry in _read_entries(path):
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
    write_json(
      self.folder / 'index.json',
      {
        'hash': self.hash,
        'records': [dataclasses.asdict(entry) for entry in entries],
      },
    )

  def write_skipped(self, host: int, skipped: Mapping[str, Skipped]) -> None:
    """Writes the list of records that `host` skipped, by key."""
    if skipped:
      content = {key: skip._asdict() for key, skip in skipped.items()}
      write_json(self.folder / f'skipped-{host:05}.json', content)

  def skipped(self) -> dict[str, Skipped]:
    """The records that the last run skipped, by key."""
    skipped = {}
    for path in sorted(self.folder.glob('skipped-*.json')):
      for key, skip in json.loads(storage.read_text(path)).items():
        found = skip['video_stamp']
        skipped[key] = Skipped(
          skip['reason'], found and tuple(found), tuple(skip['flags'])
        )
    return skipped

  def clear_skipped(self) -> None:
    """Deletes the lists of skipped records; only one host calls it."""
    for path in self.folder.glob('skipped-*.json'):
      path.unlink()

  def entries(self) -> dict[str, CacheEntry]:
    """All records of the index, by key; {} before a run has finished.

    Raises:
      UserError: the index was made with other settings.
    """
    path = self.folder / 'index.json'
    if not path.exists():
      return {}
    return {entry.key: entry for entry in _read_entries(path, self.hash)}

  def write_shard(
    self,
    bucket: Bucket,
    items: Sequence[
      tuple[AlignmentRecord, bytes, FileSignature, str, Sequence[str]]
    ],
  ) -> None:
    """Writes one shard.

    Args:
      bucket: of all its records.
      items: (record, packed tensors, file signature, sha256 and flags of the
        video).

    Raises:
      UserError: the disk is full, or writing fails otherwise.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    size = 'x'.join(str(side) for side in bucket)
    name = f'{size}-{record_key(items[0][0])}'
    path = self.shard_path(name)
    entries = [
      CacheEntry(
        record_key(record),
        record.video,
        bucket,
        name,
        index,
        signature,
        digest,
        tuple(flags),
      )
      for index, (record, _, signature, digest, flags) in enumerate(items)
    ]
    try:
      with atomic_path(path) as partial:
        # One record per group, as they are read one by one in random order.
        writer = ArrayRecordWriter(str(partial), 'group_size:1')
        for _, data, *_ in items:
          writer.write(data)
        writer.close()
      write_json(
        path.with_suffix('.json'),
        {'records': [dataclasses.asdict(entry) for entry in entries]},
      )
    except (OSError, RuntimeError, ValueError) as error:
      raise UserError(
        f'{path}: could not be written ({error}); make room and run the same '
        'command again to resume'
      ) from error

  def shard_path(self, name: str) -> pathlib.Path:
    return self.folder / 'shards' / f'{name}.array_record'

  @property
  def null_text_path(self) -> pathlib.Path:
    return self.folder / 'null_text.safetensors'

  def write_null_text(self, text_sd: np.ndarray) -> None:
    """Writes the embedding of the empty caption [S, D]."""
    safetensors_files.write(
      self.null_text_path,
      [('text', text_sd.shape, text_sd.dtype, lambda: text_sd)],
    )

  def null_text(self) -> np.ndarray:
    """The embedding of the empty caption [S, D]."""
    return safetensors_files.open_tensors(self.null_text_path, 'null_text')[
      'text'
    ][:]


def _read_entries(
  path: pathlib.Path, wanted_hash: str | None = None
) -> Iterable[CacheEntry]:
  try:
    content = json.loads(storage.read_text(path))
    entries = [
      CacheEntry(
        **record
        | {
          'bucket': tuple(record['bucket']),
          'video_stamp': tuple(record['video_stamp']),
          'flags': tuple(record['flags']),
        }
      )
      for record in content['records']
    ]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path}: not readable as a list of records ({error}); delete it and '
      'run lift prepare again'
    ) from None
  if wanted_hash is not None and content.get('hash') != wanted_hash:
    raise UserError(
      f'{path}: was made with other settings than made_by.json next to it; '
      'delete it and run lift prepare again'
    )
  return entries


def check_unchanged(
  cache: LatentCache, record: AlignmentRecord, entry: CacheEntry
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


def pack(mean: np.ndarray, logvar: np.ndarray, text: np.ndarray) -> bytes:
  """One encoded video as a record.

  Args:
    mean: of the posterior [F, h, w, C].
    logvar: of the posterior [F, h, w, C].
    text: embedded caption [S, D].
  """
  arrays = {'mean': mean, 'logvar': logvar, 'text': text}
  specs = [(name, a.shape, a.dtype, a.copy) for name, a in arrays.items()]
  return safetensors_files.header_bytes(specs) + b''.join(
    array.tobytes() for array in arrays.values()
  )


def unpack(data: bytes) -> dict[str, np.ndarray]:
  """What `pack` was given, by name."""
  tensors = dict(safetensors.deserialize(data))
  return {
    name: np.frombuffer(
      tensors[name]['data'], safetensors_files.DTYPES[tensors[name]['dtype']]
    ).reshape(tensors[name]['shape'])
    for name in ('mean', 'logvar', 'text')
  }
