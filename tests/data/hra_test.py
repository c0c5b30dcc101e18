"""Human feedback: reading, and error messages."""

import json

from absl.testing import parameterized
import pytest

from lift_jax.data import hra
from lift_jax.errors import UserError
from tests.data.feedback import ALIKE, CAPTIONS, QUESTIONS
from tests.published import OURS, THEIRS, require

pytestmark = pytest.mark.fast

PROMPTS = 'critic_prompts.json'
VIDGEN = 'vidgen-data.json'


def _entry(
  caption=CAPTIONS[0],
  dimension='motion',
  answer='Good. It moves well.',
  video='videos/a.mp4',
):
  return {
    'video': video,
    'conversations': [
      {
        'from': 'human',
        'value': f'<video>\n {caption}{QUESTIONS[dimension]}',
      },
      {'from': 'gpt', 'value': answer},
    ],
  }


def _entries():
  return [
    _entry(caption, dimension, video=f'videos/{name}.mp4')
    for name, caption in zip('abcd', CAPTIONS, strict=True)
    for dimension in hra.DIMENSIONS
  ]


class _FolderTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path
    (self.root / 'videos').mkdir()
    for name in 'abcd':
      (self.root / 'videos' / f'{name}.mp4').write_bytes(b'x')

  def write(self, content, name='hra.json'):
    text = content if isinstance(content, str) else json.dumps(content)
    (self.root / name).write_text(text, encoding='utf-8')

  def read(self, files=('hra.json',), **kwargs):
    return hra.read_hra(self.root, files, **kwargs)

  def assert_error(self, call, *words):
    with self.assertRaises(UserError) as raised:
      call()
    message = str(raised.exception)
    self.assertLen(message.splitlines(), 1)
    for word in words:
      self.assertIn(word, message)


