"""Reading and splitting human feedback for the critic."""

import dataclasses
import json

from absl.testing import parameterized
import pytest

from lift_jax.data import critic_records
from lift_jax.errors import UserError
from tests import hub_server
from tests.data import feedback


class _FolderTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path
    (tmp_path / 'videos').mkdir()

  def write(self, name, prompts, prefix='', answer='Good. It is fine.'):
    """A file that asks all three questions about a clip of each prompt."""
    entries = []
    for prompt in prompts:
      video = f'videos/{prefix}{prompt}.mp4'
      (self.root / video).write_bytes(f'{prefix}{prompt}'.encode())
      entries += [
        feedback.entry(video, f'A {prompt}.', dimension, answer)
        for dimension in feedback.QUESTIONS
      ]
    (self.root / name).write_text(json.dumps(entries))

  def config(self, **changes):
    return feedback.config(self.root, **changes)

  def read(self, **changes):
    return critic_records.read_critic_records(self.config(**changes))

  def assert_error(self, call, *words):
    with self.assertRaises(UserError) as raised:
      call()
    message = str(raised.exception)
    self.assertLen(message.splitlines(), 1)
    for word in words:
      self.assertIn(word, message)


class ReadTest(_FolderTest):
  def test_all_trains(self):
    self.write('hra.json', ['cat', 'dog'])
    self.write('real.json', ['bird'])
    records = self.read(real=('real.json',))
    self.assertLen(records.splits['train'], 9)
    self.assertEqual(records.splits['validation'], [])
    self.assertEqual(records.splits['test'], [])
    self.assertEqual(
      [records.is_real(record) for record in records.splits['train']],
      [False] * 6 + [True] * 3,
    )
    self.assertEqual(
      records.splits['train'][0].path, self.root / 'videos/cat.mp4'
    )

  def test_data_set_of_the_hub(self):
    self.write('hra.json', ['cat', 'dog'])
    self.write('real.json', ['bird'])
    self.write('other.json', ['not read'])
    expected = self.read(real=('real.json',))
    with (
      hub_server.serve() as server,
      hub_server.use(server.url, self.root / 'hub'),
    ):
      server.add_folder('datasets/org/data', self.root)
      config = self.config(real=('real.json',))
      records = critic_records.read_critic_records(
        dataclasses.replace(config, root='org/data')
      )
    self.assertEqual(
      *(
        [(r.video, r.caption, r.label) for r in one.splits['train']]
        for one in (records, expected)
      )
    )
    for record in records.splits['train']:
      self.assertEqual(
        (records.root / record.video).read_bytes(),
        (self.root / record.video).read_bytes(),
      )
    self.assertEqual(
      server.downloads(),
      ['hra.json', 'real.json', 'videos/bird.mp4', 'videos/cat.mp4',
       'videos/dog.mp4'],
    )  # fmt: skip

  def test_split(self):
    """Real clips of a prompt go with the others of that prompt."""
    prompts = [f'number {index}' for index in range(30)]
    self.write('hra.json', prompts)
    self.write('real.json', prompts[::3], prefix='real_')
    records = self.read(
      real=('real.json',), split=feedback.split(validation=0.3, test=0.3)
    )
    parts = records.splits
    self.assertEqual(sum(map(len, parts.values())), 120)
    captions = {name: {r.caption for r in parts[name]} for name in parts}
    for name in captions:
      self.assertNotEmpty(captions[name])
      for other in captions:
        if name != other:
          self.assertEmpty(captions[name] & captions[other])

  def test_held_out(self):
    self.write('hra.json', ['cat', 'dog'])
    self.write('test.json', ['bird', 'bee'])
    parts = self.read(held_out=('test.json',)).splits
    self.assertEqual({r.file for r in parts['train']}, {'hra.json'})
    self.assertEqual({r.file for r in parts['test']}, {'test.json'})
    self.assertLen(parts['test'], 6)

  def test_held_out_shares_a_caption(self):
    self.write('hra.json', ['cat', 'dog'])
    self.write('test.json', ['bird', 'dog'], prefix='other_')
    self.assert_error(
      lambda: self.read(held_out=('test.json',)),
      'test.json record 3 (videos/other_dog.mp4) is in test',
      'shares the caption "a dog."',
      'hra.json record 3 (videos/dog.mp4) in train',
    )

  def test_held_out_is_a_copy(self):
    self.write('hra.json', ['cat', 'dog'])
    self.write('test.json', ['bird', 'bee'])
    content = (self.root / 'videos/cat.mp4').read_bytes()
    (self.root / 'videos/bee.mp4').write_bytes(content)
    held_out = {'held_out': ('test.json',)}
    self.read(**held_out)
    self.assert_error(
      lambda: self.read(**held_out, split=feedback.split(by_content=True)),
      'the content of videos/bee.mp4',
      'videos/cat.mp4',
    )

  def test_questions_from_a_file(self):
    self.write('hra.json', ['cat'])
    path = self.root / 'prompts.json'
    path.write_text(json.dumps({'questions': feedback.QUESTIONS}))
    (record, *_) = self.read(questions=str(path)).splits['train']
    self.assertEqual(record.caption, 'A cat.')

  def test_missing_video(self):
    self.write('hra.json', ['cat', 'dog', 'bee'])
    (self.root / 'videos/dog.mp4').unlink()
    self.assert_error(self.read, 'hra.json record 3', 'no video file')
    records = self.read(on_bad_record='skip')
    self.assertLen(records.splits['train'], 6)
    self.assertLen(records.skipped, 3)

  def test_file_without_records(self):
    self.write('hra.json', ['cat', 'dog'])
    self.write('real.json', ['bird'])
    (self.root / 'videos/bird.mp4').unlink()
    self.assert_error(
      lambda: self.read(real=('real.json',), on_bad_record='skip'),
      'real.json: no usable record',
    )


