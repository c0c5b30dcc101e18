"""Rating with a critic that is simple arithmetic: its inputs, the journal."""

import collections
import dataclasses
import fractions
import json
import logging
import pathlib
import shutil
import threading
import types
from unittest import mock

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data import video as video_lib
from lift_jax.data.critic_prompts import CriticPrompts
from lift_jax.data.hra import DIMENSIONS, LABELS
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from lift_jax.models.critic_tokens import label_ids
from lift_jax.models.frames import evenly_spaced_frames, resize_bicubic
from lift_jax.models.vila import tiny_tokenizer
from lift_jax.models.vila.backbone import VilaFrames
from lift_jax.models.vila.tokenizer import IMAGE_TOKEN, PromptTokenizer
from lift_jax.runtime.journal import Journal
from lift_jax.runtime.storage import file_signature
from lift_jax.scoring import rater as job_lib
from lift_jax.scoring.config import (
  ScoringPromptsConfig,
  ScoringRunConfig,
  VideosConfig,
)
from lift_jax.scoring.rater import Rater
from lift_jax.scoring.scorer import Ratings
from lift_jax.scoring.videos import CaptionedVideo, key_of
from tests.data import clips
from tests.data.feedback import QUESTIONS
from tests.models.selections import first_frames

SIZE = 20  # height and width of what the critic sees
TOKENS_PER_FRAME = 2
SETTINGS = {'critic': '0123456789abcdef', 'made_by': {'template': 'vicuna_v1'}}
SOME_TEXT = 'It is.'


class FakeScorer:
  """A critic whose ratings depend on its input and on the batch slot.

  So a video rated in a wrong slot, or with frames or text of another video, is
  detected.

  Attributes:
    calls: (frames, prompts, max_answer_tokens) of each batch.
    first: the token that all answers begin with; None for a label.
    change: of the ratings of a batch, if any.
    before: called before each batch.
  """

  def __init__(self, tokenizer: PromptTokenizer):
    self._tokenizer = tokenizer
    self._labels = list(label_ids(tokenizer).values())
    self.calls = []
    self.first = None
    self.change = lambda ratings: ratings
    self.before = lambda: None

  def __call__(self, frames_bthw3, prompts, max_answer_tokens) -> Ratings:
    self.before()
    self.calls.append((frames_bthw3, prompts, max_answer_tokens))
    slots = [self._slot(*each) for each in enumerate(zip(
      frames_bthw3, prompts.prefix_bn, prompts.question_bqm, strict=True
    ))]  # fmt: skip
    probabilities_bql = np.stack(slots)
    first_bq = np.array(self._labels)[probabilities_bql.argmax(axis=-1)]
    if self.first is not None:
      first_bq[:] = self.first
    answer_bqa = None
    if max_answer_tokens:
      answer_bqa = np.full((*first_bq.shape, max_answer_tokens), 7, np.int32)
      rest = self._tokenizer.training(
        'x', ' y', first_frames(0), f'Good. {SOME_TEXT}'
      )[0]
      rest = rest[rest.index(label_ids(self._tokenizer)['Good']) + 1 :]
      answer_bqa[:, :, 0] = first_bq
      answer_bqa[:, :, 1 : 1 + len(rest)] = rest
    return self.change(
      Ratings(
        probabilities_bql, np.full(first_bq.shape, 0.75), first_bq, answer_bqa
      )
    )

  @staticmethod
  def _slot(slot, seen) -> np.ndarray:
    frames_thw3, prefix_n, question_qm = seen
    rng = np.random.default_rng((slot, int(frames_thw3.sum()), *(
      int(ids.sum()) + 300_000 for ids in (prefix_n, question_qm)
    )))  # fmt: skip
    return rng.dirichlet(np.ones(3), 3).astype(np.float32)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory) -> PromptTokenizer:
  folder = tmp_path_factory.mktemp('tokenizer')
  tiny_tokenizer.write(folder)
  return PromptTokenizer(folder, 'vicuna_v1', TOKENS_PER_FRAME, max_length=400)


@pytest.fixture(scope='module')
def some_clips(tmp_path_factory) -> pathlib.Path:
  """A folder with nine ordinary clips."""
  folder = tmp_path_factory.mktemp('clips')
  for number in range(9):
    clips.write_clip(folder / f'{number}.mp4', 9, 16, 32, seed=number)
  return folder


