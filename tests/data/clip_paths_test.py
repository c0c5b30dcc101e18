"""Names and files of clips: links, absolute paths, and Unicode forms."""

import os
import pathlib
import unicodedata

from absl.testing import parameterized
import pytest

from lift_jax.data.clip_paths import ClipFolder
from lift_jax.data.json_records import RecordError

pytestmark = pytest.mark.fast

NFC = unicodedata.normalize('NFC', 'vidéos/Zoë.mp4')
NFD = unicodedata.normalize('NFD', NFC)


def write(path: pathlib.Path) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b'x')
  return path


def hub_snapshot(cache: pathlib.Path, kind: str = 'datasets') -> pathlib.Path:
  """A snapshot of two clips in the Hub's cache."""
  repository = cache / f'{kind}--org--clips'
  snapshot = repository / 'snapshots' / '0123abc'
  (snapshot / 'videos').mkdir(parents=True)
  for name, depth in (('a.mp4', 2), ('videos/b.mp4', 3)):
    blob = write(repository / 'blobs' / f'{name[-5]}c0ffee')
    (snapshot / name).symlink_to(f'{"../" * depth}blobs/{blob.name}')
  return snapshot


class _FolderTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path.resolve()
    self.root = self.folder / 'root'
    self.root.mkdir()

  def find(self, text, root=None, follow_links='hub', require_file=True):
    folder = ClipFolder.open(root or self.root, follow_links)
    return folder.find(str(text), require_file)

  def assert_refused(self, text, *words, **settings):
    with self.assertRaises(RecordError) as raised:
      self.find(text, **settings)
    for word in words:
      self.assertIn(word, str(raised.exception))


class HubTest(_FolderTest):
  @parameterized.parameters('datasets', 'models')
  def test_snapshot(self, kind):
    snapshot = hub_snapshot(self.folder, kind)
    blobs = snapshot.parents[1] / 'blobs'
    self.assertEqual(self.find('a.mp4', snapshot), ('a.mp4', blobs / 'ac0ffee'))
    found = ('videos/b.mp4', blobs / 'bc0ffee')
    self.assertEqual(self.find('videos/b.mp4', snapshot), found)
    self.assertEqual(
      self.find('b.mp4', snapshot / 'videos'), ('b.mp4', found[1])
    )
    self.assertEqual(self.find(snapshot / 'videos/b.mp4', snapshot), found)

  def test_root_is_a_link(self):
    snapshot = hub_snapshot(self.folder)
    (self.folder / 'latest').symlink_to(snapshot)
    name, _ = self.find('a.mp4', self.folder / 'latest')
    self.assertEqual(name, 'a.mp4')

  def test_turned_off(self):
    self.assert_refused(
      'a.mp4', 'link to outside', "set follow_links to 'hub'",
      root=hub_snapshot(self.folder), follow_links='none',
    )  # fmt: skip

  def test_chain_through_a_blob(self):
    """The end of the chain counts."""
    snapshot = hub_snapshot(self.folder)
    blob = snapshot.parents[1] / 'blobs' / 'ac0ffee'
    blob.unlink()
    blob.symlink_to(write(self.folder / 'secret'))
    self.assert_refused('a.mp4', 'link to outside', root=snapshot)

  @parameterized.parameters(
    # Of another repository, of a folder in blobs, and beside blobs.
    'models--org--other/blobs/x',
    'datasets--org--clips/blobs/more/x',
    'datasets--org--clips/refs/x',
    'datasets--org--clips/snapshots/other/x',
    'blobs/x',
  )
  def test_other_target(self, target):
    snapshot = hub_snapshot(self.folder)
    (snapshot / 'x.mp4').symlink_to(write(self.folder / target))
    self.assert_refused('x.mp4', 'link to outside', root=snapshot)

  def test_folder_of_blobs(self):
    """A link to all blobs would give access to files that have no name."""
    snapshot = hub_snapshot(self.folder)
    (snapshot / 'all').symlink_to(snapshot.parents[1])
    self.assert_refused('all/refs', 'link to outside', root=snapshot)

  @parameterized.parameters(
    'clips/snapshots/0123abc', 'datasets--org--clips/refs/0123abc'
  )
  def test_not_a_cache(self, root):
    root = self.folder / root
    root.mkdir(parents=True)
    blob = write(root.parents[1] / 'blobs' / 'x')
    (root / 'x.mp4').symlink_to(blob)
    self.assert_refused('x.mp4', 'link to outside', root=root)

  def test_blobs_elsewhere(self):
    """Where `blobs` itself is a link, it may lead anywhere."""
    snapshot = hub_snapshot(self.folder)
    blobs = snapshot.parents[1] / 'blobs'
    blobs.rename(self.folder / 'elsewhere')
    blobs.symlink_to(self.folder / 'elsewhere')
    self.assert_refused('a.mp4', 'link to outside', root=snapshot)

  def test_parent(self):
    snapshot = hub_snapshot(self.folder)
    for text in ('../../blobs/ac0ffee', snapshot / '../../blobs/ac0ffee'):
      self.assert_refused(text, '".."', root=snapshot)


