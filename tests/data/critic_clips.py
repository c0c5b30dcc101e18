"""A small data set of rated clips, and a base class for tests on its examples.

Clips are `tests.data.clips`, whose frames encode their indices; the tokenizer
gives each byte of a text its own id.
"""

import collections
import itertools
import json
import os
import pathlib

from absl.testing import parameterized
import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from lift_jax.data import (
  clip_checks,
  critic_examples,
  critic_pipeline,
  critic_records,
  example_reader,
)
from lift_jax.errors import UserError
from lift_jax.models.vila.backbone import VilaFrames
from tests.data import clips, feedback

SIZE = 16
BATCH = 4
UNIFORM = collections.defaultdict(lambda: BATCH)
IMAGE = -200
TOKENS_PER_FRAME = 2
PAD = 3
# Frames of the generated clips, then of the real ones.
HRA_FRAMES = {'a': 8, 'b': 5, 'c': 15, 'd': 1, 'e': 9, 'f': 8}
REAL_FRAMES = {'p': 16, 'q': 2, 'r': 8, 's': 12}
ANSWERS = ('Good. It is fine.', 'Bad. It is not.', 'Normal', 'Bad.')
LONG = 'It is seen from afar, in the light of the evening. ' * 3


FRAMES = VilaFrames(8, SIZE, TOKENS_PER_FRAME)


class Tokenizer:
  pad_id = PAD

  def training(self, caption, question, frames, answer, *, where):
    del where
    prompt = [1] + [IMAGE] * TOKENS_PER_FRAME * len(frames.indices)
    prompt += [10 + byte for byte in (caption + question).encode()]
    answer = [10 + byte for byte in answer.encode()] + [2]
    return prompt + answer, [False] * len(prompt) + [True] * len(answer)


def write(root: pathlib.Path) -> None:
  """18 records of six generated clips and 4 of real ones."""
  (root / 'videos').mkdir()
  for name, num_frames in (HRA_FRAMES | REAL_FRAMES).items():
    clips.write_clip(root / f'videos/{name}.mp4', num_frames, 24, 32)
  answers = itertools.cycle(ANSWERS)
  hra = [
    feedback.entry(
      f'videos/{name}.mp4',
      LONG * (name in 'ab') + f'This is {name}.',
      dimension,
      next(answers),
    )
    for name in HRA_FRAMES
    for dimension in feedback.QUESTIONS
  ]
  real = [
    feedback.entry(
      f'videos/{name}.mp4',
      LONG * (name == 'p') + f'This is {name}.',
      'motion',
      'Good. It moves.',
    )
    for name in REAL_FRAMES
  ]
  (root / 'hra.json').write_text(json.dumps(hra))
  (root / 'real.json').write_text(json.dumps(real))


def without_data(content: bytes) -> bytes:
  """An mp4 file whose header is sound, but no frame can be decoded."""
  start, end = content.index(b'mdat') + 4, content.index(b'moov') - 4
  return content[:start] + bytes(end - start) + content[end:]


class PipelineTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, rated_clips):
    self.root = rated_clips
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ('data',))
    self.sharding = NamedSharding(mesh, PartitionSpec('data'))
    self.examples = self.make()

  def config(self, **changes):
    return feedback.config(self.root, **{'real': ('real.json',)} | changes)

  def make(self, **changes):
    """The examples of a config that trains on everything."""
    config = self.config(**changes)
    records = critic_records.read_critic_records(config)
    train = records.splits['train']
    probed = clip_checks.probe_clips(
      train, config.num_threads, config.max_undecodable
    )
    return critic_examples.make_examples(
      train, records, probed, Tokenizer(), FRAMES, config
    ).records

  def reader(
    self, examples=None, report=None, seed=0
  ) -> example_reader.ExampleReader:
    examples = examples or self.examples
    return example_reader.ExampleReader(examples, FRAMES, 2, seed, report)

  def iterator(
    self, examples=None, seed=0, report=None, batch_sizes=UNIFORM, **changes
  ):
    return critic_pipeline.make_iterator(
      examples or self.examples,
      Tokenizer(),
      self.reader(examples, report),
      batch_sizes,
      self.sharding,
      seed,
      self.config(**changes),
    )

  def take(self, count, iterator=None, **kwargs):
    iterator = iterator or self.iterator(**kwargs)
    return [next(iterator) for _ in range(count)]

  def spoil(self, *names: str):
    """Clears the data of clips until the end of the test."""
    for name in names:
      path = self.root / f'videos/{name}.mp4'
      content = path.read_bytes()
      self.addCleanup(self._restore, path, content, path.stat().st_mtime_ns)
      path.write_bytes(without_data(content))

  def _restore(self, path: pathlib.Path, content: bytes, mtime_ns: int):
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))

  def numbers(self, batch) -> list[int]:
    """Which examples are in a batch, by slot."""
    known = {
      tuple(example.tokens): number
      for number, example in enumerate(self.examples)
    }
    return [
      known[tuple(tokens[segment_ids == 1])]
      for tokens, segment_ids in zip(
        batch['tokens'], batch['segment_ids'], strict=True
      )
    ]

  def assert_error(self, call, *words):
    with self.assertRaises(UserError) as raised:
      call()
    message = str(raised.exception)
    self.assertLen(message.splitlines(), 1)
    for word in words:
      self.assertIn(word, message)

  def assert_same(self, batches, others):
    for batch, other in zip(batches, others, strict=True):
      self.assertEqual(sorted(batch), sorted(other))
      for name, array in batch.items():
        np.testing.assert_array_equal(array, other[name])
