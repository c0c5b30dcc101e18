"""Finished items stay in the journal, whichever host is killed when."""

import concurrent.futures
import json
import random
from unittest import mock

from absl.testing import parameterized
import pytest

from lift_jax.runtime import storage
from lift_jax.runtime.journal import Journal, differences

pytestmark = pytest.mark.fast


def key_of(line) -> str:
  if not isinstance(line['name'], str):
    raise TypeError
  return line['name'].lower()


class _JournalTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def open(self, host=0) -> Journal:
    return Journal(self.folder / 'work.jsonl', key_of, host)

  def add(self, *names, host=0, **more):
    """Writes lines as a host that is then killed."""
    with self.open(host) as journal:
      for name in names:
        journal.add({'name': name, 'host': host, **more})

  def names(self) -> list[str]:
    """The names in all lines, in their order."""
    lines = self.open().path.read_text('utf-8').split('\n')
    assert lines.pop() == ''
    return [json.loads(line)['name'] for line in lines]


class LinesTest(_JournalTest):
  def test_nothing(self):
    self.assertEqual(self.open().read(), {})
    self.open().gather(['a'])
    self.assertEqual(self.names(), [])

  def test_read(self):
    self.add('A', 'b', number=1.5)
    self.assertEqual(
      self.open().read(),
      {
        'a': {'name': 'A', 'host': 0, 'number': 1.5},
        'b': {'name': 'b', 'host': 0, 'number': 1.5},
      },
    )

  def test_parsed_once(self):
    """Until the file changes, by this journal or another one."""
    self.add('a')
    journal = self.open()
    for name in ('b', 'c'):
      journal.gather(['c', 'b', 'a'])
      with mock.patch.object(storage, 'read_text', side_effect=AssertionError):
        first = journal.read()
        self.assertEqual(journal.read(), first)
      self.add(name)
      self.assertEqual(list(journal.read()), [*first, name])

  def test_readable_at_once(self):
    with self.open() as journal:
      for number, name in enumerate('abc', start=1):
        journal.add({'name': name})
        self.assertLen(self.open().read(), number)

  def test_appends(self):
    self.add('a')
    self.add('b')
    self.assertEqual(self.names(), ['a', 'b'])

  def test_last_line_counts(self):
    self.add('a', 'b', number=1)
    self.add('A', number=2)
    self.assertEqual(self.open().read()['a']['number'], 2)
    self.open().gather(['a', 'b'])
    self.assertEqual(self.names(), ['A', 'b'])
    self.assertEqual(self.open().read()['a']['number'], 2)

  @parameterized.parameters(
    'line\u2028and\u2029paragraph',
    'next\x85line, form\x0cfeed and\x1eseparator',
    'carriage\rreturn\r\n and newline',
    '猫 🐕 é e\u0301 \U0010ffff',
    '"quotes" \\ {braces}',
    '',
  )
  def test_unusual_texts(self, text):
    self.add(text, 'b')
    for _ in range(2):
      self.assertEqual(
        [line['name'] for line in self.open().read().values()], [text, 'b']
      )
      self.open().gather([text.lower(), 'b'])
    self.assertEqual(self.names(), [text, 'b'])

  def test_threads(self):
    names = [f'{number}' for number in range(300)]
    with self.open() as journal, concurrent.futures.ThreadPoolExecutor(8) as p:
      list(p.map(lambda name: journal.add({'name': name}), names))
    self.assertEqual(sorted(self.names()), sorted(names))

  def test_full_disk(self):
    """Raised by `add`, and not once more at the end."""
    (self.folder / '.work-1.jsonl').symlink_to('/dev/full')
    with self.open(host=1) as journal, self.assertRaises(OSError):
      journal.add({'name': 'a'})


