"""Reports of skipped records and of unusual clips."""

import json
import logging
from unittest import mock

import jax
import pytest

from lift_jax.data.clip_flags import ClipRules
from lift_jax.jobs import inputs, score
from lift_jax.runtime.journal import Journal
from lift_jax.scoring.videos import CaptionedVideo, key_of

pytestmark = pytest.mark.fast

_LOGGER = logging.getLogger('inputs_test')


def test_report_flagged(tmp_path, caplog):
  flags = {'a.mp4': ('HDR: PQ', 'interlaced'), 'b.mp4': (), 'c.mp4': ('HDR',)}
  inputs.report_flagged(tmp_path, flags, _LOGGER)
  path = tmp_path / 'flagged.json'
  assert json.loads(path.read_text()) == {
    'a.mp4': ['HDR: PQ', 'interlaced'],
    'c.mp4': ['HDR'],
  }
  (record,) = caplog.records
  assert record.getMessage() == (
    f'2 of 3 clips are flagged: 2 HDR, 1 interlaced; listed in {path} '
    '(skip_flagged leaves them out)'
  )
  # Nothing is left of an earlier run.
  inputs.report_flagged(tmp_path, {'b.mp4': ()}, _LOGGER)
  assert not path.exists()
  assert len(caplog.records) == 1


def test_rated_but_left_out(tmp_path):
  """A rating of a clip that the rules leave out does not count."""
  (tmp_path / 'a.mp4').write_bytes(b'abc')
  video = CaptionedVideo('a.mp4', tmp_path / 'a.mp4', 'a', 'a.json', 0)
  journal = Journal(
    tmp_path / 'ratings.jsonl', lambda line: key_of('a.mp4', line['caption']), 0
  )
  status = video.path.stat()
  with journal:
    journal.add(
      {
        'caption': 'a',
        'stamp': [status.st_size, status.st_mtime_ns],
        'flags': ['HDR: PQ'],
        'probabilities': {},
        'shape': [8, 16],
      }
    )
  assert score._rated(journal, [video], {}, ClipRules()) == {video.key: (8, 16)}
  rules = ClipRules(skip_flagged=('HDR',))
  assert score._rated(journal, [video], {}, rules) == {}


def lists_in(folder):
  return {p.name: json.loads(p.read_text()) for p in folder.iterdir()}


def test_add_skipped(tmp_path):
  inputs.report_skipped(tmp_path, ['one'], 1, _LOGGER)
  inputs.add_skipped(tmp_path, 'two')
  with mock.patch.object(jax, 'process_index', return_value=3):
    inputs.report_skipped(tmp_path, ['one'], 1, _LOGGER)
    for reason in ('three', 'four'):
      inputs.add_skipped(tmp_path, reason)
  wanted = {
    'skipped.json': ['one', 'two'],
    'skipped-00003.json': ['three', 'four'],
  }
  assert lists_in(tmp_path) == wanted
  inputs.report_skipped(tmp_path, [], 2, _LOGGER)
  assert lists_in(tmp_path) == {}
  inputs.add_skipped(tmp_path, 'five')
  assert lists_in(tmp_path) == {'skipped.json': ['five']}