class _JobTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path, tokenizer, some_clips, caplog):
    self.root, self.tokenizer, self.clips = tmp_path, tokenizer, some_clips
    caplog.set_level(logging.INFO)
    self.caplog = caplog
    self.scorer = FakeScorer(tokenizer)
    self.num_done, self.num_skipped = 0, 0
    self.is_stopped = types.SimpleNamespace(received=False, name='SIGTERM')
    self.on_bad_record, self.skip_flagged = 'error', ()

  def videos(self, count=9) -> list[CaptionedVideo]:
    return [
      self.video(self.clips / f'{number}.mp4', f'caption {number}', number)
      for number in range(count)
    ]

  def video(self, path, caption='a thing', index=0) -> CaptionedVideo:
    return CaptionedVideo(
      path.name, path, caption, 'test.json', f'record {index}'
    )

  def journal(self, name='ratings', host=0) -> Journal:
    return Journal(
      self.root / f'{name}.jsonl',
      lambda line: key_of(line['video'], line['caption']),
      host,
    )

  def rate(
    self,
    videos,
    done=(),
    journal=None,
    batch=2,
    buckets=(160,),
    answer=0,
    read_ahead=1,
    num_readers=2,
  ) -> Rater:
    """Rates videos in batches of 2 * batch."""
    rater = Rater(
      lambda: self.scorer,
      2,
      self.tokenizer,
      label_ids(self.tokenizer),
      CriticPrompts(QUESTIONS, True),
      SETTINGS,
      VilaFrames(8, SIZE, TOKENS_PER_FRAME),
      ScoringPromptsConfig('', buckets, answer),
      ScoringRunConfig(batch, num_readers, read_ahead),
      VideosConfig(
        root='',
        files=(),
        on_bad_record=self.on_bad_record,
        follow_links='none',
        skip_flagged=self.skip_flagged,
      ),
    )
    with journal or self.journal() as open_journal:
      self.is_done = rater.run(
        videos,
        dict(done) if isinstance(done, dict) else dict.fromkeys(done, ()),
        open_journal,
        self.is_stopped,
        types.SimpleNamespace(update=self.count, skip=self.count_skipped),
        logging.getLogger('job_test'),
      )
    return rater

  def count(self, units) -> None:
    self.num_done += units

  def count_skipped(self, units) -> None:
    self.num_skipped += units

  def lines(self, name='ratings') -> list[dict]:
    """In the order of writing."""
    text = (self.root / f'{name}.jsonl').read_text()
    return [json.loads(line) for line in text.splitlines()]

  def assert_refused(self, videos, *words, **settings):
    with self.assertRaises(UserError) as caught:
      self.rate(videos, **settings)
    text = str(caught.exception)
    self.assertLen(text.splitlines(), 1)
    for word in words:
      self.assertIn(word, text)