class AbsoluteTest(_FolderTest):
  def test_below_the_root(self):
    path = write(self.root / 'videos/a.mp4')
    self.assertEqual(self.find(path), ('videos/a.mp4', path))

  def test_through_a_link_to_the_root(self):
    """However root and path are written, the name is the same."""
    path = write(self.root / 'videos/a.mp4')
    link = self.folder / 'link'
    link.symlink_to(self.root)
    for root in (link, self.root):
      for text in (link / 'videos/a.mp4', path):
        self.assertEqual(self.find(text, root), ('videos/a.mp4', path))

  def test_missing(self):
    path = self.root / 'videos/a.mp4'
    self.assertEqual(
      self.find(path, require_file=False), ('videos/a.mp4', path)
    )
    self.assert_refused(path, 'no video file')

  def test_elsewhere(self):
    for path in (self.folder / 'a.mp4', self.folder / 'root_2' / 'a.mp4'):
      write(path)
      self.assert_refused(path, 'an absolute path', str(self.root))
    self.assert_refused(self.root, 'an absolute path')

  def test_link_out_of_the_root(self):
    (self.root / 'x.mp4').symlink_to(write(self.folder / 'x.mp4'))
    self.assert_refused(self.root / 'x.mp4', 'link to outside')


class SpellingTest(_FolderTest):
  @parameterized.parameters(
    'videos/./a.mp4', './videos//a.mp4', 'videos/a.mp4/', 'videos/a.mp4/.'
  )
  def test_one_name(self, text):
    path = write(self.root / 'videos/a.mp4')
    for found in (text, f'{self.root}/{text}'):
      self.assertEqual(self.find(found), ('videos/a.mp4', path))

  @parameterized.parameters('', '.', 'videos')
  def test_no_file(self, text):
    (self.root / 'videos').mkdir()
    self.assert_refused(text, 'not a regular file')

  def test_folders_of_a_name(self):
    """Each is one of its own, below the root or above it."""
    first = write(self.root / 'a/x.mp4')
    second = write(self.root / 'b/a/x.mp4')
    folder = ClipFolder.open(self.root, 'none')
    for text, path in (('a/x.mp4', first), ('b/a/x.mp4', second)):
      for _ in range(2):
        self.assertEqual(folder.find(text, True), (text, path))
        self.assertEqual(folder.find(str(path), True), (text, path))
    with self.assertRaisesRegex(RecordError, 'an absolute path'):
      folder.find('/a/x.mp4', True)


class UnicodeTest(_FolderTest):
  @parameterized.product(on_disk=(NFC, NFD), in_json=(NFC, NFD))
  def test_forms(self, on_disk, in_json):
    path = write(self.root / on_disk)
    for text in (in_json, self.root / in_json):
      self.assertEqual(self.find(text), (NFC, path))

  def test_each_part_has_its_own(self):
    folder, name = NFC.split('/')
    path = write(self.root / unicodedata.normalize('NFD', folder) / name)
    self.assertEqual(self.find(NFD), (NFC, path))

  def test_missing(self):
    """The name is that of the clip before it was deleted."""
    for text in (NFC, NFD):
      name, _ = self.find(text, require_file=False)
      self.assertEqual(name, NFC)
      self.assert_refused(text, 'no video file')

  def test_both(self):
    write(self.root / NFC)
    path = write(self.root / NFC.split('/')[0] / NFD.split('/')[1])
    for text in (NFC, NFD):
      self.assert_refused(text, 'two files', 'rename one')
    path.unlink()
    os.link(self.root / NFC, path)
    self.assertEqual(self.find(NFD)[0], NFC)

  def test_other_letters(self):
    write(self.root / NFC)
    self.assert_refused(NFC.replace('ë', 'e'), 'no video file')