class ConfigTest(_FolderTest):
  @parameterized.parameters(
    ({'hra': ()}, 'data.hra'),
    ({'on_bad_record': 'ignore'}, 'data.on_bad_record'),
  )
  def test_refused(self, changes, name):
    self.assert_error(lambda: self.config(**changes), name)

  @parameterized.parameters((-0.1, 0.2), (0.5, 0.5), (float('nan'), 0.0))
  def test_split_refused(self, validation, test):
    self.assert_error(
      lambda: feedback.split(validation=validation, test=test), 'data.split'
    )


class PairTest(_FolderTest):
  @pytest.fixture(autouse=True)
  def _files(self, _folder):
    self.write('hra.json', [f'cat {number}' for number in range(12)])

  def write_pairs(self, *pairs):
    """Of clips of the prompts that these numbers name."""
    items = []
    for number, dimensions in pairs:
      other = f'videos/other {number}.mp4'
      (self.root / other).write_bytes(other.encode())
      items.append(
        {
          'caption': f'A cat {number}.',
          'videos': [f'videos/cat {number}.mp4', other],
          'overall': 'first',
          'dimensions': dimensions,
        }
      )
    (self.root / 'pairs.json').write_text(json.dumps(items))

  def test_parts(self):
    """Pairs follow their captions; each part has its own."""
    split = {'validation': 0.3, 'test': 0.3, 'seed': 0, 'by_content': False}
    settings = {'split': critic_records.SplitConfig(**split)}
    plain = self.read(**settings)
    self.write_pairs(*((number, {'motion': 'same'}) for number in range(12)))
    found = self.read(pairs=('pairs.json',), **settings)
    self.assertEqual(found.splits, plain.splits)
    trained = {record.caption for record in found.splits['train']}
    self.assertEqual({pair.caption for pair in found.pairs['train']}, trained)
    self.assertLess(len(trained), 12)
    # Only the other clip of each pair is not rated yet.
    self.assertEqual(
      {
        (one.video, one.dimension, one.question)
        for one in found.pair_questions['train']
      },
      {
        (pair.videos[1], 'motion', feedback.QUESTIONS['motion'])
        for pair in found.pairs['train']
      },
    )
    for name, part in found.splits.items():
      questions = found.pair_questions[name]
      self.assertLen(questions, len(found.pairs[name]))
      self.assertEqual(found.asked(name), [*part, *questions])
      self.assertFalse(any(map(found.is_real, questions)))

  def test_overall(self):
    """Preferences of all dimensions together need every question."""
    self.write_pairs((0, {}))
    found = critic_records.read_critic_records(
      self.config(pairs=('pairs.json',)), compare_overall=True
    )
    (pair,) = found.pairs['train']
    self.assertEqual(
      [(one.video, one.question) for one in found.pair_questions['train']],
      [(pair.videos[1], text) for text in found.questions.values()],
    )

  def test_dimensions_without_a_question(self):
    self.write_pairs((0, {'taste': 'first', 'motion': 'first'}))
    questions = self.read(pairs=('pairs.json',)).pair_questions['train']
    self.assertEqual([one.dimension for one in questions], ['motion'])
    self.write_pairs((0, {'taste': 'first'}), (1, {}))
    self.assert_error(
      lambda: self.read(pairs=('pairs.json',)),
      'pairs.json record 0', 'semantic, motion, fidelity', 'add "dimensions"',
    )  # fmt: skip

  def test_caption_of_the_test_set(self):
    self.write('test.json', ['dog'])
    self.write_pairs((0, {'motion': 'first'}))
    (item,) = json.loads((self.root / 'pairs.json').read_text())
    item['caption'] = 'A dog.'
    (self.root / 'pairs.json').write_text(json.dumps([item]))
    self.assert_error(
      lambda: self.read(pairs=('pairs.json',), held_out=('test.json',)),
      'test.json record 0', 'in test', 'in train', 'pairs.json record 0',
    )  # fmt: skip
