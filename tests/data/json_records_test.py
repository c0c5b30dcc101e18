"""Lists of records in each of their forms, and where errors are."""

import json

from absl.testing import parameterized
import pytest

from lift_jax.data import json_records
from lift_jax.errors import UserError

pytestmark = pytest.mark.fast


class ListTest(parameterized.TestCase):
  def parse(self, text, is_lines=False):
    return json_records.parse_list('x', text, 'numbers', is_lines)

  @parameterized.product(is_lines=(True, False))
  def test_list(self, is_lines):
    wanted = [('record 0', 1), ('record 1', [2]), ('record 2', {'a': 3})]
    items = [value for _, value in wanted]
    for text in (
      json.dumps(items),
      '\n ' + json.dumps(items, indent=2) + '\r\n',
      json.dumps({'version': 3, 'data': items}),
    ):
      self.assertEqual(self.parse(text, is_lines), wanted)
    for text in ('[]', '{"data": []}'):
      self.assertEqual(self.parse(text, is_lines), [])

  @parameterized.product(is_lines=(True, False))
  def test_lines(self, is_lines):
    text = '\r\n{"a": 1}\r\n\n {\n "b":\n 2}\t\n[3]\n"\u2028\x85"\n\n'
    self.assertEqual(
      self.parse(text, is_lines),
      [
        ('line 2', {'a': 1}), ('line 4', {'b': 2}), ('line 7', [3]),
        ('line 8', '\u2028\x85'),
      ],
    )  # fmt: skip

  @parameterized.parameters(
    ('{"a": 1}', {'a': 1}), ('{"data": 1}', {'data': 1}), ('\n3\n', 3)
  )
  def test_one_line(self, text, value):
    """What the name of the file decides."""
    ((place, found),) = self.parse(text, True)
    self.assertEqual(
      (place, found), (f'line {1 + text[0].count(chr(10))}', value)
    )
    with self.assertRaisesRegex(UserError, 'x: this is .* write a list of'):
      self.parse(text)

  def test_blank(self):
    for text in ('', '\n \r\n'):
      self.assertEqual(self.parse(text, True), [])
      with self.assertRaisesRegex(UserError, 'x: line . .*invalid JSON'):
        self.parse(text)

  @parameterized.parameters(
    ('{"a": 1} {"b": 2}', 'line 1 column 10', 'Extra data'),
    ('{"a": 1}\n\n{"b": 2},\n{"c": 3}', 'line 3 column 9', 'Extra data'),
    ('[1]\n]', 'line 2 column 1', 'Expecting value'),
    ('{"a": 1}\n{"b": }\n', 'line 2 column 7', 'Expecting value'),
    ('{"a": 1}\n{"b": 2', 'line 2 column 8', 'delimiter'),
    ('1\n2\n' + '[' * 100_000, 'line 3', 'invalid JSON'),
    ('1\n2\n' + '9' * 5_000, 'line 3', 'invalid JSON'),
  )  # fmt: skip
  def test_fault(self, text, *words):
    for is_lines in (True, False):
      with self.assertRaises(UserError) as raised:
        self.parse(text, is_lines)
      message = str(raised.exception)
      self.assertLen(message.splitlines(), 1)
      for word in ('x: ', *words):
        self.assertIn(word, message)

  def test_many_lines(self):
    """In time that does not grow with the square of their number."""
    count = 50_000
    found = self.parse('{"a": 1}\n' * count)
    self.assertLen(found, count)
    self.assertEqual(found[-1][0], f'line {count}')

  def test_duplicate_key(self):
    values = self.parse('{"data": [], "data": []}\n{}')
    self.assertEqual(values[0][1], json_records.DuplicateKey('data'))
    with self.assertRaisesRegex(UserError, 'an object, not a list'):
      self.parse('{"data": [], "data": []}')


class ObjectTest(parameterized.TestCase):
  def test_one_value(self):
    parse = json_records.parse_json
    self.assertEqual(parse('x', ' {"a": 1}\n', 'an object'), {'a': 1})
    with self.assertRaisesRegex(UserError, 'line 2 column 1: .*Extra data'):
      parse('x', '{"a": 1}\n{"b": 2}', 'an object')