class LineTest(_JobTest):
  def test_whole(self):
    (video,) = videos = self.videos(1)
    rater = self.rate(videos)
    (line,) = self.lines()
    ((frames, prompts, _),) = self.scorer.calls
    probabilities_ql = self.scorer._slot(
      0, (frames[0], prompts.prefix_bn[0], prompts.question_bqm[0])
    )
    labels = [LABELS[index] for index in probabilities_ql.argmax(axis=1)]
    self.assertEqual(
      line,
      {
        'video': '0.mp4',
        'caption': 'caption 0',
        'stamp': list(file_signature(video.path)),
        **SETTINGS,
        'shape': [16, 176, 48],
        'flags': [],
        'probabilities': {
          dimension: dict(zip(LABELS, map(float, row), strict=True))
          for dimension, row in zip(DIMENSIONS, probabilities_ql, strict=True)
        },
        'label_mass': dict.fromkeys(DIMENSIONS, 0.75),
        'labels': dict(zip(DIMENSIONS, labels, strict=True)),
        'answers': {
          dimension: f'{label}.'
          for dimension, label in zip(DIMENSIONS, labels, strict=True)
        },
      },
    )
    self.assertEqual((rater.num_rated, self.num_done), (1, 1))

  def test_what_the_critic_sees(self):
    videos = self.videos(2)
    self.rate(videos)
    ((frames, prompts, _),) = self.scorer.calls
    for row, video in enumerate(videos):
      clip = video_lib.decode(
        video.path, 8, where='', choose=evenly_spaced_frames
      )
      np.testing.assert_array_equal(
        frames[row], resize_bicubic(clip.frames, SIZE)
      )
      for number, dimension in enumerate(DIMENSIONS):
        prefix_n = prompts.prefix_bn[row, : prompts.prefix_length_b[row]]
        length = prompts.question_length_bq[row, number]
        question_m = prompts.question_bqm[row, number, :length]
        self.assertEqual(
          [*prefix_n, *question_m],
          self.tokenizer.inference(
            video.caption,
            QUESTIONS[dimension],
            first_frames(8),
            space_before_caption=True,
          ),
        )

  def test_answers(self):
    """Up to the stop token; the fake continues after it."""
    self.rate(self.videos(3), answer=30)
    self.assertEqual({call[2] for call in self.scorer.calls}, {30})
    said = set()
    for line in self.lines():
      for dimension, label in line['labels'].items():
        self.assertEqual(line['answers'][dimension], f'{label}. {SOME_TEXT}')
        said.add(label)
    self.assertGreater(len(said), 1)

  @parameterized.parameters(0, 30)
  def test_no_label(self, answer):
    """The error names the beginning of the answer; no label is guessed."""
    (self.scorer.first,) = set(self.tokenizer._encode('Well')[:1])
    word = self.tokenizer.decode([self.scorer.first])
    self.rate(self.videos(2), answer=answer)
    for line in self.lines():
      self.assertIn('the answer', line['error'])
      self.assertIn(repr(word)[:-1], line['error'])
      self.assertIn('Good, Normal, Bad', line['error'])
      self.assertLen(line['error'].splitlines(), 1)
      self.assertNotIn('labels', line)
      self.assertIn('probabilities', line)

  def test_one_answer_without_label(self):
    (word, *_) = self.tokenizer._encode('Well')

    def change(ratings):
      ratings.first_bq[1, 2] = word
      return ratings

    self.scorer.change = change
    self.rate(self.videos(4))
    self.assertEqual(['error' in line for line in self.lines()],
                     [False, True, False, False])  # fmt: skip

  @parameterized.parameters((0.51, []), (0.49, ['low label mass']))
  def test_label_mass(self, mass, flags):
    def change(ratings):
      ratings.mass_bq[0, 1] = mass
      return ratings

    self.scorer.change = change
    self.rate(self.videos(2))
    first, second = self.lines()
    self.assertEqual((first['flags'], second['flags']), (flags, []))
    self.assertNotIn('error', first)

  @parameterized.product(
    value=(np.nan, np.inf), on_bad_record=('error', 'skip')
  )
  def test_not_finite(self, value, on_bad_record):
    def change(ratings):
      ratings.probabilities_bql[1, 0, 2] = value
      return ratings

    self.scorer.change = change
    self.on_bad_record = on_bad_record
    self.assert_refused(
      self.videos(4), 'test.json record 1 (1.mp4)', 'not finite', 'float32'
    )
    self.assertEqual([line['video'] for line in self.lines()], ['0.mp4'])


def still(value=None, num_frames=9) -> np.ndarray:
  """Frames that are all alike: of one level, or of soft colours."""
  frame_hw3 = np.full((32, 64, 3), value or 0, np.uint8)
  if value is None:
    down = np.linspace(30, 220, 32)[:, None, None]
    right = np.linspace(-30, 30, 64)[:, None] * [1, -1, 0.5]
    frame_hw3 = np.uint8(down + right)
  return np.broadcast_to(frame_hw3, (num_frames, 32, 64, 3))


