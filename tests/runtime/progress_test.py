"""What is reported about long work, and how often."""

import io
import logging
from unittest import mock

from absl.testing import parameterized

from lift_jax.runtime import progress

_LOGGER = logging.getLogger('progress_test')


class _Terminal(io.StringIO):
  def isatty(self):
    return True


class ProgressTest(parameterized.TestCase):
  def test_lines(self):
    """One every 30 s and one at the end; the rate is of this run alone."""
    times = iter([0.0, 10.0, 40.0, 50.0])
    with (
      mock.patch('time.monotonic', lambda: next(times)),
      mock.patch('sys.stderr', io.StringIO()),
      self.assertLogs(_LOGGER, 'INFO') as logs,
      progress.Progress(100, 'video', done=20, logger=_LOGGER) as bar,
    ):
      bar.update(10)
      bar.update(10)
      bar.update(60)
    self.assertEqual(
      [record.getMessage() for record in logs.records],
      [
        '40/100 videos, 0.5 videos/s, 120 s left',
        '100/100 videos, 1.6 videos/s, 0 s left',
      ],
    )

  def test_bar(self):
    with mock.patch('sys.stderr', _Terminal()) as stderr:
      with (
        self.assertNoLogs(_LOGGER),
        progress.Progress(2, 'step', logger=_LOGGER) as bar,
      ):
        bar.update(2, note='loss 0.5')
      self.assertIn('2/2', stderr.getvalue())
      self.assertIn('loss 0.5', stderr.getvalue())

  def test_silent(self):
    with (
      mock.patch('sys.stderr', _Terminal()) as stderr,
      self.assertNoLogs(_LOGGER),
      progress.Progress(1, 'step', logger=_LOGGER, enabled=False) as bar,
    ):
      bar.update(1)
      self.assertEqual(stderr.getvalue(), '')
