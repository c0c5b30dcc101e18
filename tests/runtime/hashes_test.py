"""Hashes of files are those of their content, and made once."""

import json
import os
import pathlib
from unittest import mock

from absl.testing import parameterized
import pytest

from lift_jax.runtime import hashes
from lift_jax.runtime.files import file_sha256
from tests.jobs import jobs

pytestmark = pytest.mark.fast


class FileHashesTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path
    self.path = tmp_path / 'videos' / 'a.mp4'
    self.path.parent.mkdir()
    self.path.write_bytes(b'some clip')
    self.read: list[pathlib.Path] = []

  def sha256(self, path=None, **settings) -> str:
    def count(path):
      self.read.append(path)
      return file_sha256(path)

    with (
      mock.patch.object(hashes, 'file_sha256', count),
      hashes.FileHashes(self.root) as found,
    ):
      return found.sha256(path or self.path, **settings)

  def test_is_read_once(self):
    first = self.sha256()
    self.assertEqual(first, file_sha256(self.path))
    self.assertEqual((self.sha256(), self.sha256()), (first, first))
    self.assertEqual(self.read, [self.path])
    self.sha256(read=True)
    self.assertLen(self.read, 2)

  def test_changed(self):
    """Whether its size is another or only its time of change."""
    for number, data in enumerate((b'other', b'third')):
      self.path.write_bytes(data)
      os.utime(self.path, ns=(number, number))
      self.assertEqual(self.sha256(), file_sha256(self.path))

  def test_outside_of_the_folder(self):
    """However its path is given."""
    path = self.root.parent / 'noise.npy'
    path.write_bytes(b'noise')
    first = self.sha256(path)
    relative = pathlib.Path(os.path.relpath(path))
    self.assertEqual((self.sha256(relative), self.sha256(path)), (first, first))
    self.assertEqual(self.read, [path])

  def test_of_all_hosts(self):
    with hashes.FileHashes(self.root, host=1) as found:
      found.sha256(self.path)
    hashes.FileHashes(self.root).gather()
    self.sha256()
    self.assertEqual(self.read, [])

  @parameterized.parameters('', '{"file": "videos/a.mp4"}\n', '{"fi')
  def test_other_lines(self, text):
    (self.root / hashes.NAME).write_text(text)
    self.assertEqual(self.sha256(), file_sha256(self.path))

  def test_full_disk(self):
    with jobs.full_disk() as fill:
      fill(0)
      self.assertEqual(self.sha256(), file_sha256(self.path))
    self.assertEqual((self.root / hashes.NAME).read_text(), '')

  def test_missing(self):
    with self.assertRaises(FileNotFoundError):
      self.sha256(self.root / 'b.mp4')
    self.assertEqual((self.root / hashes.NAME).read_text(), '')

  def test_line(self):
    self.sha256()
    status = self.path.stat()
    (line,) = (self.root / hashes.NAME).read_text().splitlines()
    self.assertEqual(
      json.loads(line),
      {
        'file': 'videos/a.mp4',
        'signature': [status.st_size, status.st_mtime_ns],
        'sha256': file_sha256(self.path),
      },
    )
