"""Files of pairs that people compared."""

import json

import pytest

from lift_jax.data import json_records, pair_records
from lift_jax.errors import UserError

pytestmark = pytest.mark.fast

_PAIR = {
  'caption': 'a crane',
  'videos': ['videos/a.mp4', 'videos/b.mp4'],
  'overall': 'first',
}
_HEADER = 'path_A,path_B,A_model,prompt,VQ,MQ,TA,Overall\n'


@pytest.fixture
def root(tmp_path):
  (tmp_path / 'videos').mkdir()
  for name in 'abc':
    (tmp_path / 'videos' / f'{name}.mp4').write_bytes(b'x')
  return tmp_path


def read(root, items, name='pairs.json', **settings):
  text = items if isinstance(items, str) else json.dumps(items)
  (root / name).write_text(text, encoding='utf-8')
  return pair_records.read_pairs(root, [name], **settings)


def vote(overall, videos=('a', 'b'), caption='a crane', rater='', **dimensions):
  names = tuple(f'videos/{name}.mp4' for name in videos)
  return pair_records.PairRecord(
    caption, names, names, overall, dimensions, rater, {}, 'x'
  )


def test_fields(root):
  rated = _PAIR | {
    'dimensions': {'motion': 'same', 'semantic': 'second'},
    'rater': 'ana',
    'seconds': 4.5,
  }
  plain, record = read(root, [_PAIR, rated]).records
  assert (plain.dimensions, plain.rater, plain.other) == ({}, '', {})
  assert record == pair_records.PairRecord(
    'a crane',
    ('videos/a.mp4', 'videos/b.mp4'),
    tuple((root / 'videos' / f'{name}.mp4').resolve() for name in 'ab'),
    'first',
    {'motion': 'same', 'semantic': 'second'},
    'ana',
    {'seconds': 4.5},
    'pairs.json record 1 (videos/a.mp4, videos/b.mp4)',
  )
  written = [pair_records.to_json(one) for one in (plain, record)]
  assert json.loads(json.dumps(written)) == [_PAIR, rated]


def test_columns_of_the_benchmark(root):
  rows = (
    'videos/a.mp4,videos/b.mp4,x,"a ""red"" crane, flying",A,B,same,A\n'
    'videos/b.mp4,videos/c.mp4,y,a dog,same,same,B,same\n'
  )
  one, two = read(root, _HEADER + rows, 'bench.csv').records
  assert one.caption == 'a "red" crane, flying'
  assert one.videos == ('videos/a.mp4', 'videos/b.mp4')
  assert (one.overall, two.overall) == ('first', 'same')
  assert one.dimensions == {
    'fidelity': 'first', 'motion': 'second', 'semantic': 'same',
  }  # fmt: skip
  assert two.where == 'bench.csv line 3 (videos/b.mp4, videos/c.mp4)'


_VOTE = {
  'prompt': 'a crane',
  'left_model': 'x',
  'left_video': 'https://example.org/videos/a.mp4',
  'right_video': 'videos/b.mp4',
  'vote_type': 'leftvote',
}


@pytest.mark.parametrize(
  'vote, overall, both',
  [
    ('leftvote', 'first', ''),
    ('rightvote', 'second', ''),
    ('tievote', 'same', 'good'),
    ('bothbad_vote', 'same', 'bad'),
  ],
)
def test_votes_of_the_benchmark(root, vote, overall, both):
  """GenAI-Bench's votes as JSON and as CSV."""
  item = _VOTE | {'vote_type': vote}
  text = '\n'.join(','.join(line) for line in (item.keys(), item.values()))
  for record in (
    *read(root, [item]).records, *read(root, text, 'votes.csv').records
  ):  # fmt: skip
    assert record.videos == ('videos/a.mp4', 'videos/b.mp4')
    assert (record.overall, record.both) == (overall, both)
    assert record.caption == 'a crane'