class ReadTest(_FolderTest):
  def test_fields(self):
    self.write(_entries())
    result = self.read()
    self.assertEqual(result.skipped, [])
    self.assertLen(result.records, 12)
    record = result.records[4]
    self.assertEqual(
      record,
      hra.HRARecord(
        'videos/b.mp4',
        (self.root / 'videos/b.mp4').resolve(),
        CAPTIONS[1],
        QUESTIONS['motion'],
        'motion',
        'Good',
        'It moves well.',
        'hra.json',
        'record 4',
      ),
    )
    self.assertEqual(record.where, 'hra.json record 4 (videos/b.mp4)')
    self.assertEqual(
      [record.dimension for record in result.records[:3]],
      list(hra.DIMENSIONS),
    )
    self.assertEqual(
      [record.caption for record in result.records[::3]], list(CAPTIONS)
    )

  @parameterized.parameters(
    ('Good. There are no. Problems. ', 'Good', 'There are no. Problems.'),
    ('Bad', 'Bad', ''),
    ('Normal.', 'Normal', ''),
    (' Normal.Bad hands', 'Normal', 'Bad hands'),
  )
  def test_answer(self, answer, label, rationale):
    entry = _entry(answer=answer, video='videos/d.mp4')
    self.write([*_entries()[:6], entry])
    record = self.read(questions=QUESTIONS).records[-1]
    self.assertEqual((record.label, record.rationale), (label, rationale))

  @parameterized.parameters(
    ({'Good': 2, 'Bad': 1}, {'Good': 2, 'Bad': 1}),
    ({'Bad': 1, 'Normal': 0, 'Good': 1}, {'Good': 1, 'Bad': 1}),
    (None, {}),
  )
  def test_votes(self, votes, expected):
    entry = _entry(answer='Good. Fine.', video='videos/d.mp4')
    if votes is not None:
      entry['conversations'][1]['votes'] = votes
    self.write([*_entries()[:6], entry])
    record = self.read(questions=QUESTIONS).records[-1]
    self.assertEqual(record.votes, expected)
    again = hra.conversation(
      record.video, '', '', record.label, '', record.votes
    )
    self.assertEqual(again['conversations'][1].get('votes', {}), expected)

  @parameterized.parameters(
    ({'Good': 1, 'Bad': 2}, 'the answer is Good, which has not the most'),
    ({'Bad': 2}, 'the answer is Good, which has not the most'),
    ({}, 'the answer is Good, which has not the most'),
    ({'Good': 2, 'good': 1}, "'good' is none of Good, Normal, Bad"),
    ({'Good': 1.5}, 'is 1.5; write a whole number'),
    ({'Good': True}, 'is True; write a whole number'),
    ({'Good': 2, 'Bad': -1}, 'is -1; write a whole number'),
    ([2, 1], 'votes'),
  )
  def test_bad_votes(self, votes, *words):
    entry = _entry(answer='Good. Fine.')
    entry['conversations'][1]['votes'] = votes
    self.write([*_entries()[3:6], entry])
    self.assert_error(
      lambda: self.read(questions=QUESTIONS), 'hra.json record 3', *words
    )

  def test_caption_kept(self):
    caption = 'Zwei  Kraniche\nim "Schilf", ü <video>'
    self.write([*_entries(), _entry(f' {caption}\t', video='videos/b.mp4')])
    self.assertEqual(self.read().records[-1].caption, caption)

  def test_questions_given(self):
    # Nothing to compare with: only one record.
    self.write([_entry()])
    (record,) = self.read(questions=QUESTIONS).records
    self.assertEqual(
      (record.caption, record.dimension),
      (
        CAPTIONS[0],
        'motion',
      ),
    )

  def test_question_within_question(self):
    self.write([_entry()])
    more = {'semantic': ' Judge the motion.', 'fidelity': ' Is it real?'}
    (record,) = self.read(questions=more | QUESTIONS).records
    self.assertEqual(record.caption, CAPTIONS[0])
    (record,) = self.read(questions=QUESTIONS | more).records
    self.assertEqual(record.caption, CAPTIONS[0])

  def test_dimension_given(self):
    questions = dict(
      zip(
        hra.DIMENSIONS,
        (' Was fehlt?', ' Ruckelt es?', ' Ist es echt?'),
        strict=True,
      )
    )
    entry = _entry()
    for index, dimension in enumerate(hra.DIMENSIONS):
      entry['conversations'][0]['value'] = (
        f'<video>\n Ein Kranich.{questions[dimension]} '
      )
      self.write([entry], f'{index}.json')
    records = self.read(['0.json', '1.json', '2.json'], questions=questions)
    self.assertEqual(
      [record.dimension for record in records.records], list(hra.DIMENSIONS)
    )

  def test_emotion_is_no_motion(self):
    # A word of the caption is no dimension, and 'emotion' is not 'motion'.
    entries = _entries()
    for entry in entries:
      turn = entry['conversations'][0]
      turn['value'] = turn['value'].replace('look real', 'show emotion')
    self.write(entries)
    self.assertEqual(self.read().records[2].dimension, 'fidelity')

  def test_questions_found_over_files(self):
    entries = _entries()
    for index, entry in enumerate(entries):
      self.write([entry], f'{index}.json')
    files = [f'{index}.json' for index in range(len(entries))]
    self.assertLen(self.read(files).records, len(entries))

  def test_several_annotators(self):
    again = _entry(answer='Good. Smooth.')
    other = _entry(dimension='fidelity', answer='Bad. Blurred.')
    # The semantic label is about the caption too.
    caption = _entry(CAPTIONS[3], 'semantic', 'Bad. No leaves.')
    self.write([*_entries(), again, caption])
    records = self.read().records
    self.assertLen(records, 14)
    self.assertEqual(records[12].rationale, 'Smooth.')
    self.write([*_entries(), other])
    self.assert_error(
      self.read,
      'hra.json record 12',
      'Bad for the fidelity',
      'hra.json record 2 (videos/a.mp4) says Good',
      'delete one',
    )
    result = self.read(on_bad_record='skip')
    self.assertLen(result.records, 12)
    self.assertLen(result.skipped, 1)

  def test_disagreement_over_captions_and_links(self):
    (self.root / 'more').symlink_to('videos')
    other = _entry(CAPTIONS[3], 'motion', 'Bad. It jerks.', 'more/a.mp4')
    self.write([*_entries(), other])
    self.assert_error(self.read, 'record 12', 'record 1 (videos/a.mp4)')

  def test_without_files(self):
    self.write(
      [entry | {'video': 'videos/gone.mp4'} for entry in _entries()[:6]]
    )
    self.assert_error(self.read, 'hra.json record 0', 'no video file')
    self.assertLen(self.read(require_files=False).records, 6)


