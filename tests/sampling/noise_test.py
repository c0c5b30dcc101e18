"""Initial noise and latents as files, in the order of diffusers."""

import io
import pickle
import zipfile

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data.prompts import Prompt
from lift_jax.errors import UserError
from lift_jax.sampling import noise as noise_lib
from lift_jax.sampling.clips import make_clips

# F latent frames  C channels  h w height and width in latents
FRAMES, HEIGHT, WIDTH, CHANNELS = SHAPE = (3, 4, 6, 5)
ON_DISK = (FRAMES, CHANNELS, HEIGHT, WIDTH)


def make(*names):
  prompts = [Prompt(name, name, name, f'line of {name}') for name in names]
  return make_clips(prompts, 1, 0, '{prompt}')[0]


def noise_of(seed, shape=SHAPE):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class _NoiseTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def write(self, name, array):
    np.save(self.folder / f'{name}.npy', array)

  def read(self, *names):
    return noise_lib.read_initial_noise(self.folder, make(*names), SHAPE)


class RoundTripTest(_NoiseTest):
  def test_latents_come_back_as_noise(self):
    latents = {name: noise_of(seed) for seed, name in enumerate('ab')}
    for name, latents_fhwc in latents.items():
      path = self.folder / f'{name}.npy'
      noise_lib.write_latents(path, latents_fhwc)
      array = np.load(path)
      self.assertEqual((array.shape, array.dtype), (ON_DISK, np.float32))
      # Against the order of diffusers, index by index.
      for index in np.ndindex(ON_DISK):
        frame, channel, row, column = index
        self.assertEqual(
          array[index], latents_fhwc[frame, row, column, channel]
        )
    found = self.read('b', 'a')
    self.assertEqual((found.shape, found.dtype), ((2, *SHAPE), np.float32))
    np.testing.assert_array_equal(found, [latents['b'], latents['a']])
    self.assertLen(list(self.folder.iterdir()), 2)

  def test_leading_axis(self):
    array = noise_of(0, ON_DISK)
    self.write('a', array)
    self.write('b', array[None])
    found = self.read('a', 'b')
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], array.transpose(0, 2, 3, 1))

  @parameterized.parameters('<f2', '<f4', '>f4', '<f8')
  def test_types(self, dtype):
    array = noise_of(0, ON_DISK).astype(dtype)
    for order in 'CF':
      self.write('a', np.asarray(array, order=order))
      found = self.read('a')
      self.assertEqual(found.dtype, np.float32)
      np.testing.assert_array_equal(
        found[0], array.astype(np.float32).transpose(0, 2, 3, 1)
      )

  def test_replaces_a_file(self):
    path = self.folder / 'a.npy'
    for seed in range(2):
      noise_lib.write_latents(path, noise_of(seed))
    np.testing.assert_array_equal(self.read('a')[0], noise_of(1))

  def test_nothing_is_left_of_a_failure(self):
    path = self.folder / 'a.npy'
    path.mkdir()  # cannot be replaced by a file
    with self.assertRaises(OSError):
      noise_lib.write_latents(path, noise_of(0))
    self.assertEqual(list(self.folder.iterdir()), [path])


class HashTest(_NoiseTest):
  def hashes(self):
    clips = make('a', 'b')
    started = noise_lib.with_initial_noise(clips, self.folder, SHAPE)
    self.assertEqual([clip.stem for clip in started], ['a', 'b'])
    self.assertEqual(
      [clip.seed for clip in started], [clip.seed for clip in clips]
    )
    return [clip.initial_noise for clip in started]

  def test_follows_the_content(self):
    array = noise_of(0, ON_DISK)
    self.write('a', array)
    self.write('b', array)
    first, second = self.hashes()
    self.assertEqual(first, second)
    self.assertRegex(first, '^[0-9a-f]{64}$')
    array[-1, -1, -1, -1] = np.nextafter(array[-1, -1, -1, -1], np.float32(9))
    self.write('b', array)
    after = self.hashes()
    self.assertEqual(after[0], first)
    self.assertNotEqual(after[1], first)

  def test_given_hashes(self):
    self.write('a', noise_of(0, ON_DISK))
    (clip,) = noise_lib.with_initial_noise(
      make('a'), self.folder, SHAPE, lambda path: path.name
    )
    self.assertEqual(clip.initial_noise, 'a.npy')


def _saved(array, **options):
  buffer = io.BytesIO()
  np.save(buffer, array, **options)
  return buffer.getvalue()


def _archive():
  """What torch.save writes, and numpy.savez."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as file:
    file.writestr('a.npy', _saved(noise_of(0, ON_DISK)))
  return buffer.getvalue()


def _pickled():
  objects = np.empty(ON_DISK, object)
  return _saved(objects, allow_pickle=True)


GOOD = _saved(noise_of(0, ON_DISK))
NO_NUMBERS = 'not an .npy file of numbers .*; write it with numpy.save$'


class FaultTest(_NoiseTest):
  def check(self, message):
    clips = make('a')
    for read in (noise_lib.with_initial_noise, self._read):
      with self.assertRaisesRegex(UserError, message) as caught:
        read(clips, self.folder, SHAPE)
      text = str(caught.exception)
      self.assertStartsWith(text, str(self.folder / 'a.npy'))
      self.assertLen(text.splitlines(), 1)

  def _read(self, clips, folder, shape):
    return noise_lib.read_initial_noise(folder, clips, shape)

  def test_missing(self):
    self.check(': no such file; a folder of initial noise needs one NAME.npy')

  def test_folder(self):
    (self.folder / 'a.npy').mkdir()
    self.check(NO_NUMBERS)

  @parameterized.parameters(
    (SHAPE,),
    ((FRAMES, CHANNELS, WIDTH, HEIGHT),),
    ((CHANNELS, FRAMES, HEIGHT, WIDTH),),
    ((2, *ON_DISK),),
    ((1, 1, *ON_DISK),),
    (ON_DISK[1:],),
    ((0, *ON_DISK),),
    ((),),
    ((int(np.prod(ON_DISK)),),),
  )
  def test_shape(self, shape):
    self.write('a', noise_of(0, shape))
    self.check(r'shape \(.*\), but these videos need \(3, 5, 4, 6\): .*; write')

  @parameterized.parameters('i4', 'u1', 'c8', '?', 'S4', 'V2')
  def test_type(self, dtype):
    self.write('a', np.zeros(ON_DISK, dtype))
    self.check(r'dtype .*; write floating-point noise$')

  @parameterized.named_parameters(
    ('empty', b''),
    ('text', b'0.1 0.2 0.3\n'),
    ('picture', b'\x89PNG\r\n\x1a\n' + bytes(100)),
    ('cut', GOOD[:-4]),
    ('cut_header', GOOD[:40]),
    ('spoiled_header', GOOD.replace(b'shape', b'sharp')),
    ('other_version', GOOD[:6] + b'\x09' + GOOD[7:]),
    ('archive', _archive()),
    ('pickled_array', _pickled()),
    ('pickle', pickle.dumps([1.0, 2.0])),
  )
  def test_other_file(self, data):
    (self.folder / 'a.npy').write_bytes(data)
    self.check(NO_NUMBERS)

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_not_finite(self, value):
    array = noise_of(0, ON_DISK)
    self.write('b', array)
    array[-1, -1, -1, -1] = value
    self.write('a', array)
    # Only its hash is taken at the start; it is looked at when it is used.
    noise_lib.with_initial_noise(make('b', 'a'), self.folder, SHAPE)
    with self.assertRaisesRegex(UserError, 'a.npy: contains NaN or infinity; '):
      self.read('b', 'a')
