"""Training examples of a critic: frames, tokens and answers; bad clips."""

import fractions

from absl.testing import parameterized
import numpy as np

from lift_jax import config_lib
from lift_jax.data import critic_examples
from tests.data import clips, critic_clips


class ExampleTest(critic_clips.PipelineTest):
  def test_all_differ(self):
    """Or else `numbers` would not tell them apart."""
    self.assertLen({tuple(e.tokens) for e in self.examples}, 22)

  def test_frames(self):
    for example in self.examples:
      frames = (critic_clips.HRA_FRAMES | critic_clips.REAL_FRAMES)[
        example.path.stem
      ]
      self.assertLen(example.selection.indices, min(frames, 8))
      self.assertEqual(
        np.sum(example.tokens == critic_clips.IMAGE),
        critic_clips.TOKENS_PER_FRAME * min(frames, 8),
      )
      self.assertEqual(
        example.is_real, example.path.stem in critic_clips.REAL_FRAMES
      )

  @parameterized.parameters(
    (True, ('Good. It is fine.', 'Bad. It is not.', 'Normal.', 'Bad.')),
    (False, ('Good.', 'Bad.', 'Normal.', 'Bad.')),
  )
  def test_answers(self, with_rationale, wanted):
    examples = self.make(with_rationale=with_rationale)
    for example, answer in zip(examples, wanted, strict=False):
      target = example.tokens[example.is_target]
      self.assertEqual(bytes((target[:-1] - 10).tolist()).decode(), answer)

  def test_length(self):
    """Positions of eight frames, and the smallest bucket that fits."""
    images = 8 * critic_clips.TOKENS_PER_FRAME
    for example in self.examples:
      longest = images + 160
      wanted = longest if len(example.tokens) <= longest else images + 320
      self.assertEqual(example.length, wanted)
    self.assertLen({example.length for example in self.examples}, 2)

  def test_fits_to_the_token(self):
    num_text_tokens = (
      max(len(e.tokens) for e in self.examples)
      - 8 * critic_clips.TOKENS_PER_FRAME
    )
    self.make(text_buckets=(num_text_tokens,))
    self.assert_error(
      lambda: self.make(text_buckets=(num_text_tokens - 1,)),
      'hra.json record 0 (videos/a.mp4)',
      '1 more than the longest sequence',
      'data.text_buckets by 1',
    )

  def test_skip(self):
    broken = self.root / 'videos/c.mp4'
    content = broken.read_bytes()
    try:
      broken.write_bytes(b'no video')
      self.assert_error(self.make, 'hra.json record 6', 'videos/c.mp4')
      self.assertLen(self.make(on_bad_record='skip'), 19)
    finally:
      broken.write_bytes(content)

  def test_nothing_is_left(self):
    self.assert_error(
      lambda: self.make(on_bad_record='skip', text_buckets=(8,)),
      'no record is left',
      'hra.json record 0',
    )


class ConfigTest(critic_clips.PipelineTest):
  @parameterized.parameters(
    ({'hra': ()}, 'data.hra'),
    ({'label_weight': 'inverse'}, 'data.label_weight'),
    ({'real_share': 0.0}, 'data.real_share'),
    ({'real_share': 1.0}, 'data.real_share'),
    ({'text_buckets': ()}, 'data.text_buckets'),
    ({'text_buckets': (64, 0)}, 'data.text_buckets'),
    ({'num_threads': 0}, 'data.num_threads'),
  )
  def test_refused(self, changes, name):
    self.assert_error(lambda: self.config(**changes), name)

  def test_from_a_section(self):
    section = {
      'root': '', 'hra': ['a.json'], 'real': [], 'held_out': [],
      'questions': '', 'on_bad_record': 'skip',
      'follow_links': 'hub',
      'split': {
        'validation': 0.1, 'test': 0.1, 'seed': 1, 'by_content': False
      },
      'real_share': None, 'with_rationale': True, 'label_weight': 'none',
      'text_buckets': [128, 256], 'num_threads': 4,
    }  # fmt: skip
    config = config_lib.resolve(section, critic_examples.CriticDataConfig)
    self.assertEqual(config.text_buckets, (128, 256))
    self.assertAlmostEqual(config.split.fractions['train'], 0.8)

  def test_skip_flagged(self):
    """Although bad records are errors."""
    clip = self.root / 'videos/c.mp4'
    content = clip.read_bytes()
    num_records = len(self.make())
    try:
      clips.write_open_gop(clip)
      examples = self.make()
      self.assertLen(examples, num_records)
      flagged = {e.record.video for e in examples if e.clip.flags}
      self.assertEqual(flagged, {'videos/c.mp4'})
      rest = self.make(skip_flagged=('undecodable frames',))
      self.assertEqual(
        [e.record for e in rest],
        [e.record for e in examples if not e.clip.flags],
      )
      self.assert_error(
        lambda: self.make(max_undecodable=0.01), 'videos/c.mp4', 'max_undecod'
      )
    finally:
      clip.write_bytes(content)

  def test_edit_list(self):
    """The prompt has positions for the frames that are shown."""
    clip = self.root / 'videos/c.mp4'
    content = clip.read_bytes()
    try:
      clips.write_encoded(clip, clips.moving_square(50, 24, 32))
      clips.shorten_edit(clip, fractions.Fraction(5, 50))
      example = next(e for e in self.make() if e.path == clip)
      self.assertLen(example.selection.indices, 5)
      decoded = critic_examples.decode_selected(
        clip, example.clip, example.selection, critic_clips.FRAMES, 'x'
      )
      self.assertEqual(clips.frame_numbers(decoded.frames), list(range(5)))
    finally:
      clip.write_bytes(content)
