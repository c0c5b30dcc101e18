"""Prompts: file formats, ids, and error messages."""

import hashlib
import json
import pathlib
import re

from absl.testing import parameterized
import pytest

from lift_jax.data import prompts
from lift_jax.errors import UserError
from tests.published import OURS, THEIRS, require

pytestmark = pytest.mark.fast

REPOSITORY = pathlib.Path(__file__).parents[2]
VBENCH = 'vbench_full_info_opt.json'


def _hash(name, text):
  return hashlib.sha256(f'{name}\n{text}'.encode()).hexdigest()[:16]


def _hra(caption, what):
  return {
    'id': what,
    'video': 'videos/a.mp4',
    'conversations': [
      {'from': 'human', 'value': f'<video>\n {caption} Judge the {what}.'},
      {'from': 'gpt', 'value': 'Good.'},
    ],
  }


def _texts(found):
  return [prompt.text for prompt in found]


class _FolderTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def read(self, content, name='prompts.json', **keys):
    path = self.folder / name
    if isinstance(content, bytes):
      path.write_bytes(content)
    elif isinstance(content, str):
      path.write_text(content, encoding='utf-8')
    elif name.endswith('.jsonl'):
      path.write_text('\n'.join(map(json.dumps, content)))
    else:
      path.write_text(json.dumps(content))
    return prompts.read_prompts(path, **keys)

  def assert_error(self, content, *words, name='prompts.json', **keys):
    with self.assertRaises(UserError) as raised:
      self.read(content, name, **keys)
    message = str(raised.exception)
    self.assertLen(message.splitlines(), 1)
    for word in (str(self.folder / name), *words):
      self.assertIn(word, message)


class LinesTest(_FolderTest):
  def test_lines(self):
    content = '\ufeffA cat.\r\n\r\n  Ein Kranich, ü. \t\n   \nA cat.\nlast'
    found, num_repeated = self.read(content.encode(), 'prompts.TXT')
    path = self.folder / 'prompts.TXT'
    self.assertEqual(
      found[1],
      prompts.Prompt(
        _hash('Ein Kranich, ü.', 'Ein Kranich, ü.'),
        'Ein Kranich, ü.',
        'Ein Kranich, ü.',
        f'{path} line 3',
      ),
    )
    self.assertEqual(_texts(found), ['A cat.', 'Ein Kranich, ü.', 'last'])
    self.assertEqual(num_repeated, 1)

  def test_hash(self):
    # Permanently: other ids would change the names and seeds of earlier clips.
    (prompt,), _ = self.read('A cat.', 'prompts.txt')
    self.assertEqual(prompt.id, '8630565cbb866257')

  @parameterized.parameters(
    (
      '',
      'a file of one prompt per line, but it contains no prompt',
      'write one',
    ),
    ('\ufeff \n\n', 'contains no prompt', 'write one'),
    (b'A cat.\n\xff', 'byte 7 is not UTF-8', 'save the file as UTF-8'),
    (
      'A\0cat.',
      "'A\\x00cat.' contains a control character",
      'delete',
      'line 1',
    ),
  )
  def test_fault(self, content, *words):
    self.assert_error(content, *words, name='prompts.txt')

  @parameterized.parameters('txt', 'jsonl', 'json')
  def test_missing(self, suffix):
    path = self.folder / f'gone.{suffix}'
    for _ in range(2):
      with self.assertRaisesRegex(UserError, 'no such file at.*; correct'):
        prompts.read_prompts(path)
      path.mkdir(exist_ok=True)

  @parameterized.parameters('prompts.csv', 'prompts')
  def test_unknown_suffix(self, name):
    self.assert_error('A cat.', 'give one of .json, .jsonl, .txt', name=name)


_BOTH = parameterized.parameters('prompts.json', 'prompts.jsonl')


