"""Clips are decoded before training, once, by all hosts together."""

import json
import logging
import os
import signal
import time
from unittest import mock

from absl.testing import parameterized
import pytest

from lift_jax.data import clip_checks, critic_examples, video
from lift_jax.runtime.shutdown import Stopped
from tests import threaded_hosts
from tests.data import critic_clips

_LOGGER = logging.getLogger('clip_checks_test')
_NAMES = {
  f'videos/{name}.mp4'
  for name in critic_clips.HRA_FRAMES | critic_clips.REAL_FRAMES
}


class _ChecksTest(critic_clips.PipelineTest):
  @pytest.fixture(autouse=True)
  def _journal(self, _folder, tmp_path):
    self.path = tmp_path / 'clips.jsonl'

  def open(self, is_settled=False) -> clip_checks.ClipChecks:
    return clip_checks.ClipChecks(self.path, is_settled, 2, 0.0)

  def decode(self, checks=None, on_bad_record='skip', probed=()):
    checks = checks or self.open()
    return checks.decode(
      self.examples, dict(probed), critic_clips.FRAMES, on_bad_record, _LOGGER
    )

  def decoded(self, checks=None) -> list[str]:
    """Names of the clips that a check decodes."""
    with mock.patch.object(
      clip_checks, 'decode_selected', wraps=critic_examples.decode_selected
    ) as decode:
      self.decode(checks)
    return sorted(call.args[0].stem for call in decode.mock_calls)

  def lines(self) -> dict[str, dict]:
    found = map(json.loads, self.path.read_text().splitlines())
    return {line['video']: line for line in found}


class DecodeTest(_ChecksTest):
  def test_good(self):
    self.assertEqual(self.decode(), {})
    lines = self.lines()
    self.assertEqual(set(lines), _NAMES)
    self.assertEqual(lines['videos/c.mp4']['clip']['num_frames'], 15)

  def test_once(self):
    """Again only if the file is another."""
    self.assertLen(self.decoded(), 10)
    self.assertEqual(self.decoded(), [])
    path = self.root / 'videos/c.mp4'
    before = path.stat().st_mtime_ns
    self.addCleanup(os.utime, path, ns=(before, before))
    os.utime(path, ns=(before, before + 1))
    self.assertEqual(self.decoded(), ['c'])

  def test_bad(self):
    self.spoil('c', 'q')
    wanted = ['videos/c.mp4', 'videos/q.mp4']
    for _ in range(2):  # bad ones are tried again
      bad = self.decode()
      self.assertCountEqual(bad, wanted)
      for name, reason in bad.items():
        self.assertStartsWith(reason, str(self.root / name))
        self.assertIn('cannot be decoded', reason)
    self.assertEqual(self.decoded(), ['c', 'q'])

  def test_mended(self):
    self.spoil('c')
    self.decode()
    self.doCleanups()
    self.assertEqual(self.decoded(), ['c'])
    self.assertEqual(self.decode(), {})

  def test_error(self):
    """One line; what is good before it is not decoded again."""
    self.spoil('c', 'q')
    self.assert_error(
      lambda: self.decode(on_bad_record='error'),
      'hra.json record 6 (videos/c.mp4): ', 'cannot be decoded',
      'delete the record',
    )  # fmt: skip
    self.assertCountEqual(self.lines(), ['videos/a.mp4', 'videos/b.mp4'])

  def test_sigterm(self):
    """What was found is kept."""

    def decode(path, *args):
      if path.stem == 'e':
        # Threads are ahead of the journal.
        deadline = time.monotonic() + 60
        while 'videos/b.mp4' not in self.lines():
          assert time.monotonic() < deadline
          time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
      return critic_examples.decode_selected(path, *args)

    with (
      mock.patch.object(clip_checks, 'decode_selected', decode),
      self.assertRaises(Stopped),
    ):
      self.decode()
    left = set(self.decoded())
    self.assertContainsSubset(['f', 'p', 'q', 'r', 's'], left)
    self.assertNoCommonElements(['a', 'b'], left)

  def test_torn_journal(self):
    """As a kill may leave it, or another version of the program."""
    self.decode()
    text = self.path.read_text()
    first, second = text.splitlines()[:2]
    other = second.replace('num_frames', 'count')
    self.path.write_text(text.replace(second, other)[: -len(first) // 2])
    self.assertLen(self.decoded(), 2)

  def test_full_disk(self):
    with mock.patch.object(
      clip_checks.Journal, 'add', side_effect=OSError(28, 'No space left')
    ):
      self.assert_error(
        self.decode, 'clips.jsonl cannot be written (No space left)', 'resume'
      )

  @parameterized.parameters(2, 3)
  def test_hosts(self, num_hosts):
    """They share the work, and all know all of it then."""
    self.spoil('c')
    # Pools copy no thread-local values; what they run needs none.
    with mock.patch.object(
      clip_checks, 'decode_selected', wraps=critic_examples.decode_selected
    ) as decode:
      found = threaded_hosts.run(num_hosts, lambda _: self.decode())
    self.assertEqual(decode.call_count, 10)
    for bad in found:
      self.assertCountEqual(bad, ['videos/c.mp4'])
    self.assertEqual(set(self.lines()), _NAMES)
    self.assertLen(list(self.path.parent.iterdir()), 1)


class SettledTest(_ChecksTest):
  """A run that has begun keeps its examples."""

  def test_findings(self):
    """Also of clips that have gone, or were mended."""
    self.spoil('c')
    self.decode(probed={'videos/none.mp4': 'is not there'})
    self.doCleanups()  # mends c
    self.spoil('q')
    checks = self.open(is_settled=True)
    settled = checks.settled
    self.assertEqual(set(settled), _NAMES | {'videos/none.mp4'})
    self.assertEqual(settled['videos/q.mp4'].num_frames, 2)
    self.assertIn('cannot be decoded', settled['videos/c.mp4'])
    self.assertEqual(settled['videos/none.mp4'], 'is not there')
    records = [example.record for example in self.examples]
    with mock.patch.object(video, 'probe') as probe:
      self.assertEqual(checks.probe(records), settled)
    probe.assert_not_called()
    self.assertEqual(self.decoded(checks), [])
    self.assertCountEqual(self.decode(checks), ['videos/c.mp4'])

  def test_not_settled(self):
    self.decode()
    checks = self.open()
    self.assertEqual((checks.settled, checks.failures), ({}, []))

  def test_failures(self):
    """Each once, however often it occurs; they are kept."""
    self.decode()
    checks = self.open()
    self.assertTrue(checks.note_failure('videos/c.mp4', 'one'))
    self.assertTrue(checks.note_failure('videos/c.mp4', 'two'))
    self.assertTrue(checks.note_failure('videos/d.mp4', 'three'))
    self.assertFalse(checks.note_failure('videos/c.mp4', 'one'))
    checks = self.open(is_settled=True)
    self.assertEqual(checks.failures, ['one', 'two', 'three'])
    self.assertFalse(checks.note_failure('videos/c.mp4', 'two'))
    # A new run decodes these clips again.
    self.assertEqual(self.decoded(), ['c', 'd'])
    self.assertEqual(self.open(is_settled=True).failures, [])

  def test_new_clips(self):
    """Of records that the user added since."""
    examples = self.examples
    self.examples = [e for e in examples if e.path.stem != 'e']
    self.decode()
    self.examples = examples
    self.assertEqual(self.decoded(self.open(is_settled=True)), ['e'])
