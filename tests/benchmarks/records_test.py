"""The benchmark of many records: its data, and what it takes for finished."""

import shutil

from absl.testing import parameterized
import numpy as np
import pytest
import records

from lift_jax.comparison.clip_sets import read_clips
from lift_jax.data import cache as cache_lib
from lift_jax.data.hra import read_hra, read_questions
from lift_jax.data.records import read_alignment
from lift_jax.evaluation.scores import read_scores
from lift_jax.runtime import storage
from lift_jax.sampling import manifest
from lift_jax.toyworld import dataset, feedback

_NUM_RECORDS = 13


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('records')
  records.write_data(folder, _NUM_RECORDS)
  return folder


class DataTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, folder, tmp_path):
    self.folder = tmp_path / 'copy'
    shutil.copytree(folder, self.folder)

  def test_data(self):
    """The readers of the jobs take it; every record has its own caption."""
    data = self.folder / 'data'
    found = read_alignment(data, (dataset.SCORES,)).records
    self.assertLen({record.caption for record in found}, _NUM_RECORDS)
    rated = read_hra(
      data, (dataset.HRA,), read_questions(feedback.questions_path())
    ).records
    self.assertLen(rated, 3 * _NUM_RECORDS)
    scored = read_scores(data, (str(data / dataset.SCORES),)).records
    self.assertEqual(
      {(record.video, record.caption) for record in rated},
      {(record.video, record.caption) for record in scored},
    )
    answers = {
      answer.probabilities
      for record in scored
      for answer in record.answers.values()
    }
    self.assertGreater(len(answers), _NUM_RECORDS)

  def test_finished_cache(self):
    found = read_alignment(self.folder / 'data', (dataset.SCORES,)).records
    path = self.folder / 'prepare' / 'cache'
    cache = cache_lib.LatentCache(path, {'sizes': [[48, 64]]})
    cache.start()
    data = cache_lib.pack(text=np.ones((2, 3), np.float32))
    signature = storage.file_signature(found[0].path)
    one = cache_lib.EncodedClip(
      found[0], data, signature, 'a' * 64, (9, 48, 64), (), 0.1
    )
    cache.write_shard((3, 6, 8), [one])
    records._finish_prepare(self.folder)
    entries = cache.entries()
    self.assertEqual(
      entries.keys(), {cache_lib.record_key(record) for record in found}
    )
    for shard in cache.shards():
      self.assertEqual(cache.drop_damaged(shard, verify=True), [])
    self.assertEqual(cache.null_text().shape, (2, 3))

  def test_finished_clips(self):
    clips, workdir = records._clips(self.folder), self.folder / 'sample'
    self.assertLen(clips, _NUM_RECORDS)
    (workdir / manifest.VIDEOS).mkdir(parents=True)
    with manifest.Manifest(workdir, {'model': 'x'}) as written:
      written.file(clips[0], manifest.VIDEOS).write_text('a clip')
      written.add(clips[0])
    records._finish_sample(self.folder)
    finished = manifest.Manifest(workdir, {'model': 'x'}).finished(clips)
    self.assertLen(finished, _NUM_RECORDS)
    for model in ('base', 'other'):
      found = read_clips(model, self.folder / model)
      self.assertLen(found.clips, _NUM_RECORDS // 2)
      self.assertEqual(found.unlisted, ())


@pytest.mark.fast
class TableTest(parameterized.TestCase):
  def test_rows(self):
    run = records.Measured(100, 12.25, 512 * 2**20, 0.5)
    longer = records.Measured(200, 31.75, 1000 * 2**20, 2.5)
    table = records.table(
      {
        ('score', 'start'): {1000: run, 40_000: longer},
        ('score', 'restart'): {1000: run, 40_000: longer},
      }
    ).splitlines()
    self.assertEqual(
      table[2:],
      [
        '| score | start | 12.2 | 31.8 | 512 | 1000 | 0.500 | 12.5 | 2.5 '
        '| **missed** |',
        '| score | restart | 12.2 | 31.8 | 512 | 1000 | 0.500 | 12.5 | 2.5 '
        '| met |',
      ],
    )