class ListsTest(_FolderTest):
  @_BOTH
  def test_texts(self, name):
    found, num_repeated = self.read([' a\n b ', 'c\r\n\n\td', 'e', 'e'], name)
    self.assertEqual(_texts(found), ['a b', 'c d', 'e'])
    self.assertEqual(num_repeated, 1)

  @_BOTH
  def test_objects(self, name):
    found, num_repeated = self.read(
      [
        {'prompt': 'a', 'seed': 3},
        {'caption': 'b', 'prompt_opt': 'c'},
        {'prompt_en': 'd', 'dimension': ['color']},
        'e',
      ],
      name,
    )
    self.assertEqual(_texts(found), ['a', 'b', 'd', 'e'])
    self.assertEqual([prompt.name for prompt in found], ['a', 'b', 'd', 'e'])
    self.assertEqual(num_repeated, 0)

  @_BOTH
  def test_keys(self, name):
    item = {'prompt_en': 'short', 'prompt_opt': 'long', 'file': 'x'}
    for keys, text, called in (
      ({}, 'short', 'short'),
      ({'text_key': 'prompt_opt'}, 'long', 'short'),
      ({'text_key': 'prompt_opt', 'name_key': 'file'}, 'long', 'x'),
      ({'name_key': 'prompt_opt'}, 'short', 'long'),
    ):
      (prompt,), _ = self.read([item], name, **keys)
      self.assertEqual((prompt.text, prompt.name), (text, called))
      self.assertEqual(prompt.id, _hash(called, text))

  @_BOTH
  def test_suite(self, name):
    """Name, number of clips and seed, as `data.suites` writes them."""
    items = [
      {'prompt': 'a', 'name': 'b', 'clips': 25, 'base_seed': 0},
      {'prompt': 'c', 'seed': 9},
    ]
    found, _ = self.read(items, name)
    self.assertEqual(
      [(one.name, one.num_clips, one.seed) for one in found],
      [('b', 25, 0), ('c', None, None)],
    )

  @_BOTH
  def test_id(self, name):
    items = [{'id': id_, 'prompt': 'a'} for id_ in (7, ' x/1 ', 0)]
    found, num_repeated = self.read(items, name)
    self.assertEqual([prompt.id for prompt in found], ['7', 'x/1', '0'])
    self.assertEqual(num_repeated, 0)

  @_BOTH
  def test_same_id(self, name):
    where = {'.json': 'record', '.jsonl': 'line'}[pathlib.Path(name).suffix]
    items = ['z', {'id': 7, 'prompt': 'a'}, {'id': '7', 'prompt': ' a'}]
    found, num_repeated = self.read(items, name)
    self.assertEqual((len(found), num_repeated), (2, 1))
    numbers = {'record': (3, 1), 'line': (4, 2)}[where]
    for other in ({'prompt': 'b'}, {'prompt': 'a', 'prompt_en': 'b'}):
      self.assert_error(
        [*items, {'id': 7} | other],
        f'{name} {where} {numbers[0]}: ',
        "'7'",
        f'{name} {where} {numbers[1]}',
        'its own id',
        name=name,
        text_key='prompt',
      )

  @_BOTH
  def test_order_does_not_matter(self, name):
    items = ['a', {'prompt': 'b'}, {'prompt_en': 'c', 'prompt_opt': 'd'}]
    ids = {prompt.id for prompt in self.read(items, name)[0]}
    self.assertEqual({x.id for x in self.read(items[::-1], name)[0]}, ids)

  @_BOTH
  def test_human_feedback(self, name):
    captions = ['A crane stands.', 'A cat leaps!', 'Rain falls.']
    items = [
      _hra(caption, what)
      for what in ('motion', 'fidelity', 'semantic match')
      for caption in captions
    ]
    # A plain record of the same text is a duplicate.
    found, num_repeated = self.read([*items, 'A cat leaps!'], name)
    self.assertEqual(_texts(found), captions)
    self.assertEqual(num_repeated, 1)
    self.assertEqual(found[1].id, _hash(captions[1], captions[1]))
    self.assert_error(
      [*items, _hra('A tram', 'colour')],
      ' 10: ' if 'l' in name else ' 9: ',
      "Judge the colour.'",
      'list the captions in a .txt file',
      name=name,
    )
    items[4]['conversations'].pop(0)
    self.assert_error(items, 'no human turn', 'write one', name=name)

  @parameterized.named_parameters(
    ('number', 3, 'a number, not an object', 'write a string or an object'),
    ('null', None, 'null, not an object', 'write a string or an object'),
    ('list', ['a'], 'a list, not an object', 'write a string or an object'),
    ('blank', ' \n', 'the prompt is blank', 'fill it in'),
    ('half', 'a\ud800', 'surrogate', 'write it again'),
    ('control', 'a\u001b', 'control character', 'delete'),
    ('null_text', {'prompt': None}, '"prompt" is null', 'write a string'),
    ('blank_text', {'prompt': ' '}, '"prompt" is empty', 'fill it in'),
    ('break_only', {'prompt': '\u2028'}, '"prompt" is empty', 'fill it in'),
    (
      'half_text',
      {'prompt': '\udc00'},
      'the prompt contains an unpaired',
      'again',
    ),
    (
      'half_name',
      {'prompt': 'a', 'prompt_en': '\udc00'},
      'prompts.text_key',
    ),
    (
      'no_key',
      {'text': 'a', 'video': 'b'},
      "no 'prompt' or 'caption' or 'prompt_en'",
      "'text', 'video'",
      'set prompts.text_key',
    ),
    ('no_keys', {}, '(none)', 'set prompts.text_key'),
    (
      'two_keys',
      {'prompt': 'a', 'x': 'b', 'caption': 'a'},
      "'caption', 'prompt' may all be",
      'set prompts.text_key to one',
    ),
    (
      'caption_and_turns',
      {'caption': 'a', 'conversations': []},
      "'caption', 'conversations' may all be",
      'set prompts.text_key to one',
    ),
    ('no_turns', {'conversations': []}, 'no human turn', 'write one'),
    ('true_id', {'prompt': 'a', 'id': True}, '"id" is true', 'omit it'),
    ('null_id', {'prompt': 'a', 'id': None}, '"id" is null', 'omit it'),
    ('float_id', {'prompt': 'a', 'id': 1.5}, '"id" is a number', 'integer'),
    ('no_clips', {'prompt': 'a', 'clips': 0}, '"clips" is 0', 'from 1'),
    (
      'true_clips',
      {'prompt': 'a', 'clips': True},
      '"clips" is True',
      'integer',
    ),
    ('seed', {'prompt': 'a', 'base_seed': -1}, '"base_seed" is -1', 'from 0'),
    ('blank_id', {'prompt': 'a', 'id': ''}, 'the id is blank', 'fill it in'),
    (
      'half_id',
      {'prompt': 'a', 'id': '\ud800'},
      'the id contains an unpaired',
      'again',
    ),
  )
  def test_fault(self, item, *words):
    items = ['fine', item]
    for name, where in (
      ('prompts.json', 'record 1'),
      ('prompts.jsonl', 'line 2'),
    ):
      self.assert_error(items, f'{name} {where}: ', *words, name=name)

  @_BOTH
  def test_missing_key(self, name):
    items = [{'text': 'a', 'file': 'b'}, {'file': 'b', 'more': 'c'}]
    self.assert_error(
      items,
      ' 2: ' if 'l' in name else ' 1: ',
      "no 'text' among the keys 'file', 'more'",
      'set prompts.text_key',
      name=name,
      text_key='text',
    )
    self.assert_error(
      items,
      "no 'text' among the keys",
      'set prompts.name_key',
      name=name,
      text_key='file',
      name_key='text',
    )


