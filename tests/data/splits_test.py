"""Splits: connected records, stability, and rejected input."""

import dataclasses
import pathlib
import random
from unittest import mock

from absl.testing import parameterized
import pytest

from lift_jax.data import clip_paths, splits
from lift_jax.errors import UserError

_HALVES = {'train': 0.5, 'test': 0.5}


@dataclasses.dataclass(frozen=True)
class _Record:
  video: str
  caption: str
  index: int = 0
  root: pathlib.Path = pathlib.Path('/none')

  @property
  def path(self) -> pathlib.Path:
    return (self.root / self.video).resolve()

  @property
  def where(self) -> str:
    return f'a.json record {self.index} ({self.video})'


def _records(num_prompts, clips_per_prompt=2, questions=3):
  return [
    _Record(f'videos/{prompt}_{clip}.mp4', f'Prompt {prompt}.', index)
    for index, (prompt, clip, _) in enumerate(
      (prompt, clip, question)
      for prompt in range(num_prompts)
      for clip in range(clips_per_prompt)
      for question in range(questions)
    )
  ]


class SplitTest(parameterized.TestCase):
  def sides(self, records, fractions=None, seed=0, **kwargs):
    """The part of each record."""
    parts = splits.split_records(records, fractions or _HALVES, seed, **kwargs)
    sides = {r: name for name, part in parts.items() for r in part}
    self.assertLen(sides, len(records))
    for part in parts.values():
      self.assertEqual(part, [r for r in records if r in set(part)])
    return sides

  def test_nothing_leaks(self):
    records = _records(40)
    parts = splits.split_records(records, _HALVES, 0)
    splits.check_disjoint(parts)
    self.assertLen(parts['train'] + parts['test'], len(records))

  @parameterized.parameters(0, 1, 2)
  def test_fractions(self, seed):
    fractions = {'train': 0.7, 'validation': 0.2, 'test': 0.1}
    parts = splits.split_records(_records(2000, 1, 1), fractions, seed)
    for name, fraction in fractions.items():
      # Four standard deviations of a binomial of 2000 are at most 0.045.
      self.assertAlmostEqual(len(parts[name]) / 2000, fraction, delta=0.045)

  def test_fraction_of_nothing(self):
    parts = splits.split_records(_records(3), {'train': 1.0, 'test': 0.0}, 0)
    self.assertEqual(parts, {'train': _records(3), 'test': []})

  def test_seed(self):
    records = _records(40)
    self.assertEqual(self.sides(records), self.sides(records))
    self.assertNotEqual(self.sides(records), self.sides(records, seed=1))

  def test_known_sides(self):
    """Published results depend on a split, so it may never change."""
    records = _records(12, 1, 1)
    sides = self.sides(records, seed=7)
    self.assertEqual(''.join(sides[r][1] for r in records), 'errerrreeerr')

  def test_part_is_divided_again(self):
    """With the same seed: hashes of a part cover the full range again."""
    fractions = {'train': 0.8, 'test': 0.2}
    part = splits.split_records(_records(500, 1, 1), fractions, 0)['test']
    again = splits.split_records(
      part, {'evaluated': 0.8, 'calibration': 0.2}, 0
    )
    self.assertBetween(len(again['calibration']) / len(part), 0.1, 0.35)

  def test_captions_normalised(self):
    variants = [
      _Record(f'{index}.mp4', caption)
      for index, caption in enumerate(
        ('A  Crane\n flies.', 'a crane flies.', ' A CRANE FLIES. ')
      )
    ]
    for seed in range(20):
      sides = self.sides(variants + _records(20), seed=seed)
      self.assertLen({sides[record] for record in variants}, 1)

  def test_chain(self):
    """a and d share nothing, but are connected through b and c."""
    chain = [
      _Record('a.mp4', 'One.'),
      _Record('b.mp4', 'One.'),
      _Record('b.mp4', 'Two.'),
      _Record('d.mp4', 'Two.'),
    ]
    for seed in range(20):
      records = chain + _records(20)
      random.Random(seed).shuffle(records)
      sides = self.sides(records, seed=seed)
      self.assertLen({sides[record] for record in chain}, 1)

  def test_stays_when_others_are_added(self):
    """More clips of the same prompts and more prompts, in another order."""
    few, many = _records(20), _records(60, clips_per_prompt=4)
    by_name = {
      (r.video, r.caption): side for r, side in self.sides(many[::-1]).items()
    }
    for record, side in self.sides(few).items():
      self.assertEqual(by_name[record.video, record.caption], side)

  @parameterized.parameters(
    {'train': 0.5, 'test': 0.4},
    {'train': 1.5, 'test': -0.5},
    {'train': float('nan'), 'test': 0.5},
  )
  def test_bad_fractions(self, **fractions):
    with self.assertRaisesRegex(UserError, 'add up to 1'):
      splits.split_records(_records(4), fractions, 0)

  def test_part_gets_nothing(self):
    with self.assertRaisesRegex(UserError, 'of 1 groups .* falls into t'):
      splits.split_records(_records(1), _HALVES, 0)


class FilesTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path
    (tmp_path / 'a.mp4').write_bytes(b'one')
    (tmp_path / 'copy.mp4').write_bytes(b'one')
    (tmp_path / 'other.mp4').write_bytes(b'two')
    (tmp_path / 'link.mp4').symlink_to(tmp_path / 'a.mp4')

  def named(self, *videos):
    return {
      f'set {index}': [_Record(video, f'Caption {index}.', index, self.root)]
      for index, video in enumerate(videos)
    }

  def test_link(self):
    named = self.named('a.mp4', 'link.mp4')
    splits.check_disjoint(named)
    with self.assertRaisesRegex(UserError, 'shares the video link.mp4 with'):
      splits.check_disjoint(named, by_file=True)

  def test_copy(self):
    named = self.named('a.mp4', 'copy.mp4')
    splits.check_disjoint(named, by_file=True)
    with self.assertRaisesRegex(UserError, 'the content of copy.mp4 with'):
      splits.check_disjoint(named, by_file=True, by_content=True)
    splits.check_disjoint(
      self.named('a.mp4', 'other.mp4'), by_file=True, by_content=True
    )

  def test_split_by_content(self):
    same = sum(self.named('a.mp4', 'copy.mp4', 'link.mp4').values(), [])
    for index in range(6):
      (self.root / f'{index}.mp4').write_bytes(b'%d' % index)
    others = [
      _Record(f'{index}.mp4', f'Other {index}.', index, self.root)
      for index in range(6)
    ]
    is_apart = False
    for seed in range(8):
      parts = splits.split_records(
        same + others, _HALVES, seed, by_file=True, by_content=True
      )
      self.assertIn(len([r for r in parts['test'] if r in same]), (0, 3))
      by_name = splits.split_records(same + others, _HALVES, seed)
      is_apart |= len([r for r in by_name['test'] if r in same]) in (1, 2)
    self.assertTrue(is_apart)

  def test_missing_file(self):
    """Its content equals no other."""
    named = self.named('gone.mp4', 'lost.mp4', 'a.mp4')
    splits.check_disjoint(named, by_file=True, by_content=True)

  def test_unreadable_file(self):
    with (
      mock.patch.object(
        clip_paths, 'file_sha256', side_effect=PermissionError(13, 'Denied')
      ),
      self.assertRaisesRegex(
        UserError, r'^a.json record 0 \(a.mp4\): .* \(Denied\); restore it'
      ),
    ):
      splits.check_disjoint(self.named('a.mp4'), by_file=True, by_content=True)

  def test_content_needs_files(self):
    with self.assertRaisesRegex(ValueError, 'by_file'):
      splits.check_disjoint(self.named('a.mp4'), by_content=True)


class DisjointTest(parameterized.TestCase):
  def assert_leak(self, named, *words):
    with self.assertRaises(UserError) as raised:
      splits.check_disjoint(named)
    message = str(raised.exception)
    self.assertLen(message.splitlines(), 1)
    for word in words:
      self.assertIn(word, message)

  def test_video(self):
    self.assert_leak(
      {
        'train': [_Record('a.mp4', 'One.', 3)],
        'test': [_Record('b.mp4', 'Two.', 4), _Record('a.mp4', 'Three.', 5)],
      },
      'a.json record 5 (a.mp4) is in test and shares the video a.mp4',
      'a.json record 3 (a.mp4) in train',
    )

  def test_caption(self):
    self.assert_leak(
      {
        'train': [_Record('a.mp4', 'One  crane.', 3)],
        'validation': [],
        'test': [_Record('b.mp4', 'one crane.', 4)],
      },
      'a.json record 4 (b.mp4) is in test',
      'shares the caption "one crane."',
    )

  def test_long_caption(self):
    self.assert_leak(
      {
        'train': [_Record('a.mp4', 'word ' * 99)],
        'test': [_Record('b.mp4', 'word ' * 99)],
      },
      'word ..." with',
    )

  def test_within_one_set(self):
    splits.check_disjoint({'train': _records(2), 'test': []})
