"""Files of a model folder; see also models/cogvideox/folder_test.py."""

import pytest

from lift_jax.errors import UserError
from lift_jax.weights import model_files


class TestJson:
  def test_round_trip(self, tmp_path):
    path = tmp_path / 'deep' / 'deeper' / 'config.json'
    value = {'b': [1, 2.5, None, True], 'a': {'ü': '中'}}
    model_files.write_json(path, value)
    assert model_files.read_json(path) == value
    assert list(model_files.read_json(path)) == ['b', 'a']
    assert '中' in path.read_text(encoding='utf-8')

  @pytest.mark.parametrize(
    ('content', 'message'),
    [
      (b'{"a": 1,}', 'not readable as JSON'),
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
      model_files.read_json(path)
    assert '\n' not in str(caught.value)

  def test_no_file(self, tmp_path):
    with pytest.raises(UserError, match=r'x\.json: no such file; give'):
      model_files.read_json(tmp_path / 'x.json')
    with pytest.raises(UserError, match='not readable'):
      model_files.read_json(tmp_path)


class TestHash:
  def make(self, folder, **files):
    folder.mkdir()
    for name, text in files.items():
      (folder / name).write_text(text)
    return model_files.files_hash(folder)

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
    assert model_files.files_hash(tmp_path / 'one') == one