class BadJSONTest(_FolderTest):
  @parameterized.parameters(
    ('["a",\n]', 'line 2 column 1: invalid JSON', 'comma'),
    ('{"a": "b"}', 'an object, not a list', 'write a list of strings'),
    ('"a"', 'a string, not a list', 'write a list of strings'),
    (
      '[]',
      'a list of strings or objects, but it contains no prompt',
      'write one',
    ),
    (
      ' \n',
      'a list of strings or objects, but it contains no prompt',
      'write one',
    ),
    ('[' * 100_000, 'line 1: invalid JSON', 'write a list of strings'),
    ('[{"prompt": "a", "prompt": "b"}]', 'record 0', "duplicate key 'prompt'"),
  )
  def test_list(self, content, *words):
    self.assert_error(content, *words)

  @parameterized.parameters(
    ('"a"\n\n{"prompt": "b",}', 'line 3 column 16: invalid JSON', 'comma'),
    ('"a"\nb', 'line 2 column 1: invalid JSON', 'correct it there'),
    ('"a" "b"', 'line 1 column 5: invalid JSON', 'correct it there'),
    ('"a"\n' + '[' * 100_000, 'line 2: invalid JSON', 'write a list'),
    (
      '\n',
      'one string or object per line, but it contains no prompt',
      'write one',
    ),
  )
  def test_lines(self, content, *words):
    self.assert_error(content, *words, name='prompts.jsonl')


