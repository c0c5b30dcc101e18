"""The lists of encoded videos in a cache: of a shard, and of all of them."""

import dataclasses
import pathlib

from lift_jax.errors import UserError
from lift_jax.runtime import storage
from lift_jax.runtime.files import json_sha256, parse_json, write_json
from lift_jax.runtime.storage import FileSignature

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
    crc32: checksum of the record.
    video_stamp: file signature of the source.
    video_sha256: hash of its content.
    frames_shape: number of frames, height and width that were encoded.
    flags: what is unusual about the source, see `clip_flags`.
    motion: mean absolute difference of consecutive frames, in [0, 1].
  """

  key: str
  video: str
  bucket: Bucket
  shard: str
  position: int
  crc32: int
  video_stamp: FileSignature
  video_sha256: str
  frames_shape: tuple[int, int, int]
  flags: tuple[str, ...]
  motion: float


class DamagedError(UserError):
  """A part of a cache that cannot be read as it was written.

  Args:
    problem: the file, the record, and what is wrong.
  """

  def __init__(self, problem: str):
    super().__init__(
      f'{problem}; run lift prepare with the same flags and '
      '--config.prepare.verify=True to make it again'
    )
    self.problem = problem


@dataclasses.dataclass(frozen=True)
class CacheList:
  """Encoded videos, as a file lists them.

  Attributes:
    entries: in the order of the file.
    hash: of the settings of the cache; '' in the list of a shard.
    signature: of the file of a shard, when all of it was written or read; ()
      in the list of all shards, and if it is not known.
  """

  entries: list[CacheEntry]
  hash: str = ''
  signature: FileSignature | tuple[()] = ()


def write_list(path: pathlib.Path, content: CacheList) -> None:
  """Writes a list, with its checksum."""
  records = [dataclasses.asdict(entry) for entry in content.entries]
  head = {'hash': content.hash, 'signature': content.signature}
  write_json(
    path,
    {
      **{key: value for key, value in head.items() if value},
      'sha256': json_sha256(records),
      'records': records,
    },
  )


def read_list(path: pathlib.Path) -> CacheList:
  """Reads a list.

  Raises:
    DamagedError: it is not as it was written.
  """
  try:
    content = parse_json(storage.read_text(path))
    if content['sha256'] != json_sha256(content['records']):
      raise ValueError('its checksum is another one')
    entries = [
      CacheEntry(
        **record
        | {
          'bucket': tuple(record['bucket']),
          'video_stamp': tuple(record['video_stamp']),
          'frames_shape': tuple(record['frames_shape']),
          'flags': tuple(record['flags']),
        }
      )
      for record in content['records']
    ]
    # Lists of older versions have no signature.
    signature = tuple(content.get('signature', ()))
    return CacheList(entries, content.get('hash', ''), signature)
  except OSError as error:
    raise UserError(
      f'{path}: cannot be read ({error.strerror}); make it readable'
    ) from None
  except (ValueError, KeyError, TypeError) as error:
    raise DamagedError(
      f'{path}: not readable as a list of records ({error})'
    ) from None