def _entry_of_pairs(caption, video, style):
  """An entry with the three pairs of turns of `_entries`.

  Args:
    caption: of the clip.
    video: its path.
    style: how later human turns begin: as the first one ('whole'), without the
      tag ('untagged'), or with the question itself ('alone').
  """
  entry = {'video': video, 'conversations': []}
  for dimension in hra.DIMENSIONS:
    turns = _entry(caption, dimension)['conversations']
    if entry['conversations']:
      whole = turns[0]['value']
      turns[0]['value'] = {
        'whole': whole,
        'untagged': whole.removeprefix('<video>\n '),
        'alone': QUESTIONS[dimension].strip(),
      }[style]
    entry['conversations'] += turns
  return entry


_STYLES = parameterized.parameters('whole', 'untagged', 'alone')


class PairsTest(_FolderTest):
  def entries(self, style, captions=CAPTIONS):
    return [
      _entry_of_pairs(caption, f'videos/{name}.mp4', style)
      for name, caption in zip('abcd', captions, strict=False)
    ]

  def said(self, **kwargs):
    """What records say, apart from where."""
    return [
      (r.video, r.caption, r.question, r.dimension, r.label, r.rationale)
      for r in self.read(**kwargs).records
    ]

  @_STYLES
  def test_same_as_entries_of_their_own(self, style):
    self.write(_entries())
    wanted = self.said()
    self.write(self.entries(style))
    self.assertEqual(self.said(), wanted)
    self.assertEqual(self.said(questions=QUESTIONS), wanted)
    self.assertEqual(
      [record.where for record in self.read().records[3:6]],
      [
        f'hra.json record 1 pair {number} (videos/b.mp4)'
        for number in (1, 2, 3)
      ],
    )

  @_STYLES
  def test_one_entry(self, style):
    """Its questions must be known."""
    self.write(self.entries(style, CAPTIONS[:1]))
    captions = [caption for _, caption, *_ in self.said(questions=QUESTIONS)]
    self.assertEqual(captions, [CAPTIONS[0]] * 3)
    self.assert_error(self.read, 'hra.json record 0 pair 1', 'prompt JSON')

  @_STYLES
  def test_beside_single_pairs(self, style):
    self.write([*_entries()[:9], *self.entries(style)[3:]])
    wanted = self.said()
    self.write([*self.entries(style)[:3], *_entries()[9:]])
    self.assertEqual(self.said(), wanted)

  def test_bad_answer(self):
    """It spoils its own pair alone."""
    entries = self.entries('alone')
    entries[1]['conversations'][3]['value'] = 'Fine.'
    self.write(entries)
    self.assert_error(self.read, 'hra.json record 1 pair 2: ', "'Fine.'")
    result = self.read(on_bad_record='skip')
    self.assertLen(result.records, 11)
    self.assertEqual(result.skipped[0][0], 'hra.json record 1 pair 2')

  def test_other_question(self):
    entries = self.entries('alone')
    entries[1]['conversations'][2]['value'] = 'How is the motion?'
    self.write(entries)
    self.assert_error(
      self.read, 'record 1 pair 2', "' How is the motion?'", 'prompt JSON'
    )

  @parameterized.parameters(
    ([0, 2, 1, 3], 'do not alternate', 'after its question'),
    ([1, 0, 3, 2], 'do not alternate', 'after its question'),
    ([0, 1, 2], '2 human and 1 gpt turns', 'write one answer to each'),
    ([2, 3, 0, 1], 'does not begin with <video>', 'write "<video>'),
  )
  def test_fault(self, order, *words):
    entries = self.entries('alone')
    turns = entries[1]['conversations']
    entries[1]['conversations'] = [turns[index] for index in order]
    self.write(entries)
    self.assert_error(self.read, 'hra.json record 1: ', *words)
    self.assertLen(self.read(on_bad_record='skip').records, 9)


def _turns(*turns):
  return {
    'video': 'videos/a.mp4',
    'conversations': [
      {'from': speaker, 'value': value} for speaker, value in turns
    ],
  }