class PublishedFilesTest(parameterized.TestCase):
  @parameterized.parameters((OURS, 9, 1), (THEIRS, 944, 2))
  def test_vbench(self, root, num_prompts, repeated):
    # Some prompts are listed twice, under two dimensions.
    require(root)
    found, num_repeated = prompts.read_prompts(root / VBENCH)
    self.assertEqual((len(found), num_repeated), (num_prompts, repeated))
    items = json.loads((root / VBENCH).read_text(encoding='utf-8'))
    self.assertEqual(
      _texts(found), list(dict.fromkeys(item['prompt_en'] for item in items))
    )

  @parameterized.parameters((OURS, 10), (THEIRS, 946))
  def test_vbench_expanded(self, root, num_prompts):
    # Those have been expanded in two ways: one name, two texts.
    require(root)
    found, num_repeated = prompts.read_prompts(root / VBENCH, 'prompt_opt')
    self.assertEqual((len(found), num_repeated), (num_prompts, 0))
    items = json.loads((root / VBENCH).read_text(encoding='utf-8'))
    for prompt, item in zip(found, items, strict=True):
      self.assertEqual(prompt.name, item['prompt_en'])
      self.assertEqual(prompt.text, ' '.join(item['prompt_opt'].splitlines()))
    self.assertLen({prompt.id for prompt in found}, num_prompts)

  @parameterized.parameters(
    (OURS, 'vidgen-data.json', 14, 0),
    (OURS, 'lift_sample/hra.json', 2, 0),
    (OURS, 'lift_sample/alignment.json', 2, 2),
    (THEIRS, 'vidgen-data.json', 711, 0),
    (THEIRS, 'lift_sample/hra.json', 7, 0),
    (THEIRS, 'lift_sample/alignment.json', 7, 5),
  )
  def test_captions(self, root, name, num_prompts, num_repeated):
    require(root)
    found, left_out = prompts.read_prompts(root / name)
    self.assertEqual((len(found), left_out), (num_prompts, num_repeated))
    questions = json.loads((root / 'critic_prompts.json').read_text())
    for question in questions['questions'].values():
      for prompt in found:
        self.assertNotIn(question[:16], prompt.text)

  @parameterized.parameters(OURS, THEIRS)
  def test_captions_agree(self, root):
    require(root)
    feedback, rewards = (
      prompts.read_prompts(root / 'lift_sample' / name)[0]
      for name in ('hra.json', 'alignment.json')
    )
    self.assertEqual(
      [prompt.id for prompt in feedback], [prompt.id for prompt in rewards]
    )


class DemoTest(parameterized.TestCase):
  def test_demo(self):
    found, num_repeated = prompts.read_prompts(
      REPOSITORY / 'data' / 'prompts' / 'demo.txt'
    )
    self.assertEqual((len(found), num_repeated), (8, 0))
    for prompt in found:
      self.assertBetween(len(re.findall(r'\S+', prompt.text)), 12, 40)
