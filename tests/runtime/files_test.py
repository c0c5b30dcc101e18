import hashlib
import json
import os

import pytest

from lift_jax.errors import UserError
from lift_jax.runtime.files import (
  atomic_folder,
  atomic_path,
  file_sha256,
  folder_sha256,
  json_sha256,
  read_json,
  remove_partials,
  write_json,
  write_text,
)


class TestJson:
  def test_round_trip(self, tmp_path):
    path = tmp_path / 'deep' / 'deeper' / 'config.json'
    value = {'b': [1, 2.5, None, True], 'a': {'ü': '中'}}
    write_json(path, value)
    assert read_json(path) == value
    assert list(read_json(path)) == ['b', 'a']
    assert '中' in path.read_text(encoding='utf-8')

  @pytest.mark.parametrize('number', [0, 1, 3])
  def test_list(self, tmp_path, number):
    """An item a line, and the brackets on theirs."""
    path, value = tmp_path / 'list.json', [{'a': [1, '中\n']}] * number
    write_json(path, value)
    text = path.read_text(encoding='utf-8')
    assert json.loads(text) == value
    assert text.count('\n') == number + 2

  def test_byte_order_mark(self, tmp_path):
    (tmp_path / 'x.json').write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert read_json(tmp_path / 'x.json') == {'a': 1}

  def test_lone_surrogate(self, tmp_path):
    """For example, in a file name that is not UTF-8."""
    value = {'name': os.fsdecode(b'\xff.mp4')}
    write_json(tmp_path / 'x.json', value)
    assert read_json(tmp_path / 'x.json') == value

  @pytest.mark.parametrize(
    ('content', 'message'),
    [
      (b'{"a": 1,}', 'not readable as JSON .*; correct or restore'),
      (b'', 'not readable as JSON'),
      (b'{"a": "\xff"}', 'not readable as JSON'),
      (b'[1]', 'not a JSON object'),
      (b'null', 'not a JSON object'),
    ],
  )
  def test_bad_content(self, tmp_path, content, message):
    path = tmp_path / 'config.json'
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf'config\.json: {message}') as caught:
      read_json(path)
    assert '\n' not in str(caught.value)

  def test_no_file(self, tmp_path):
    with pytest.raises(UserError, match=r'x\.json: no such file; give the'):
      read_json(tmp_path / 'x.json')
    with pytest.raises(UserError, match='not readable'):
      read_json(tmp_path)


class TestAtomicPath:
  def test_appears_once_complete(self, tmp_path):
    path = tmp_path / 'x.txt'
    for text in ('old', 'new'):
      with atomic_path(path) as partial:
        partial.write_text(text)
        assert text == 'old' or path.read_text() == 'old'
      assert path.read_text() == text
      assert list(tmp_path.iterdir()) == [path]

  def test_an_error_leaves_the_old_file(self, tmp_path):
    path = tmp_path / 'x.txt'
    path.write_text('old')
    with pytest.raises(OSError, match='No space'):
      with atomic_path(path) as partial:
        partial.write_text('half')
        raise OSError(28, 'No space left')
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]

  def test_the_longest_name(self, tmp_path):
    path = tmp_path / ('ü' * 127 + 'x')  # 255 bytes
    write_text(path, 'text')
    assert path.read_text() == 'text'

  def test_each_writer_has_its_own(self, tmp_path):
    path = tmp_path / 'x'
    with atomic_path(path) as first, atomic_path(path) as second:
      first.write_text('first')
      second.write_text('second')
    assert path.read_text() == 'first'  # which was the last one to end
    assert list(tmp_path.iterdir()) == [path]


class TestRemovePartials:
  def test_of_a_killed_writer(self, tmp_path):
    """What it left in the folder itself, and nothing else."""
    kept = [tmp_path / 'x.partial', tmp_path / '.x', tmp_path / 'sub']
    kept[2].mkdir()
    kept.append(tmp_path / 'sub' / '.y.partial')
    for path in kept:
      if path.name != 'sub':
        path.touch()
    writer = atomic_path(tmp_path / 'x')
    writer.__enter__().touch()  # and never ends
    remove_partials(tmp_path)
    assert sorted(tmp_path.rglob('*')) == sorted(kept)
    remove_partials(tmp_path / 'none')


class TestAtomicFolder:
  def test_replaces_once_complete(self, tmp_path):
    target = tmp_path / 'deep' / 'target'
    for text in ('old', 'new'):
      with atomic_folder(target) as partial:
        assert not list(partial.iterdir())
        (partial / text).write_text(text)
        assert text == 'old' or (target / 'old').exists()
      assert [path.name for path in target.iterdir()] == [text]
      assert list(target.parent.iterdir()) == [target]

  @pytest.mark.parametrize(
    ('error', 'seen'),
    [(OSError(28, 'No space left'), UserError), (KeyError('x'), KeyError)],
  )
  def test_leaves_nothing_after_an_error(self, tmp_path, error, seen):
    target = tmp_path / 'target'
    target.mkdir()
    (target / 'kept').touch()
    with pytest.raises(seen), atomic_folder(target) as partial:
      (partial / 'half').touch()
      raise error
    assert (target / 'kept').exists()
    assert list(tmp_path.iterdir()) == [target]


class TestHash:
  def make(self, folder, **files):
    folder.mkdir()
    for name, text in files.items():
      (folder / name).write_text(text)
    return folder_sha256(folder)

  def test_is_of_names_and_contents(self, tmp_path):
    one = self.make(tmp_path / 'one', a='x', b='y')
    assert self.make(tmp_path / 'same', b='y', a='x') == one
    others = [
      self.make(tmp_path / 'renamed', a='x', c='y'),
      self.make(tmp_path / 'swapped', a='y', b='x'),
      self.make(tmp_path / 'fewer', a='x'),
      self.make(tmp_path / 'changed', a='x', b='z'),
    ]
    assert len({one, *others}) == 5
    (tmp_path / 'one' / 'folder').mkdir()
    assert folder_sha256(tmp_path / 'one') == one

  def test_of_a_file(self, tmp_path):
    path = tmp_path / 'x'
    path.write_bytes(b'\0abc')
    assert file_sha256(path) == hashlib.sha256(b'\0abc').hexdigest()

  def test_of_a_json_value_is_what_caches_hold(self):
    """Stored fingerprints depend on these very bytes."""
    value = {'b': ['ü', 1.5, None], 'a': (True,)}
    plain = b'{"b": ["\\u00fc", 1.5, null], "a": [true]}'
    ordered = b'{"a": [true], "b": ["\\u00fc", 1.5, null]}'
    assert json_sha256(value) == hashlib.sha256(plain).hexdigest()
    assert (
      json_sha256(value, sort_keys=True) == hashlib.sha256(ordered).hexdigest()
    )