_HUMAN = ('human', f'<video>\n {CAPTIONS[0]}{QUESTIONS["motion"]}')
_GPT = ('gpt', 'Good. It moves well.')
_BAD_RECORDS = {
  'number': (3, 'a number, not an object', 'write'),
  'no video': ({'conversations': []}, 'no "video"', 'add it'),
  'outside': (_entry(video='../a.mp4'), '".."', 'below the data root'),
  'missing': (_entry(video='videos/x.mp4'), 'no video file', 'put it there'),
  'no turns': ({'video': 'videos/a.mp4'}, 'no "conversations"', 'add'),
  'text turns': (
    {'video': 'videos/a.mp4', 'conversations': 'x'},
    '"conversations" is a string',
    'write a list',
  ),
  'number turn': (
    {'video': 'videos/a.mp4', 'conversations': [3]},
    'a number, not an object',
    '{"from", "value"}',
  ),
  'no human': (_turns(_GPT), 'no human turn', 'write one'),
  'no gpt': (_turns(_HUMAN), 'no gpt turn', 'write one'),
  'two gpt': (_turns(_HUMAN, _GPT, _GPT), '2 gpt turns', 'write one'),
  'null answer': (_turns(_HUMAN, ('gpt', None)), 'gpt turn', 'is null'),
  'empty question': (_turns(('human', ' '), _GPT), 'human turn', 'is empty'),
  'half answer': (
    _turns(_HUMAN, ('gpt', 'Good. \ud800')),
    'the gpt turn',
    'surrogate',
  ),
  'no tag': (
    _turns(('human', 'A crane.' + QUESTIONS['motion']), _GPT),
    'does not begin with <video>',
    'write "<video>',
  ),
  'no caption': (_entry('  '), 'no caption', 'add it'),
  'unknown label': (_entry(answer='Fine. \n'), "'Fine.'", 'write one of Good'),
  'small label': (_entry(answer='good.'), "'good.'", 'write one of Good'),
  'longer label': (_entry(answer='Badly. It jerks'), "'Badly", 'full stop'),
  'no full stop': (_entry(answer='Good it is'), "'Good it is'", 'full stop'),
  'other question': (
    _turns(('human', '<video>\n A crane. How is the motion?'), _GPT),
    "'\\n A crane. How is the motion?' does not end in a question",
    'prompt JSON',
  ),
}


class BadRecordTest(_FolderTest):
  @parameterized.named_parameters(
    (name.replace(' ', '_'), *case) for name, case in _BAD_RECORDS.items()
  )
  def test_fault(self, item, *words):
    self.write([*_entries(), item])
    self.assert_error(self.read, 'hra.json record 12: ', *words)
    result = self.read(on_bad_record='skip')
    self.assertLen(result.records, 12)
    ((where, reason),) = result.skipped
    self.assertEqual(where, 'hra.json record 12')
    for word in words:
      self.assertIn(word, reason)

  def test_duplicate_key(self):
    self.write('[{"video": "videos/a.mp4", "video": "videos/b.mp4"}]')
    self.assert_error(self.read, "duplicate key 'video'", 'keep one')

  def test_unknown_dimension(self):
    text = json.dumps(_entries()).replace('Judge the fidelity', 'Judge that')
    self.write(text)
    self.assert_error(
      self.read,
      'hra.json record 2',
      "Judge that.' names no dimension",
      'prompt JSON',
    )

  def test_two_dimensions(self):
    text = json.dumps(_entries()).replace('the fidelity', 'motion fidelity')
    self.write(text)
    self.assert_error(
      self.read, 'record 2', 'names motion and fidelity', 'prompt JSON'
    )

  def test_other_questions_given(self):
    self.write(_entries())
    questions = dict(zip(hra.DIMENSIONS, ALIKE, strict=True))
    self.assert_error(
      lambda: self.read(questions=questions),
      'hra.json record 0',
      'does not end in a question',
      'prompt JSON',
    )


class BadFileTest(_FolderTest):
  @parameterized.product(
    case=(
      ('[\n {"video": "a"},\n]', 'line 3 column 1', 'comma'),
      ('{"video": "a"}', 'an object, not a list', '"conversations"'),
      ('[]', 'no usable record', 'list at least one'),
      ('[3]', 'a number, not an object', 'write'),
    ),
    on_bad_record=('error', 'skip'),
  )
  def test_content(self, case, on_bad_record):
    text, *words = case
    self.write(text)
    self.assert_error(
      lambda: self.read(on_bad_record=on_bad_record), 'hra.json', *words
    )

  def test_no_list(self):
    self.assert_error(lambda: self.read('hra.json'), 'hra.json', 'give a list')
    self.assert_error(lambda: self.read([]), 'no HRA file', 'list at least')
    self.assert_error(self.read, 'hra.json', 'no such file', 'correct')

  def test_listed_twice(self):
    self.write(_entries())
    self.assert_error(
      lambda: self.read(['hra.json', './hra.json']),
      './hra.json',
      'listed twice (also as hra.json)',
      'list a file once',
    )

  def test_missing_root(self):
    with self.assertRaisesRegex(UserError, 'nowhere: no such folder; set'):
      hra.read_hra(self.root / 'nowhere', ['hra.json'])


