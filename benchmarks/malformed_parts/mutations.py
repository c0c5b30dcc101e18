"""Hypothesis strategies that change good inputs: JSON, bytes and mp4 files."""

from collections.abc import Iterator
import copy
import functools
import json
import math
import struct
from typing import Any

from hypothesis import strategies as st

# Numbers, texts and structures at which readers tend to fail.
SCALARS = [
  None, True, False, 0, -1, 1, 2.5, -0.0, math.nan, math.inf, -math.inf,
  1e308, 10**30, 2**63, '', ' ', '1', 'nan', 'None', '../x', '/etc/passwd',
  '~', '~nosuchuser', '\0', '\ud800', 'a\nb', '\u2028', '\u202e', 'e\u0323',
  'x' * 5000, [], {}, [[]], [None], {'': None}, [0, 0], [-1], {'a': [1, 2]},
]  # fmt: skip
_JUNK = st.one_of(
  st.sampled_from(SCALARS).map(copy.deepcopy),
  st.integers(),
  st.floats(),
  st.text(max_size=8),
  st.lists(st.integers(-2, 2), max_size=3),
)


def _paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
  """Paths to all values within a JSON value, of keys and indices."""
  yield path
  items: Any = ()
  if isinstance(value, dict):
    items = value.items()
  elif isinstance(value, list):
    items = enumerate(value)
  for key, item in items:
    yield from _paths(item, (*path, key))


@st.composite
def mutated_json(draw: st.DrawFn, value: Any) -> Any:
  """A JSON value with one to three changes."""
  value = copy.deepcopy(value)
  for _ in range(draw(st.integers(1, 3))):
    paths = [path for path in _paths(value) if path]
    if not paths:
      return draw(_JUNK)
    *parents, key = draw(st.sampled_from(paths))
    parent = functools.reduce(lambda item, key: item[key], parents, value)
    change = draw(st.sampled_from(['replace', 'remove', 'repeat', 'rename']))
    if change == 'remove':
      del parent[key]
    elif change == 'repeat' and isinstance(parent, list):
      parent.insert(key, copy.deepcopy(parent[key]))
    elif change == 'rename' and isinstance(parent, dict):
      parent[draw(st.text(max_size=4))] = parent.pop(key)
    else:
      parent[key] = draw(_JUNK)
  return value


def dump(value: Any) -> bytes:
  return json.dumps(value).encode()


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
  """Bytes with one to three changes."""
  for _ in range(draw(st.integers(1, 3))):
    start = draw(st.integers(0, len(data)))
    size = draw(st.sampled_from([1, 2, 4, 8, 64]))
    old = data[start : start + size]
    new = draw(
      st.one_of(
        st.binary(max_size=size),
        st.sampled_from([
          b'', bytes(len(old)), old + old, bytes(255 - byte for byte in old),
          b'\xef\xbb\xbf', b'{', b']', b'"', b'\\u0000', b'1e999', b',',
        ]),
      )
    )  # fmt: skip
    data = data[:start] + new + data[start + len(old) :]
    if draw(st.integers(0, 9)) == 0:
      data = data[:start]
  return data


def json_file(value: Any) -> st.SearchStrategy[bytes]:
  """Malformed files of a JSON value."""
  duplicate_key = dump(value).replace(b'": ', b'": 0, "x": 1, "x": ', 1)
  return st.one_of(
    mutated_json(value).map(dump),
    damaged(dump(value)),
    st.sampled_from([
      b'', b'\xff\xfe', dump(value).decode().encode('utf-16'), duplicate_key,
      b'[' * 2000, dump(value) * 2, b'\xef\xbb\xbf' + dump(value),
      b'9' * 5000,
    ]),
  )  # fmt: skip


def _boxes(data: bytes, start: int = 0, end: int | None = None) -> list[int]:
  """Offsets of the boxes of an mp4 file, nested ones included."""
  offsets = []
  end = len(data) if end is None else end
  while start + 8 <= min(end, len(data)):
    size, kind = struct.unpack('>I4s', data[start : start + 8])
    offsets.append(start)
    if kind in (b'moov', b'trak', b'edts', b'mdia', b'minf', b'dinf', b'stbl'):
      offsets += _boxes(data, start + 8, start + size)
    if size < 8:
      break
    start += size
  return offsets


@st.composite
def damaged_boxes(draw: st.DrawFn, data: bytes) -> bytes:
  """An mp4 file, one to three of whose boxes have changed fields."""
  for _ in range(draw(st.integers(1, 3))):
    start = draw(st.sampled_from(_boxes(data) or [0]))
    offset = start + 4 * draw(st.integers(0, 16))
    field = draw(
      st.sampled_from([
        bytes(4), b'\xff' * 4, b'\x7f\xff\xff\xff', b'\0\0\0\1', b'free',
        b'\0\0\xff\xff', b'\0\1\0\0',
      ])
    )  # fmt: skip
    data = data[:offset] + field + data[offset + 4 :]
  return data
