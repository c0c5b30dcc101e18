"""Means over an interval, and the files they go to."""

import io
import json
import struct
from unittest import mock

from absl.testing import parameterized
import numpy as np
from PIL import Image
import pytest
from tensorboardX.proto.event_pb2 import Event

from lift_jax.training import metrics
from tests.data import clips

pytestmark = pytest.mark.fast


class SummarizeTest(parameterized.TestCase):
  def test_maxima(self):
    """Of no example at all there is none."""
    none = {'max/logit_max': -np.inf}
    steps = [none, {'max/logit_max': 2.0}, {'max/logit_max': 1.0}]
    self.assertEqual(metrics.summarize(steps), {'logit_max': 2.0})
    self.assertEqual(metrics.summarize([none]), {})

  def test_means(self):
    steps = [
      {'loss': 1.0, 'sum/loss/real': 6.0, 'count/loss/real': 3,
       'sum/loss/reward_to_0.1': 0.0, 'count/loss/reward_to_0.1': 0},
      {'loss': 2.0, 'sum/loss/real': 2.0, 'count/loss/real': 1,
       'sum/loss/reward_to_0.1': 0.0, 'count/loss/reward_to_0.1': 0},
    ]  # fmt: skip
    # Over samples, not over steps; and nothing of a kind that did not occur.
    self.assertEqual(metrics.summarize(steps), {'loss': 1.5, 'loss/real': 2.0})


class WriterTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path
    self.path = tmp_path / 'metrics.jsonl'

  def writer(self, resume_step=0, enabled=True):
    return metrics.MetricWriter(
      self.folder, enabled=enabled, wandb_project='', resume_step=resume_step
    )

  def lines(self):
    return [json.loads(line) for line in self.path.read_text().splitlines()]

  def test_lines(self):
    with self.writer() as writer:
      for step in (1, 2):
        writer.write(step, {'loss': step / 2})
        self.assertLen(self.lines(), step)  # a killed run leaves whole lines
    self.assertEqual(
      self.lines(), [{'step': 1, 'loss': 0.5}, {'step': 2, 'loss': 1.0}]
    )
    self.assertLen(list((self.folder / 'tensorboard').iterdir()), 1)

  def events(self):
    """What TensorBoard would read: length, its CRC, event, its CRC."""
    (path,) = (self.folder / 'tensorboard').iterdir()
    data = path.read_bytes()
    events, offset = [], 0
    while offset < len(data):
      (length,) = struct.unpack_from('<Q', data, offset)
      offset += 12
      events.append(Event.FromString(data[offset : offset + length]))
      offset += length + 4
    return events

  def test_videos(self):
    videos = {
      'samples/a cat': clips.moving_square(9, 24, 40),
      'samples/a dog': clips.moving_square(5, 32, 32, seed=1),
    }
    with self.writer() as writer:
      writer.write_videos(7, videos, fps=8)
    images = [
      (event.step, value.tag, value.image)
      for event in self.events()
      for value in event.summary.value
    ]
    self.assertEqual([tag for _, tag, _ in images], list(videos))
    for step, tag, summary in images:
      num_frames, height, width, _ = videos[tag].shape
      self.assertEqual(step, 7)
      self.assertEqual(
        (summary.height, summary.width, summary.colorspace), (height, width, 3)
      )
      with Image.open(io.BytesIO(summary.encoded_image_string)) as image:
        self.assertEqual(image.format, 'GIF')
        self.assertEqual(image.n_frames, num_frames)
        self.assertEqual(image.size, (width, height))
        for index in range(num_frames):
          image.seek(index)
          frame_hw3 = np.asarray(image.convert('RGB')).astype(int)
          error = np.abs(frame_hw3 - videos[tag][index])
          self.assertLessEqual(error.max(), 2)

  def test_videos_to_wandb(self):
    wandb = mock.Mock()
    with (
      mock.patch.dict('sys.modules', wandb=wandb),
      metrics.MetricWriter(
        self.folder, enabled=True, wandb_project='lift', resume_step=0
      ) as writer,
    ):
      writer.write_videos(7, {'a': clips.moving_square(3, 16, 16)}, fps=8)
    wandb.init.return_value.log.assert_called_once_with(
      {'a': wandb.Video.return_value}, step=7
    )
    (data,), options = wandb.Video.call_args
    self.assertEqual(options, {'format': 'gif'})
    with Image.open(data) as image:
      self.assertEqual(image.n_frames, 3)

  def test_resumed(self):
    """Lines after the checkpoint go; so does a torn one."""
    with self.writer() as writer:
      for step in range(1, 6):
        writer.write(step, {'loss': np.float32(step).item()})
    with self.path.open('a') as file:
      file.write('{"step": 2, "lo')
    with self.writer(resume_step=3) as writer:
      writer.write(4, {'loss': 0.0})
    self.assertEqual([line['step'] for line in self.lines()], [1, 2, 3, 4])
    self.assertEqual(self.lines()[-1]['loss'], 0.0)

  def test_killed_while_resuming(self):
    with self.writer() as writer:
      writer.write(1, {'loss': 1.0})
    before = self.path.read_text()
    with (
      mock.patch('os.replace', side_effect=KeyboardInterrupt),
      self.assertRaises(KeyboardInterrupt),
    ):
      self.writer(resume_step=1)
    self.assertEqual(self.path.read_text(), before)

  def test_other_hosts_write_nothing(self):
    with self.writer(enabled=False) as writer:
      writer.write(1, {'loss': 1.0})
      writer.write_videos(1, {'a': np.zeros((1, 8, 8, 3), np.uint8)}, fps=8)
    self.assertEqual(list(self.folder.iterdir()), [])