class ReadQuestionsTest(_FolderTest):
  def read_questions(self, content):
    self.write(content, 'prompts.json')
    return hra.read_questions(self.root / 'prompts.json')

  @parameterized.parameters(
    [hra.DIMENSIONS],
    [('semantic consistency', 'motion issues', 'fidelity issues')],
    [('Semantic Consistency', 'Motion Smoothness', 'Video Fidelity')],
  )
  def test_names(self, names):
    questions = dict(zip(names, QUESTIONS.values(), strict=True))
    self.assertEqual(
      self.read_questions({'questions': questions, 'notes': []}), QUESTIONS
    )

  @parameterized.parameters(
    ('[]', 'a list, not an object', 'write {"questions"'),
    ('{"questions": 3}', 'a number, not an object', 'write {"questions"'),
    ('{}', 'no "questions"', 'write {"questions"'),
    (
      '{"questions": {"motion": " a", "motion issues": " b"}}',
      "'motion issues' is a second motion question",
      'keep one',
    ),
    ('{"questions": {"motion": "a"}}', '"motion"', 'begin it with one space'),
    ('{"questions": {"motion": "  a"}}', '"motion"', 'begin it with one space'),
    ('{"questions": {"motion": " a "}}', '"motion"', 'end it with none'),
    ('{"questions": {"motion": null}}', '"motion" is null', 'write a string'),
    ('{"questions": {"motion": " \\ud800"}}', '"motion"', 'surrogate'),
    (
      '{"questions": {"motion": " a", "semantic": " a", "fidelity": " b"}}',
      'same question',
      'word them differently',
    ),
    ('{', 'line 1', 'invalid JSON'),
  )
  def test_fault(self, content, *words):
    self.assert_error(
      lambda: self.read_questions(content), 'prompts.json: ', *words
    )

  def test_missing(self):
    self.assert_error(
      lambda: hra.read_questions(self.root / 'gone.json'),
      'gone.json: no such file',
      'correct',
    )


class PublishedFilesTest(parameterized.TestCase):
  @parameterized.parameters(
    (OURS, [5, 4, 10], 14), (THEIRS, [352, 333, 315], 711)
  )
  def test_vidgen(self, root, counts, num_captions):
    require(root)
    questions = hra.read_questions(root / PROMPTS)
    found = hra.read_hra(root, [VIDGEN], require_files=False)
    given = hra.read_hra(root, [VIDGEN], questions, require_files=False)
    self.assertEqual(found, given)
    self.assertEqual(found.skipped, [])
    count = [record.dimension for record in found.records].count
    self.assertEqual([count(name) for name in hra.DIMENSIONS], counts)
    self.assertLen({record.caption for record in found.records}, num_captions)
    self.assertEqual({record.label for record in found.records}, {'Good'})
    for record in found.records:
      question = questions[record.dimension]
      self.assertEqual(record.question, question)
      self.assertNotIn(question[:16], record.caption)

  @parameterized.parameters((OURS, 4), (THEIRS, 12))
  def test_sample(self, root, num_videos):
    require(root)
    questions = hra.read_questions(root / PROMPTS)
    root = root / 'lift_sample'
    found = hra.read_hra(root, ['hra.json'])
    self.assertEqual(found, hra.read_hra(root, ['hra.json'], questions))
    self.assertLen(found.records, 3 * num_videos)
    self.assertLen({record.video for record in found.records}, num_videos)
    rated = json.loads((root / 'alignment.json').read_text())
    self.assertEqual(
      {record.video: record.caption for record in found.records},
      {item['video']: item['caption'] for item in rated},
    )
    # LiFT's reward: the mean over the dimensions, rounded to 2 decimals.
    points = {'Good': 0.9, 'Normal': 0.2, 'Bad': 0.05}
    for item in rated:
      labels = [
        points[record.label]
        for record in found.records
        if record.video == item['video']
      ]
      self.assertEqual(round(sum(labels) / 3, 2), item['score'])
