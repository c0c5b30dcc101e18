"""Reports of unusual clips."""

import json
import logging

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
      }
    )
  assert score._rated(journal, [video], {}, ClipRules()) == {video.key}
  rules = ClipRules(skip_flagged=('HDR',))
  assert score._rated(journal, [video], {}, rules) == set()