class GatherTest(_JournalTest):
  @parameterized.parameters(1, 10, -12, -2, -1)
  def test_torn_line(self, end):
    self.add('a', 'b é')
    path = self.open().path
    whole = path.read_bytes()
    start = whole.index(b'\n') + 1
    path.write_bytes(whole[: start + end if end > 0 else end])
    # A line that lacks only its line break is complete.
    expected = ['a', 'b é'] if end == -1 else ['a']
    self.assertEqual(list(self.open().read()), expected)
    self.open().gather(['a', 'b é'])
    self.assertEqual(self.names(), expected)
    self.add('b é')  # on a line of its own
    self.open().gather(['a', 'b é'])
    self.assertEqual(path.read_bytes(), whole)

  def test_torn_within_a_character(self):
    self.add('a', '猫')
    path = self.open().path
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex('猫'.encode()) + 1])
    self.assertEqual(list(self.open().read()), ['a'])

  @parameterized.parameters(
    b'', b'null', b'1', b'"text"', b'[]', b'{}', b'{"name": 7}',
    b'{"name": null}', b'\0' * 100, b'\xff\xfe', b'{"name": "x"',
  )  # fmt: skip
  def test_other_lines(self, data):
    self.add('a')
    with self.open().path.open('ab') as file:
      file.write(data + b'\n')
    self.add('b')
    self.open().gather(['a', 'b'])
    self.assertEqual(self.names(), ['a', 'b'])

  def test_order(self):
    """The order of the keys; other lines are kept, at the end."""
    self.add('z', 'c', 'y', 'a', 'b')
    self.open().gather(['b', 'nothing', 'a', 'c'])
    self.assertEqual(self.names(), ['b', 'a', 'c', 'y', 'z'])

  def test_merged_already(self):
    """Such a file is not written again."""
    self.add('a', 'b')
    with mock.patch('os.replace', side_effect=AssertionError):
      self.open().gather(['a', 'x', 'b'])
    self.open().gather(['b', 'a'])
    self.assertEqual(self.names(), ['b', 'a'])

  def test_hosts(self):
    """Each has a file of its own, until the primary host merges them."""
    for host in range(3):
      self.add(*'abcdef'[host::3], host=host)
    self.assertEqual(list(self.open().read()), ['a', 'd'])
    with (self.folder / '.work-2.jsonl').open('a') as file:
      file.write('{"name": "to')
    self.open().gather(list('abcdef'))
    self.assertEqual(self.names(), list('abcdef'))
    self.assertEqual(
      [path.name for path in self.folder.iterdir()], ['work.jsonl']
    )

  def test_other_jobs_keep_theirs(self):
    """Files of another journal in the same folder."""
    other = Journal(self.folder / 'other.jsonl', key_of, 1)
    with other:
      other.add({'name': 'a'})
    self.open().gather(['a'])
    self.assertEqual(self.names(), [])
    self.assertTrue((self.folder / '.other-1.jsonl').exists())

  def test_done_again_on_another_host(self):
    self.add('a', 'b')
    self.add('b', host=2)
    self.open().gather(['a', 'b'])
    self.assertEqual(self.open().read()['b']['host'], 2)

  def test_order_of_writing_does_not_matter(self):
    rng, written = random.Random(0), set()
    names = list('abcdefgh')
    for num_hosts in (1, 2, 3, 1):
      for part in range(2):  # a killed run, and the one that resumes it
        for host in range(num_hosts):
          mine = names[host::num_hosts][part::2]
          rng.shuffle(mine)
          with self.open(host) as journal:
            for name in mine:
              journal.add({'name': name})
        self.open().gather(names)
      written.add(self.open().path.read_bytes())
      self.open().path.unlink()
    self.assertLen(written, 1)

  def test_killed_while_gathering(self):
    """The file is either the merged or the previous one."""
    self.add('b', 'a')
    with (
      mock.patch('os.replace', side_effect=KeyboardInterrupt),
      self.assertRaises(KeyboardInterrupt),
    ):
      self.open().gather(['a', 'b'])
    self.assertEqual(list(self.open().read()), ['b', 'a'])
    self.assertLen(list(self.folder.iterdir()), 1)
    self.open().gather(['a', 'b'])
    self.assertEqual(self.names(), ['a', 'b'])
    self.assertLen(list(self.folder.iterdir()), 1)


class DifferencesTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, {}, []),
    ({'a': 1, 'b': {'c': [1]}}, {'b': {'c': [1]}, 'a': 1.0}, []),
    ({'a': 1}, {'a': 2}, [('a', 1, 2)]),
    ({'a': 1}, {}, [('a', 1, None)]),
    ({}, {'a': {'b': 1}}, [('a', None, {'b': 1})]),
    (
      {'x': {'b': {'c': 1, 'd': 2}}, 'a': 0},
      {'x': {'b': {'c': 3, 'e': 2}}, 'a': 1},
      [('a', 0, 1), ('x.b.c', 1, 3), ('x.b.d', 2, None), ('x.b.e', None, 2)],
    ),
  )
  def test_names(self, old, new, expected):
    self.assertEqual(differences(old, new), expected)
