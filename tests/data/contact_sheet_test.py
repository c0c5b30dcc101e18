"""Contact sheets: contents, layout, and unreadable clips."""

from unittest import mock

from absl.testing import parameterized
import numpy as np
from PIL import Image, ImageDraw, ImageFont
import pytest

from lift_jax.data import contact_sheet, video
from lift_jax.data.contact_sheet import SheetClip
from tests.data import clips


class ContactSheetTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path
    self.path = tmp_path / 'sheet.png'

  def clip(self, name='a.mp4', title=None, text='A square.'):
    return SheetClip(self.folder / name, title or name, text)

  def write(self, sheet_clips, **kwargs):
    """The page as uint8 [H, W, 3], and the texts on it in drawing order."""
    draw = ImageDraw.ImageDraw
    with mock.patch.object(
      draw, 'text', autospec=True, side_effect=draw.text
    ) as drawn:
      contact_sheet.write_contact_sheet(self.path, sheet_clips, **kwargs)
    texts = [call.args[2] for call in drawn.call_args_list]
    with Image.open(self.path) as image:
      self.assertEqual(image.format, 'PNG')
      self.assertEqual(image.mode, 'RGB')
      return np.asarray(image), texts

  def strips(self, page, height):
    """Bands [height, W, 3] that begin where a frame of column 0 does."""
    is_frame = (page[:, 28:52] < 240).any(-1).all(1)
    tops = np.flatnonzero(is_frame[1:] & ~is_frame[:-1]) + 1
    return [page[top : top + height] for top in tops]

  @parameterized.parameters(
    (49, [0, 16, 32, 48]), (6, [0, 1, 3, 5]), (4, [0, 1, 2, 3]), (2, [0, 1])
  )
  def test_frames(self, num_frames, numbers):
    """First and last; 4k + 1 frames, as for training, would lose the last."""
    clips.write_clip(self.folder / 'a.mp4', num_frames, 48, 64)
    page, _ = self.write([self.clip()], frame_width=64)
    (strip,) = self.strips(page, 48)
    frames = [
      strip[:, left : left + 64]
      for left in range(28, 28 + 67 * len(numbers), 67)
    ]
    self.assertEqual(clips.frame_numbers(np.stack(frames)), numbers)
    np.testing.assert_array_equal(strip[:, 28 + 67 * len(numbers) :], 255)

  def test_texts(self):
    clips.write_clip(self.folder / 'a.mp4', 5, 48, 64)
    text = 'A  square\nwanders ' + 'over a gradient of greys ' * 20
    _, texts = self.write([self.clip(text=text)], frame_width=80)
    title, first, second, header = texts
    self.assertEqual((title, header), ('a.mp4', '1 clip'))
    self.assertStartsWith(first, 'A square wanders over')
    self.assertEndsWith(second, '…')
    joined = f'{first} {second[:-1]}'
    self.assertStartsWith(' '.join(text.split()), joined)  # between words

  def test_portrait(self):
    clips.write_clip(self.folder / 'a.mp4', 5, 90, 60)
    page, _ = self.write([self.clip()], frame_width=60)
    (strip,) = self.strips(page, 60)
    covered = (strip < 240).any(2).all(0)
    # Four frames, gaps between.
    expected = ([True] * 40 + [False] * 3) * 4
    self.assertEqual(covered[28 : 28 + 4 * 43].tolist(), expected)
    self.assertEqual(covered.sum(), 4 * 40)

  @parameterized.parameters(1, 2, 5, 7)
  def test_choice(self, max_clips):
    """Evenly, the first and the last included; only those are decoded."""
    sheet_clips = [self.clip(f'{index:05d}.mp4') for index in range(12_345)]
    _, texts = self.write(sheet_clips, max_clips=max_clips)
    numbers = [int(text[:5]) for text in texts if text.endswith('.mp4')]
    self.assertLen(numbers, max_clips)
    self.assertEqual(numbers[0], 0)
    if max_clips > 1:
      self.assertEqual(numbers[-1], 12_344)
      gaps = np.diff(numbers)
      self.assertLessEqual(gaps.max() - gaps.min(), 1)
    self.assertEqual(texts[-1], f'{max_clips} of 12,345 clips')

  def test_all(self):
    _, texts = self.write([self.clip(f'{i}.mp4') for i in range(3)])
    self.assertEqual(texts[-1], '3 clips')

  def test_none(self):
    page, texts = self.write([])
    self.assertEqual(texts, ['0 clips'])
    self.assertLess(page.min(), 100)

  def test_grid(self):
    """Cells of one row are next to each other; nothing covers another."""
    clips.write_clip(self.folder / 'a.mp4', 5, 48, 64)
    for num_clips in (1, 2, 3, 7, 12, 40):
      page, _ = self.write([self.clip()] * num_clips, frame_width=64)
      (one,) = self.strips(self.write([self.clip()], frame_width=64)[0], 48)
      cell = one[:, 28:-28]
      pitch = cell.shape[1] + 28
      found = 0
      for strip in self.strips(page, 48):
        for left in range(28, page.shape[1] - 28, pitch):
          found += np.array_equal(strip[:, left : left + pitch - 28], cell)
      self.assertEqual(found, num_clips)
      self.assertLess(page.shape[1], 2 * page.shape[0] + pitch)
      self.assertLess(page.shape[0], 3 * page.shape[1])

  def test_unusable(self):
    """Each cell says what is wrong; the others are not touched."""
    clips.write_clip(self.folder / 'a.mp4', 20, 48, 64, faststart=True)
    data = (self.folder / 'a.mp4').read_bytes()
    (self.folder / 'cut.mp4').write_bytes(data[: len(data) * 2 // 3])
    (self.folder / 'text.mp4').write_text('this is no video; not at all')
    (self.folder / 'empty.mp4').touch()
    (self.folder / 'folder.mp4').mkdir()
    names = ('a', 'gone', 'cut', 'text', 'empty', 'folder')
    page, texts = self.write(
      [self.clip(f'{name}.mp4', text='') for name in names], frame_width=64
    )
    self.assertLen(self.strips(page, 48), 1)
    notices = {}
    previous = ''
    for text in texts:
      if text.endswith('.mp4'):
        notices[text.removesuffix('.mp4')] = previous.replace('\n', ' ')
      previous = text
    self.assertEqual(notices['gone'], 'This file does not exist.')
    self.assertEqual(notices['folder'], 'This file does not exist.')
    self.assertStartsWith(notices['cut'], 'This file is cut short')
    for name in ('text', 'empty'):
      self.assertStartsWith(notices[name], 'This file cannot be decoded (')
    self.assertNotStartsWith(notices['a'], 'This file')

  @parameterized.parameters(
    PermissionError(13, 'Permission denied'), ValueError('null byte')
  )
  def test_unreadable(self, error):
    with mock.patch.object(video, 'decode', side_effect=error):
      _, texts = self.write([self.clip()])
    self.assertStartsWith(texts[0], 'This file cannot be read (')

  @parameterized.parameters(
    '一只猫在花园里奔跑。', 'A cat 🙂👩‍👩‍👧🇩🇪', 'قطة تجري', 'Кошка бежит',
    'lone \udc80 \ud800', '\x00\x07\x1b', '\u202e\u200b\ufeff', '', ' \n ',
    'x' * 100_000, '一' * 100_000, 'word ' * 100_000, '\u0301' * 3000,
  )  # fmt: skip
  def test_any_text(self, text):
    page, texts = self.write([self.clip('a.mp4', title=text, text=text)])
    self.assertEqual(page.shape[1], 4 * 160 + 3 * 3 + 2 * 28)
    self.assertLessEqual(len(texts), 5)
    font = ImageFont.load_default(size=13)
    for line in texts:
      self.assertLessEqual(font.getlength(line), 4 * 160 + 3 * 3)

  @parameterized.parameters(
    ('café — “naïve”…', 'cafe - “naive”…'),
    ('一只猫 在花园 A cat 🙂🙂', '\uffff A cat \uffff'),
    ('a\u0301b\u200dc', 'abc'),
    (' two\nlines\t', 'two lines'),
  )
  def test_legible(self, text, legible):
    self.assertEqual(contact_sheet._legible(text), legible)

  def test_long_title(self):
    """Names of clips differ in their end."""
    title = 'A person rides a bicycle down a street ' * 5 + '-12.mp4'
    _, texts = self.write([self.clip('a.mp4', title=title)])
    shown = next(text for text in texts if text.endswith('.mp4'))
    first, last = shown.split('…')
    self.assertStartsWith(title, first)
    self.assertEndsWith(title, last)
    self.assertGreater(len(last), 30)

  def test_complete_or_absent(self):
    self.path.write_bytes(b'old')
    with (
      mock.patch.object(Image.Image, 'save', side_effect=KeyboardInterrupt),
      self.assertRaises(KeyboardInterrupt),
    ):
      contact_sheet.write_contact_sheet(self.path, [self.clip()])
    self.assertEqual(self.path.read_bytes(), b'old')
    self.assertEqual(list(self.folder.iterdir()), [self.path])
    self.write([self.clip()])
    self.assertEqual(list(self.folder.iterdir()), [self.path])
