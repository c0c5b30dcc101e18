"""Sizes of clips: which are allowed, and those of decoded clips."""

import dataclasses
import functools
import pathlib

from absl.testing import parameterized

from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.errors import UserError
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.model import CogVideoX
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.t5.config import T5Config
from lift_jax.sampling import sizes
from lift_jax.sampling.config import VideoConfig

PUBLISHED = CogVideoX(
  pathlib.Path('published'),
  {},
  TransformerConfig(),
  VAEConfig(),
  T5Config(),
  ScheduleConfig(),
)


@functools.cache
def model(**vae) -> CogVideoX:
  """A small one; options are of its autoencoder."""
  small = {
    'block_out_channels': (4, 4, 4, 4),
    'layers_per_block': 1,
    'norm_num_groups': 2,
    'sample_height': 96,
    'sample_width': 160,
  }
  return dataclasses.replace(PUBLISHED, vae=VAEConfig(**small | vae))


@functools.cache
def declared(**vae):
  return model(**vae).declare('vae')


class LatentShapeTest(parameterized.TestCase):
  @parameterized.parameters(
    # The published size of 2B and 5B.
    ((480, 720, 49), (13, 60, 90, 16)),
    ((720, 480, 9), (3, 90, 60, 16)),
    ((768, 1360, 81), (21, 96, 170, 16)),
    ((16, 16, 1), (1, 2, 2, 16)),
    ((16, 32, 5), (2, 2, 4, 16)),
    ((16, 32, 13), (4, 2, 4, 16)),
  )
  def test_published(self, size, expected):
    found = sizes.latent_shape(PUBLISHED, VideoConfig(*size, tiling=True))
    self.assertEqual(found, expected)

  def test_follows_the_configs(self):
    other = dataclasses.replace(
      PUBLISHED,
      transformer=TransformerConfig(patch_size=3),
      vae=VAEConfig(
        block_out_channels=(32, 32),
        temporal_compression_ratio=2,
        latent_channels=4,
      ),
    )
    video = VideoConfig(12, 18, 7, tiling=True)
    self.assertEqual(sizes.latent_shape(other, video), (4, 6, 9, 4))
    with self.assertRaisesRegex(UserError, 'multiples of 6 pixels'):
      sizes.latent_shape(other, dataclasses.replace(video, width=16))
    with self.assertRaisesRegex(UserError, '2 k \\+ 1 frames, such as 7 or 9'):
      sizes.latent_shape(other, dataclasses.replace(video, num_frames=8))

  @parameterized.parameters(0, -16, 8, 15, 17, 24, 481)
  def test_no_multiple(self, size):
    for name in ('height', 'width'):
      video = dataclasses.replace(
        VideoConfig(480, 720, 49, tiling=True), **{name: size}
      )
      with self.assertRaises(UserError) as caught:
        sizes.latent_shape(PUBLISHED, video)
      self.assertEqual(
        str(caught.exception),
        f'video.{name} is {size}; this model needs multiples of 16 pixels',
      )

  @parameterized.parameters(
    (48, '45 or 49'),
    (50, '49 or 53'),
    (8, '5 or 9'),
    (2, '1 or 5'),
    (0, '1 or 5'),
    (-3, '1 or 5'),
    (-48, '1 or 5'),
  )
  def test_frames(self, num_frames, near):
    with self.assertRaises(UserError) as caught:
      sizes.latent_shape(
        PUBLISHED, VideoConfig(480, 720, num_frames, tiling=True)
      )
    self.assertEqual(
      str(caught.exception),
      f'video.num_frames is {num_frames}; this model needs 4 k + 1 frames, '
      f'such as {near}',
    )


class DecodedFramesTest(parameterized.TestCase):
  def test_published(self):
    network = PUBLISHED.declare('vae')
    for tiling in (False, True):
      video = VideoConfig(480, 720, 49, tiling)
      self.assertEqual(sizes.decoded_frames(PUBLISHED, network, video), 49)

  @parameterized.parameters((1, 1), (5, 8), (9, 9), (13, 16), (17, 17))
  def test_frames(self, asked, expected):
    video = VideoConfig(16, 32, asked, tiling=False)
    found = sizes.decoded_frames(model(), declared(), video)
    self.assertEqual(found, expected)

  def test_frames_in_tiles(self):
    video = VideoConfig(112, 176, 13, tiling=True)
    found = sizes.decoded_frames(model(), declared(), video)
    self.assertEqual(found, 16)

  def test_tiles_that_do_not_meet(self):
    # Tiles are 4 x 6 latents and 32 x 48 pixels. A sixth of 4 is no latent but
    # 5 pixels, so that one starts 24 and is written 27 pixels after the other.
    options = {'sample_height': 64, 'sample_width': 96}
    decoded = sizes.decoded_frames
    chosen, network = model(**options), declared(**options)
    video = VideoConfig(64, 32, 9, tiling=True)
    with self.assertRaises(UserError) as caught:
      decoded(chosen, network, video)
    text = str(caught.exception)
    self.assertRegex(
      text,
      r'^video: 64 x 32 pixels decode to \d+ x \d+: the tiles of this '
      'autoencoder do not join exactly; choose another size, or set '
      'video.tiling = False$',
    )
    whole = dataclasses.replace(video, tiling=False)
    self.assertEqual(decoded(chosen, network, whole), 9)

  def test_bad_size_is_told_first(self):
    with self.assertRaisesRegex(UserError, 'video.width is 40'):
      sizes.decoded_frames(model(), declared(), VideoConfig(48, 40, 9, True))
