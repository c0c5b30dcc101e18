"""The TFDS builder: examples equal records and clips."""

import json

from absl.testing import parameterized
import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data.lift_hra import lift_hra_dataset_builder as lift_hra
from lift_jax.data import video
from lift_jax.data.hra import read_hra
from lift_jax.errors import UserError
from lift_jax.models.frames import evenly_spaced_frames
from tests.data import clips, feedback

_FRAMES = {'a': 3, 'b': 12, 'c': 8, 'd': 1}


class LiftHraTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root, self.data_dir = tmp_path / 'root', tmp_path / 'tfds'
    (self.root / 'videos').mkdir(parents=True)
    for number, (name, num_frames) in enumerate(_FRAMES.items()):
      path = self.root / f'videos/{name}.mp4'
      clips.write_clip(path, num_frames, 24, 32 + 2 * number)
    labels = ('Good', 'Normal', 'Bad')
    entries = [
      feedback.entry(
        f'videos/{name}.mp4',
        f'“{name}”.',
        dimension,
        f'{labels[number % 3]}.{" Because." * (number % 2)}',
      )
      for name in 'abc'
      for number, dimension in enumerate(feedback.QUESTIONS)
    ]
    real = [feedback.entry('videos/d.mp4', 'A d.', 'motion', 'Good. It is.')]
    (self.root / 'LiFT-HRA-data.json').write_text(json.dumps(entries))
    (self.root / 'real.json').write_text(json.dumps(real))

  def build(self, config):
    builder = lift_hra.Builder(data_dir=self.data_dir, config=config)
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(manual_dir=self.root)
    )
    return builder

  def wanted(self, record, is_real):
    """A record as TFDS reads it."""
    clip = video.decode(
      self.root / record.video, 8, where='', choose=evenly_spaced_frames
    )
    texts = {
      name: getattr(record, name).encode()
      for name in ('video', 'caption', 'question', 'rationale')
    }
    return texts | {
      'frames': clip.frames,
      'dimension': ('semantic', 'motion', 'fidelity').index(record.dimension),
      'label': ('Good', 'Normal', 'Bad').index(record.label),
      'source': int(is_real),
    }

  def assert_holds(self, examples, records):
    """The examples are of the records, in any order."""

    def key(example):
      return example['video'], example['dimension']

    self.assertLen(examples, len(records))
    by_key = {key(example): example for example in examples}
    for record in records:
      wanted = self.wanted(record, record.file == 'real.json')
      found = by_key[key(wanted)]
      self.assertEqual(sorted(found), sorted(wanted))
      np.testing.assert_array_equal(
        np.stack(found.pop('frames')), wanted.pop('frames')
      )
      self.assertEqual(found, wanted)

  def test_default(self):
    self.build('png')
    source = tfds.data_source(
      'lift_hra/png', split='train', data_dir=self.data_dir
    )
    records = read_hra(self.root, ['LiFT-HRA-data.json']).records
    self.assert_holds([source[i] for i in range(len(source))], records)
    again = grain.MapDataset.source(source).shuffle(seed=0)
    self.assert_holds(list(again), records)

  def test_jpeg(self):
    """Much like the frames, but not the same."""
    source = self.build('jpeg').as_data_source('train')
    example = next(e for e in source if e['video'] == b'videos/b.mp4')
    clip = video.decode(
      self.root / 'videos/b.mp4', 8, where='', choose=evenly_spaced_frames
    )
    error = np.abs(np.stack(example['frames']) - clip.frames.astype(float))
    self.assertGreater(error.mean(), 0)
    self.assertLess(error.mean(), 5)

  def test_splits_and_real_clips(self):
    config = lift_hra.Config(
      name='mine', real=('real.json',), validation=0.4, test=0.3, seed=2
    )
    builder = self.build(config)
    self.assertEqual(
      sorted(builder.info.splits), ['test', 'train', 'validation']
    )
    examples = {n: list(builder.as_data_source(n)) for n in builder.info.splits}
    videos = {n: {e['video'] for e in part} for n, part in examples.items()}
    self.assertLen(set.union(*videos.values()), 4)
    self.assertEqual(sum(map(len, videos.values())), 4)
    files = ['LiFT-HRA-data.json', 'real.json']
    records = read_hra(self.root, files).records
    self.assert_holds(sum(examples.values(), []), records)

  def test_bad_clip(self):
    (self.root / 'videos/b.mp4').write_bytes(b'no video')
    with self.assertRaisesRegex(UserError, r'record 3 \(videos/b.mp4\)'):
      self.build('png')
    self.assertEqual(list(self.data_dir.glob('lift_hra/png/*')), [])

  def test_missing_file(self):
    (self.root / 'LiFT-HRA-data.json').unlink()
    with self.assertRaisesRegex(UserError, 'LiFT-HRA-data.json: no such file'):
      self.build('png')