def test_bad_votes(root):
  with pytest.raises(UserError, match="record 0: .*'neither'; write one of"):
    read(root, [_VOTE | {'vote_type': 'neither'}])
  with pytest.raises(UserError, match='no column left_video, right_video'):
    read(root, 'prompt,vote_type\n', 'votes.csv')


def test_both(root):
  record = _PAIR | {'overall': 'same', 'both': 'good'}
  (found,) = read(root, [record]).records
  assert pair_records.to_json(found) == record
  with pytest.raises(UserError, match='"both" is \'good\' of a pair that is'):
    read(root, [_PAIR | {'both': 'good'}])


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'overall': 'left'}, '"overall" is \'left\'; write one of first, same,'),
    ({'dimensions': {'motion': 1}}, '"dimensions": motion is 1; write one of'),
    ({'dimensions': 'same'}, 'a string, not an object; write "dimensions" as'),
    ({'videos': ['videos/a.mp4']}, '"videos" is not a list of two paths'),
    ({'videos': ['videos/a.mp4'] * 2}, "has 'videos/a.mp4' twice; name two"),
    ({'videos': ['videos/a.mp4', 'd.mp4']}, "no video file 'd.mp4' below"),
    ({'caption': ' '}, '"caption" is empty'),
    ({'rater': 3}, '"rater" is a number; write a string'),
  ],
)
def test_bad_records(root, changes, message):
  with pytest.raises(UserError) as raised:
    read(root, [_PAIR, _PAIR | changes])
  text = str(raised.value)
  assert text.startswith('pairs.json record 1: ') and message in text
  assert len(text.splitlines()) == 1
  found = read(root, [_PAIR, _PAIR | changes], on_bad_record='skip')
  assert len(found.records) == len(found.skipped) == 1


@pytest.mark.parametrize('key', _PAIR)
def test_missing_keys(root, key):
  item = {name: value for name, value in _PAIR.items() if name != key}
  with pytest.raises(UserError, match=f'record 0: no "{key}"; '):
    read(root, [item])


def test_bad_csv(root):
  with pytest.raises(UserError, match=r'no column prompt, Overall; a \.csv'):
    read(root, 'path_A,path_B\n', 'a.csv')
  row = 'videos/a.mp4,videos/b.mp4,x,a dog,A,A,A,C\n'
  with pytest.raises(UserError, match='b.csv line 2: "overall" is \'C\''):
    read(root, _HEADER + row, 'b.csv')
  with pytest.raises(UserError, match='line 2: "caption" is null'):
    read(root, _HEADER + 'videos/a.mp4,videos/b.mp4\n', 'c.csv')
  with pytest.raises(UserError, match='no usable record'):
    read(root, _HEADER, 'd.csv')


def test_a_rater_compares_a_pair_once(root):
  one = _PAIR | {'rater': 'ana'}
  other = one | {'videos': one['videos'][::-1], 'caption': 'A  crane'}
  with pytest.raises(UserError, match="'ana' compares this pair in pairs.json"):
    read(root, [one, other])
  assert len(read(root, [one, one | {'rater': 'bo'}, _PAIR]).records) == 3


def test_files_are_a_list(root):
  with pytest.raises(UserError, match='give a list of files'):
    pair_records.read_pairs(root, 'pairs.json')


def test_settle():
  votes = [
    vote('first', rater='ana', motion='first'),
    vote('second', ('b', 'a'), rater='bo', motion='first'),
    vote('same', rater='cy', semantic='second'),
    vote('second', ('c', 'a')),
    vote('first', ('a', 'b'), caption='another'),
    vote('second', ('a', 'b'), caption='another'),
  ]
  settled = pair_records.settle(votes)
  assert [(one.videos[0], one.overall) for one in settled] == [
    ('videos/a.mp4', 'first'),
    ('videos/c.mp4', 'second'),
    ('videos/a.mp4', 'same'),
  ]
  assert settled[0].dimensions == {'motion': 'same', 'semantic': 'second'}
  assert settled[0].rater == ''
  assert settled[1] is votes[3]


def test_clips_to_download():
  assert list(json_records._clip_names(_PAIR)) == _PAIR['videos']
