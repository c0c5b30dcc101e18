"""Records and prompts as users bring them: the rows of docs/inputs.md."""

from collections.abc import Callable
import json
import logging
import pathlib
import unicodedata

from absl.testing import parameterized
import pytest

from lift_jax.data import (
  clip_checks,
  critic_examples,
  critic_records,
  example_reader,
  hra,
  prompts,
  records,
)
from lift_jax.data.critic_prompts import find_prompts
from lift_jax.errors import UserError
from lift_jax.evaluation import scores
from lift_jax.scoring import videos
from tests import doc_tables
from tests.data import clip_paths_test, critic_clips, feedback

LOGGER = logging.getLogger('record_inputs_test')
NFC = unicodedata.normalize('NFC', 'Zoë.mp4')
NFD = unicodedata.normalize('NFD', NFC)


class Inputs:
  """A data root with clips a, b and c, and ways to read files there."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder.resolve()
    self.root = self.folder / 'root'
    for name in 'abc':
      clip_paths_test.write(self.root / f'{name}.mp4')

  def write(self, content, name: str = 'records.json') -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    (self.root / name).write_text(text, encoding='utf-8')
    return name

  def alignment(self, content, name='records.json', root=None, **settings):
    """What `lift prepare` and `lift align` read."""
    files = [str(self.root / self.write(content, name))]
    found = records.read_alignment(root or self.root, files, **settings)
    return found.records

  def feedback(self, content, name='records.json', **settings):
    """What `lift train_critic` and `lift evaluate` read."""
    files = [self.write(content, name)]
    return hra.read_hra(
      self.root, files, feedback.QUESTIONS, **settings
    ).records

  def videos(self, content, name='records.json'):
    """What `lift score` reads."""
    files = [self.write(content, name)]
    return videos.read_videos(self.root, files, 'error').records

  def scores(self, content, name='records.json'):
    """What `lift evaluate` reads, too."""
    files = [str(self.root / self.write(content, name))]
    return scores.read_scores(self.root, files).records

  def prompts(self, content, name='records.json'):
    """What `lift sample` reads."""
    path = self.root / self.write(content, name)
    return prompts.read_prompts(path, 'caption')[0]


def item(video: object = 'a.mp4', caption: str = 'a crane', **more):
  return {'video': str(video), 'caption': caption, 'score': 0.5} | more


ITEMS = [item(f'{name}.mp4', f'caption {name}') for name in 'abc']


def lines(items, **options) -> str:
  return '\n'.join(json.dumps(one, **options) for one in items)


def pairs(*dimensions: str, video='a.mp4', caption='A crane.'):
  """An entry with a pair of turns for each dimension."""
  turns = []
  for dimension in dimensions:
    turns += feedback.entry('', caption, dimension, 'Good. Yes.')[
      'conversations'
    ]
  return {'video': video, 'conversations': turns}


def alone(entry):
  """The entry, whose later questions come without tag and caption."""
  for turn in entry['conversations'][2::2]:
    turn['value'] = turn['value'].split('A crane.')[1].strip()
  return entry


def _refused(read: Callable[[], object], *words: str) -> None:
  with pytest.raises(UserError) as raised:
    read()
  message = str(raised.value)
  assert len(message.splitlines()) == 1
  for word in words:
    assert word in message, message


def _same_names(found, wanted='abc') -> None:
  assert [one.video for one in found] == [f'{name}.mp4' for name in wanted]


def _json_lines(inputs: Inputs) -> None:
  for name in ('x.json', 'x.jsonl', 'x.JSONL'):
    found = inputs.alignment(lines(ITEMS), name)
    _same_names(found)
    assert found[2].where == f'{inputs.root / name} line 3 (c.mp4)'
  bad = lines([*ITEMS, item('d.mp4')])
  _refused(lambda: inputs.alignment(bad, 'x.jsonl'), 'x.jsonl line 4: no video')


def _printed_objects(inputs: Inputs) -> None:
  found = inputs.alignment(lines(ITEMS, indent=2))
  _same_names(found)
  assert [one.place for one in found] == ['line 1', 'line 6', 'line 11']


def _data_object(inputs: Inputs) -> None:
  for name in ('x.json', 'x.jsonl'):
    found = inputs.alignment({'version': '1.0', 'data': ITEMS}, name)
    _same_names(found)
    assert found[2].place == 'record 2'


def _one_object(inputs: Inputs) -> None:
  _refused(lambda: inputs.alignment(item()), 'an object, not a list', 'write a')
  _same_names(inputs.alignment(item(), 'x.jsonl'), 'a')


def _link_out(inputs: Inputs) -> None:
  outside = clip_paths_test.write(inputs.folder / 'outside.mp4')
  (inputs.root / 'x.mp4').symlink_to(outside)
  (inputs.root / 'y.mp4').symlink_to('x.mp4')
  for name in ('x.mp4', 'y.mp4', '../outside.mp4'):
    for follow_links in ('hub', 'none'):
      _refused(
        lambda name=name, follow=follow_links: inputs.alignment(
          [item(name)], follow_links=follow
        ),
        'record 0: ',
        'below the',
      )


def _hub(inputs: Inputs) -> None:
  snapshot = clip_paths_test.hub_snapshot(inputs.folder)
  (found,) = inputs.alignment([item('videos/b.mp4')], root=snapshot)
  assert found.path == snapshot.parents[1] / 'blobs' / 'bc0ffee'
  _refused(
    lambda: inputs.alignment(
      [item('a.mp4')], root=snapshot, follow_links='none'
    ),
    "set follow_links to 'hub'",
  )


def _link_within(inputs: Inputs) -> None:
  (inputs.root / 'x.mp4').symlink_to('a.mp4')
  (found,) = inputs.alignment([item('x.mp4')])
  assert found.path == inputs.root / 'a.mp4'


def _absolute(inputs: Inputs) -> None:
  _same_names(inputs.alignment([item(inputs.root / 'b.mp4')]), 'b')
  _same_names(inputs.videos([item(inputs.root / 'b.mp4')]), 'b')


def _absolute_elsewhere(inputs: Inputs) -> None:
  path = clip_paths_test.write(inputs.folder / 'b.mp4')
  _refused(lambda: inputs.alignment([item(path)]), 'absolute', 'below the')


def _unicode_form(inputs: Inputs) -> None:
  for on_disk in (NFC, NFD):
    path = clip_paths_test.write(inputs.root / on_disk)
    for name in (NFC, NFD):
      text = lines([item(name)], ensure_ascii=False)
      (found,) = inputs.alignment(text, 'x.jsonl')
      assert (found.video, found.path) == (NFC, path)
      (rating,) = inputs.feedback([pairs('motion', video=name)])
      assert (rating.video, rating.path) == (NFC, path)
    path.unlink()


def _both_forms(inputs: Inputs) -> None:
  for name in (NFC, NFD):
    clip_paths_test.write(inputs.root / name)
  _refused(lambda: inputs.alignment([item(NFC)]), 'two files', 'rename')


def _several_pairs(inputs: Inputs) -> None:
  whole = [pairs(dimension) for dimension in hra.DIMENSIONS]
  wanted = [(r.question, r.caption) for r in inputs.feedback(whole)]
  for entry in (pairs(*hra.DIMENSIONS), alone(pairs(*hra.DIMENSIONS))):
    found = inputs.feedback([entry])
    assert [(r.question, r.caption) for r in found] == wanted
    assert found[2].where == 'records.json record 0 pair 3 (a.mp4)'


def _pairs_out_of_order(inputs: Inputs) -> None:
  entry = pairs('motion', 'fidelity')
  entry['conversations'].sort(key=lambda turn: turn['from'])
  _refused(lambda: inputs.feedback([entry]), 'do not alternate', 'write each')


def _disagreement(inputs: Inputs) -> None:
  entries = [
    feedback.entry('a.mp4', 'A crane.', 'motion', answer)
    for answer in ('Good.', 'Bad.')
  ]
  _refused(lambda: inputs.feedback(entries), 'record 1', 'record 0', 'settle')


def _half_prompts(inputs: Inputs) -> None:
  for half in ({'template': 'x'}, {'space_before_caption': True}):
    inputs.write({'questions': feedback.QUESTIONS} | half, 'prompts.json')
    _refused(lambda: find_prompts('', [inputs.root]), 'alone; give both')
  inputs.write({'questions': feedback.QUESTIONS}, 'prompts.json')
  assert not find_prompts('', [inputs.root]).space_before_caption


def _score_range(inputs: Inputs) -> None:
  for score in (-0.1, 1.5, float('nan'), '0.5', True, None):
    _refused(lambda s=score: inputs.alignment([item(score=s)]), '"score" is')


def _two_on_a_line(inputs: Inputs) -> None:
  text = ' '.join(json.dumps(one) for one in ITEMS)
  for name in ('x.json', 'x.jsonl'):
    _refused(lambda n=name: inputs.alignment(text, n), 'line 1', 'Extra data')


def _mark(inputs: Inputs) -> None:
  _same_names(inputs.alignment('\ufeff' + json.dumps(ITEMS)))
  _same_names(inputs.alignment('\ufeff' + lines(ITEMS), 'x.jsonl'))


def _key_twice(inputs: Inputs) -> None:
  text = '[{"video": "a.mp4", "video": "b.mp4", "caption": "x"}]'
  _refused(lambda: inputs.alignment(text), 'record 0', 'duplicate key')


def _rated(inputs: Inputs):
  """(examples, their data) of clips, one of which loses its data then."""
  root = inputs.folder / 'rated'
  root.mkdir()
  critic_clips.write(root)
  config = feedback.config(root)
  read = critic_records.read_critic_records(config)
  train = read.splits['train']
  probed = clip_checks.probe_clips(train, 2, 0.0)
  found = critic_examples.make_examples(
    train, read, probed, critic_clips.Tokenizer(), critic_clips.FRAMES, config
  )
  # A probe would see that no frame is left.
  path = root / 'videos/c.mp4'
  path.write_bytes(critic_clips.without_data(path.read_bytes()))
  return found, read


def _bad_clip(inputs: Inputs) -> None:
  """In the check before training; the test of the job has the whole of it."""
  found, read = _rated(inputs)
  checks = clip_checks.ClipChecks(inputs.folder / 'clips.jsonl', False, 2, 0.0)

  def decode(on_bad_record):
    return checks.decode(
      found.records, {}, critic_clips.FRAMES, on_bad_record, LOGGER
    )

  _refused(lambda: decode('error'), 'hra.json record 6 (videos/c.mp4): ')
  left = critic_examples.without(found, decode('skip'), read)
  assert len(left.records) == len(found.records) - 3
  assert [where for where, _ in left.skipped] == [
    f'hra.json record {index} (videos/c.mp4)' for index in (6, 7, 8)
  ]


def _clip_fails_later(inputs: Inputs) -> None:
  found, _ = _rated(inputs)
  examples = found.records
  reported = []

  def read(report):
    reader = example_reader.ExampleReader(
      examples, critic_clips.FRAMES, 2, 0, report
    )
    return reader.read([6])

  ((index, _),) = read(lambda *args: reported.append(args))
  assert examples[index].path != examples[6].path
  ((failed, substitute, _),) = reported
  assert (failed, substitute) == (examples[6], examples[index])
  _refused(lambda: read(None), 'hra.json record 6', "to 'skip'")


# Row of docs/inputs.md: the check of what it says.
CASES: dict[str, Callable[[Inputs], None]] = {
  'a JSON list': lambda inputs: _same_names(inputs.alignment(ITEMS)),
  'JSON lines, in `.jsonl` or `.json`': _json_lines,
  'objects over several lines each, one after another': _printed_objects,
  'an object with the list as `"data"`': _data_object,
  'one object': _one_object,
  'two values on one line': _two_on_a_line,
  'a byte order mark': _mark,
  'a key twice in one object': _key_twice,
  'an absolute path below the root': _absolute,
  'an absolute path elsewhere': _absolute_elsewhere,
  'a link to a file below the root': _link_within,
  'a link from a snapshot of the Hub cache to its `blobs/`': _hub,
  'any other link out of the root, or `..`': _link_out,
  'a name in NFD on disk and NFC in the file, or the reverse': _unicode_form,
  'two clips whose names differ in the Unicode form alone': _both_forms,
  'several question-answer pairs in one HRA entry': _several_pairs,
  'pairs that do not alternate': _pairs_out_of_order,
  'two labels that disagree': _disagreement,
  'a score that is no number from 0 to 1': _score_range,
  '`prompts.json` with only one of `template` and `space_before_caption`': (
    _half_prompts
  ),
  'a rated clip that does not decode': _bad_clip,
  'a rated clip that fails during training': _clip_fails_later,
}


class CasesTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _inputs(self, tmp_path):
    self.inputs = Inputs(tmp_path)

  @pytest.mark.fast
  def test_documented(self):
    table = doc_tables.rows('inputs.md', 'Records and prompts')
    self.assertCountEqual(table, CASES)
    for result in table.values():
      self.assertRegex(result, r'^(read|flagged|refused)')

  @pytest.mark.fast
  @parameterized.parameters(*CASES)
  def test_case(self, name):
    CASES[name](self.inputs)


_FORMS = {
  'list': ('x.json', json.dumps),
  'lines': ('x.jsonl', lines),
  'lines as json': ('x.json', lines),
  'data': ('x.json', lambda items: json.dumps({'data': items})),
}


@pytest.mark.fast
class FormsTest(parameterized.TestCase):
  """Every reader of a list takes every form of it."""

  @pytest.fixture(autouse=True)
  def _inputs(self, tmp_path):
    self.inputs = Inputs(tmp_path)

  def items(self, reader):
    if reader == 'feedback':
      return [
        pairs('motion', video=one['video'], caption=one['caption'])
        for one in ITEMS
      ]
    if reader == 'scores':
      return [one | {'labels': {'motion': 'Good'}} for one in ITEMS]
    return ITEMS

  @parameterized.product(
    reader=('alignment', 'feedback', 'videos', 'scores', 'prompts'),
    form=tuple(_FORMS),
  )
  def test_same(self, reader, form):
    name, dump = _FORMS[form]
    items = self.items(reader)
    read = getattr(self.inputs, reader)
    found = read(dump(items), name)
    captions = [
      one.text if reader == 'prompts' else one.caption for one in found
    ]
    self.assertEqual(captions, [one['caption'] for one in ITEMS])
    place = 'line 3' if 'lines' in form else 'record 2'
    self.assertIn(f'{name} {place}', found[2].where)
    # A bad record is found where it is.
    _refused(lambda: read(dump([*items, 7]), name), f'{name} ', 'a number')
    place = 'line 4' if 'lines' in form else 'record 3'
    _refused(lambda: read(dump([*items, 7]), name), f'{name} {place}: ')
