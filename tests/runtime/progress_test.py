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
    """One every 30 s and one at the end; the rate is since the first update."""
    times = iter([0.0, 31.0, 70.0, 80.0])
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
        '30/100 videos',
        '40/100 videos, 0.256 videos/s, 234 s left',
        '100/100 videos, 1.43 videos/s, 0 s left',
      ],
    )

  def test_skipped(self):
    """What took no work is done, but adds nothing to the rate."""
    times = iter([0.0, 1.0, 40.0, 41.0, 50.0, 80.0])
    with (
      mock.patch('time.monotonic', lambda: next(times)),
      mock.patch('sys.stderr', io.StringIO()),
      self.assertLogs(_LOGGER, 'INFO') as logs,
      progress.Progress(100, 'video', logger=_LOGGER) as bar,
    ):
      bar.skip(20)
      bar.update(4)
      bar.skip(6)
      bar.update(10)
      bar.update(10)
    self.assertEqual(
      [record.getMessage() for record in logs.records],
      ['24/100 videos', '50/100 videos, 0.5 videos/s, 100 s left'],
    )

  def test_rate_of_a_bar_without_skipped(self):
    with (
      mock.patch('sys.stderr', _Terminal()),
      progress.Progress(30, 'video', logger=_LOGGER) as bar,
    ):
      bar.skip(5)
      bar.update(4)
      bar.skip(2)
      bar.update(1)
      shown = bar._bar.format_dict
    self.assertEqual((shown['n'], shown['initial']), (12, 11))

  @parameterized.parameters((1.5, []), (2.5, ['3/3 records, 1 records/s']))
  def test_tracked(self, seconds, expected):
    """Quick work is not worth a word."""
    times = iter([0.0, seconds - 2, seconds - 1, seconds])
    with (
      mock.patch('time.monotonic', lambda: next(times)),
      mock.patch('sys.stderr', io.StringIO()),
      mock.patch.object(logging.getLogger('lift'), 'info') as info,
    ):
      self.assertEqual(list(progress.tracked('abc', 'record')), list('abc'))
    lines = [call.args[1] for call in info.call_args_list]
    self.assertEqual(
      [line.removesuffix(', 0 s left') for line in lines], expected
    )

  @parameterized.parameters((0.0, False), (1.0, True))
  def test_brief_bar(self, seconds, is_shown):
    """It is shown early, and erased in the end."""
    with mock.patch('sys.stderr', _Terminal()) as stderr:
      with progress.Progress(3, 'record', logger=_LOGGER, is_brief=True) as bar:
        bar.update(1)
        bar._bar.start_t -= seconds
        bar._bar.last_print_t -= seconds
        bar.update(1)
      self.assertEqual('2/3' in stderr.getvalue(), is_shown)
      self.assertEqual(stderr.getvalue().endswith(' \r'), is_shown)

  def test_bar(self):
    with mock.patch('sys.stderr', _Terminal()) as stderr:
      with (
        self.assertNoLogs(_LOGGER),
        progress.Progress(2, 'step', logger=_LOGGER) as bar,
      ):
        bar.update(2, note='loss 0.5')
      self.assertIn('2/2', stderr.getvalue())
      self.assertIn('loss 0.5', stderr.getvalue())

  def test_rate_of_a_bar(self):
    """It does not count the hour before the first update."""
    with (
      mock.patch('sys.stderr', _Terminal()),
      progress.Progress(30, 'video', logger=_LOGGER) as bar,
    ):
      bar._bar.start_t -= 3600
      bar._bar.last_print_t -= 3600
      bar.update(10)
      bar.update(10)
      shown = bar._bar.format_dict
    self.assertEqual((shown['n'], shown['initial']), (20, 10))
    self.assertLess(shown['elapsed'], 600)

  def test_silent(self):
    with (
      mock.patch('sys.stderr', _Terminal()) as stderr,
      self.assertNoLogs(_LOGGER),
      progress.Progress(1, 'step', logger=_LOGGER, enabled=False) as bar,
    ):
      bar.update(1)
      self.assertEqual(stderr.getvalue(), '')