class OddClipTest(_JobTest):
  def rate_frames(self, frames_thw3):
    """The line of a clip, and the frames that the critic saw."""
    path = self.root / 'clip.mp4'
    write_mp4(path, frames_thw3)
    self.rate([self.video(path)])
    (line,) = self.lines()
    self.assertLen(line['labels'], 3)
    self.assertNotIn('error', line)
    ((frames, prompts, _),) = self.scorer.calls
    num_images = np.sum(prompts.prefix_bn[0] == IMAGE_TOKEN)
    return line['flags'], frames[0], num_images // TOKENS_PER_FRAME

  @parameterized.parameters(
    (1, 1, ['single frame']),
    (5, 5, ['5 frames']),
    (7, 7, ['7 frames']),
    (8, 8, []),
    (23, 8, []),
  )
  def test_length(self, num_frames, num_seen, expected):
    """A prompt has positions only for existing frames."""
    moving = clips.moving_square(num_frames, 32, 64)
    flags, frames, num_images = self.rate_frames(moving)
    self.assertEqual((flags, num_images), (expected, num_seen))
    self.assertTrue((frames[:num_seen] > 30).any(axis=(1, 2, 3)).all())
    self.assertFalse(frames[num_seen:].any())

  @parameterized.parameters(
    (lambda: still(0), ['black']),
    (lambda: still(0, 1), ['single frame', 'black']),
    (lambda: still(0, 3), ['3 frames', 'black']),
    (lambda: still(120), ['static']),
    (still, ['static']),
    (lambda: still(num_frames=1), ['single frame']),
    (lambda: still(num_frames=4), ['4 frames', 'static']),
  )
  def test_nothing_moves(self, frames, expected):
    """Also after a lossy codec, which does not repeat a picture exactly."""
    flags, _, _ = self.rate_frames(frames())
    self.assertEqual(flags, expected)

  def test_little_moves(self):
    frames = still().copy()
    frames[8:, 10:14, 20:24] += 60
    flags, _, _ = self.rate_frames(frames)
    self.assertEqual(flags, [])


