"""Real CogVideoX clips from mp4 to an aligned model, where they are at hand."""

import json

from lift_jax.data.cache import record_key
from lift_jax.data.records import read_alignment
from tests.jobs import jobs
from tests.published import THEIRS, require

CLIPS = THEIRS / 'lift_sample'


def test_real_clips(tmp_path):
  require(CLIPS)
  settings = {
    'data__root': CLIPS,
    'data__sizes': '((32, 48),)',
    'data__max_frames': 49,
    'train__steps': 2,
    'train__batch_size': 8,
  }
  outcome = jobs.lift('align', *jobs.flags(tmp_path, **settings))
  assert (outcome.status, outcome.stderr) == (0, '')
  # 8 devices of one clip each: 12 clips are a full batch and half of one.
  assert outcome.has_logged('12 videos with latents 13x4x6, 94 tokens each')
  index = json.loads((tmp_path / 'cache' / 'index.json').read_text())
  keys = {record['key'] for record in index['records']}
  records = read_alignment(CLIPS, ['alignment.json']).records
  assert keys == {record_key(record) for record in records}
  assert jobs.steps_of(tmp_path) == [1, 2]