class BadClipTest(_JobTest):
  def spoil(self, kind) -> pathlib.Path:
    path = self.root / 'bad.mp4'
    whole = (self.clips / '3.mp4').read_bytes()
    if kind == 'text':
      path.write_text('no video')
    elif kind == 'empty':
      path.write_bytes(b'')
    elif kind == 'cut':
      # With its index in front, so that it states all its frames.
      clips.write_clip(path, 9, 16, 32, faststart=True)
      path.write_bytes(path.read_bytes()[:-300])
    elif kind == 'damaged':
      middle = len(whole) // 2
      path.write_bytes(whole[:middle] + bytes(60) + whole[middle + 60 :])
    return path

  def bad_videos(self, kind) -> list[CaptionedVideo]:
    """One of them cannot be used."""
    videos = self.videos(6)
    videos[3] = self.video(self.spoil(kind), 'a thing', 3)
    return videos

  @parameterized.parameters('text', 'empty', 'cut', 'damaged', 'missing')
  def test_one_line(self, kind):
    self.assert_refused(
      self.bad_videos(kind), 'test.json record 3 (bad.mp4)', 'delete the record'
    )

  @parameterized.parameters('text', 'cut')
  def test_skipped(self, kind):
    self.on_bad_record = 'skip'
    videos = self.bad_videos(kind)
    rater = self.rate(videos)
    by_video = {line['video']: line for line in self.lines()}
    self.assertLen(by_video, 6)
    bad = by_video.pop('bad.mp4')
    self.assertEqual(bad.keys(), {'video', 'caption', 'stamp', 'error',
                                  *SETTINGS})  # fmt: skip
    self.assertIn('test.json record 3 (bad.mp4)', bad['error'])
    for line in by_video.values():
      self.assertLen(line['labels'], 3)
    self.assertEqual(
      (rater.num_rated, self.num_done, self.num_skipped), (5, 5, 1)
    )

  def test_overwritten_meanwhile(self):
    """What was rated is the clip of before: it is rated again."""
    path = self.root / '0.mp4'
    shutil.copy(self.clips / '0.mp4', path)
    before = file_signature(path)

    read_frames = job_lib.read_frames

    def read_and_overwrite(*args):
      read = read_frames(*args)
      clips.write_clip(path, 9, 16, 32, seed=7)
      return read

    with mock.patch.object(job_lib, 'read_frames', read_and_overwrite):
      self.rate([self.video(path)])
    (line,) = self.lines()
    self.assertEqual(tuple(line['stamp']), before)
    self.assertNotEqual(file_signature(path), before)

  def test_nothing_but_bad_clips(self):
    """The critic is not even loaded."""
    self.on_bad_record = 'skip'
    with mock.patch.object(self, 'scorer', None):
      self.rate([self.video(self.spoil('cut'))])
    self.assertLen(self.lines(), 1)

  def test_flagged(self):
    """Rated, unless the rules leave it out: then as a bad one is."""
    path = self.root / 'bad.mp4'
    clips.write_encoded(
      path,
      clips.moving_square(9, 16, 32),
      options={'flags': '+ilme+ildct', 'x264-params': 'interlaced=1'},
    )
    videos = [*self.videos(2), self.video(path, index=2)]
    self.rate(videos)
    flags = {line['video']: line['flags'] for line in self.lines()}
    self.assertEqual(
      flags, {'0.mp4': [], '1.mp4': [], 'bad.mp4': ['interlaced']}
    )
    self.skip_flagged = ('interlaced',)
    journal = self.journal('skipping')
    self.rate(videos, journal=journal)
    lines = {line['video']: line for line in journal.read().values()}
    self.assertEqual(
      lines['bad.mp4']['error'],
      'test.json record 2 (bad.mp4): flagged interlaced; see skip_flagged',
    )
    self.assertIn('labels', lines['1.mp4'])

  def test_edit_list(self):
    """The prompt has positions for the frames that are shown."""
    path = self.root / 'edited.mp4'
    clips.write_encoded(path, clips.moving_square(50, 16, 32))
    clips.shorten_edit(path, fractions.Fraction(5, 50))
    self.rate([self.video(path)])
    (line,) = self.lines()
    self.assertEqual(line['flags'], ['5 frames'])

  def test_states_other_frames(self):
    """The prompt would have positions for missing frames."""
    probe = video_lib.probe

    def probe_half(*args, **kwargs):
      clip = probe(*args, **kwargs)
      return dataclasses.replace(clip, num_frames=clip.num_frames // 2)

    with mock.patch.object(video_lib, 'probe', probe_half):
      self.assert_refused(
        self.videos(2), 'test.json record 0 (0.mp4)', 'has 9 frames, not as'
      )

  @parameterized.parameters(
    ('word ' * 200, 'the caption takes', 'text_buckets (160)'),
    ('a </s> b', "contains '</s>'"),
    ('an <image> of', "contains '<image>'"),
  )
  def test_bad_caption(self, caption, *words):
    videos = self.videos(3)
    videos[1] = self.video(self.clips / '1.mp4', caption, 1)
    # The model itself would read it.
    with mock.patch.object(self.tokenizer, 'max_length', 10_000):
      self.assert_refused(videos, 'test.json record 1 (1.mp4)', *words)
      self.on_bad_record = 'skip'
      self.rate(videos)
    (bad,) = (line for line in self.lines() if 'error' in line)
    for word in words:
      self.assertIn(word, bad['error'])
    self.assertLen(self.lines(), 3)

  def test_no_room_for_answers(self):
    """Told before the critic is loaded."""
    with mock.patch.object(self, 'scorer', None):
      self.assert_refused(
        self.videos(2),
        'max_answer_tokens = 300',
        'the critic reads 400',
        answer=300,
      )

  def test_full_disk(self):
    (self.root / '.ratings-1.jsonl').symlink_to('/dev/full')
    threads = set(threading.enumerate())
    self.assert_refused(
      self.videos(5),
      'ratings.jsonl cannot be written (No space left',
      'make room',
      journal=self.journal(host=1),
    )
    self.assertEmpty(set(threading.enumerate()) - threads)


class BatchTest(_JobTest):
  def shapes(self) -> list[tuple]:
    return [
      (frames.shape[0], prompts.prefix_bn.shape[1], prompts.question_bqm.shape)
      for frames, prompts, _ in self.scorer.calls
    ]

  def test_full_batches_of_one_length(self):
    """Two programs, whatever the number of videos."""
    videos = self.videos()
    for index in (1, 4, 5):
      caption = f'a caption of more words, the number of which is {index}'
      videos[index] = self.video(videos[index].path, caption, index)
    self.rate(videos, buckets=(144, 90))
    images = 8 * TOKENS_PER_FRAME
    self.assertEqual(
      [shape[:2] for shape in self.shapes()],
      [(4, images + 90), (4, images + 90), (4, images + 144)],
    )
    ((_, num_questions, places),) = {shape[2] for shape in self.shapes()}
    self.assertEqual((num_questions, places % 16), (3, 0))
    counts = collections.Counter(line['video'] for line in self.lines())
    self.assertEqual(counts, {video.video: 1 for video in videos})

  def test_nothing_to_do(self):
    """Not even the clips are opened."""
    videos = [self.video(self.root / 'gone.mp4')]
    with mock.patch.object(self, 'scorer', None):
      self.rate(videos, done=[videos[0].key])
      self.rate([])
    self.assertEqual((self.lines(), self.num_done), ([], 0))

  @parameterized.parameters(([0],), ([3, 5],), ([0, 1, 2, 3, 8],), ([4, 6, 7],))
  def test_slots_are_kept(self, finished):
    """Two runs give bitwise the same ratings as one."""
    videos = self.videos()
    self.rate(videos)
    whole = {line['video']: line for line in self.lines()}
    self.scorer.calls.clear()
    self.rate(
      videos,
      done=[videos[index].key for index in finished],
      journal=self.journal('again'),
    )
    again = {line['video']: line for line in self.lines('again')}
    self.assertEqual(
      again.keys(),
      {video.video for video in videos} - {f'{i}.mp4' for i in finished},
    )
    for name, line in again.items():
      self.assertEqual(line, whole[name])
    self.assertEqual({shape[0] for shape in self.shapes()}, {4})

  def opened(self) -> list[str]:
    """The clips that are opened from now on; use it while they are rated."""
    opened, probe = [], video_lib.probe

    def count(path, **settings):
      opened.append(path.name)
      return probe(path, **settings)

    self.enter_context(mock.patch.object(video_lib, 'probe', count))
    return opened

  def test_opens_so_far_ahead(self):
    """The first batch does not wait for clips of later ones."""
    opened, ahead = self.opened(), []
    self.scorer.before = lambda: ahead.append(len(opened))
    self.rate(self.videos(), batch=1, num_readers=2)
    self.assertLen(opened, 9)
    # Its own two, two that are decoded, and the next two or three.
    self.assertLessEqual(ahead[0], 7)

  def test_done_clips_are_not_opened(self):
    """Their shapes are in the journal; the others keep their slots."""
    videos = self.videos()
    self.rate(videos)
    whole = {line['video']: line for line in self.lines()}
    done = {
      video.key: tuple(whole[video.video]['shape'])
      for video in (videos[0], videos[5])
    }
    opened = self.opened()
    self.rate(videos, done=done, journal=self.journal('again'))
    self.assertCountEqual(opened, [f'{n}.mp4' for n in (1, 2, 3, 4, 6, 7, 8)])
    for line in self.lines('again'):
      self.assertEqual(line, whole[line['video']])

  def test_bad_clip_moves_no_other(self):
    """Whether it is there or has been noted already."""
    self.on_bad_record = 'skip'
    videos = self.videos()
    spoilt = self.root / '2.mp4'
    shutil.copy(videos[2].path, spoilt)
    spoilt.write_bytes(spoilt.read_bytes()[:-300])
    videos[2] = self.video(spoilt, 'caption 2', 2)
    self.rate(videos)
    whole = {line['video']: line for line in self.lines()}
    for done in ([videos[0]], [videos[0], videos[2]]):
      journal = self.journal(f'again {len(done)}')
      self.rate(videos, done=[video.key for video in done], journal=journal)
      lines = self.lines(f'again {len(done)}')
      self.assertLen(lines, 9 - len(done))
      for line in lines:
        self.assertEqual(line, whole[line['video']])

  def test_stop(self):
    """At once, but for the batch at work."""
    calls = iter(range(9))

    def before():
      self.is_stopped.received = next(calls) == 1

    self.scorer.before = before
    rater = self.rate(self.videos(), batch=1)
    self.assertLen(self.lines(), 4)
    self.assertEqual(rater.num_rated, 4)
    self.assertFalse(self.is_done)
    self.assertIn('SIGTERM', self.caplog.text)

  @parameterized.parameters(1, 3)
  def test_reads_so_far_ahead(self, read_ahead):
    """Never all of them: there may be tens of thousands."""
    read, begun, ahead = job_lib.read_frames, [], []

    def count(task, *args):
      begun.append(task.video.key)
      return read(task, *args)

    self.scorer.before = lambda: ahead.append(len(begun))
    with mock.patch.object(job_lib, 'read_frames', count):
      self.rate(self.videos(), batch=1, read_ahead=read_ahead, num_readers=4)
    self.assertLen(begun, 9)
    for number, count in enumerate(ahead):
      self.assertBetween(count, 2 * number + 1, 2 * (number + read_ahead + 1))

  def test_error_ends_the_threads(self):
    threads = set(threading.enumerate())

    def before():
      raise KeyError

    self.scorer.before = before
    with self.assertRaises(KeyError):
      self.rate(self.videos())
    self.assertEmpty(set(threading.enumerate()) - threads)
