"""The video autoencoder compared with diffusers' AutoencoderKLCogVideoX."""

import functools
import json
import math

from absl.testing import absltest, parameterized
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import errors
from lift_jax.models import functional
from lift_jax.models.cogvideox import vae as vae_lib
from lift_jax.models.cogvideox import vae_convert, vae_tiling
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.weights import conversion, param_paths
from tests import torch_weights
from tests.optional import diffusers, torch

# All kinds of blocks of the published network, narrow; tiles of 6 x 5 latents.
TINY = VAEConfig(
  block_out_channels=(4, 8, 8, 12),
  latent_channels=3,
  layers_per_block=1,
  norm_num_groups=2,
  sample_height=96,
  sample_width=80,
)

# The same tiles around the fewest blocks, as tiles take many compilations.
SHALLOW = VAEConfig(
  block_out_channels=(4, 8),
  latent_channels=3,
  layers_per_block=1,
  norm_num_groups=2,
  temporal_compression_ratio=2,
  sample_height=24,
  sample_width=20,
)

# Of the output's largest absolute value. Sums in another order differ by about
# 1e-6; a wrong frame, blend or chunk by 1e-2 and more.
TOLERANCE = 1e-4

# Compiling takes far longer than running these models.
QUICK = {'xla_backend_optimization_level': 0}


@functools.cache
def model_of(config, dtype=jnp.float32):
  return functional.functional(
    lambda rngs: vae_lib.VAE(config, dtype=dtype, rngs=rngs)
  )


@functools.cache
def reference(config):
  """A random diffusers model; no parameter has its default value."""
  torch.manual_seed(0)
  model = diffusers.AutoencoderKLCogVideoX.from_config(config.to_json())
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  return model.eval()


@functools.cache
def ours(config):
  """Converted parameters, and compiled encode and decode."""
  model = model_of(config)
  params = torch_weights.params_from_torch(
    vae_convert.VAE_TABLE, model.abstract_params, reference(config)
  )

  def method(name):
    run = functools.partial(model, method=name)
    return jax.jit(run, static_argnames='tiling', compiler_options=QUICK)

  return params, method('encode'), method('decode')


def to_torch(x_bthwc):
  return torch.tensor(np.array(x_bthwc)).permute(0, 4, 1, 2, 3).contiguous()


def from_torch(x_bcthw):
  return x_bcthw.permute(0, 2, 3, 4, 1).numpy()


def check_encode(config, video, tiling):
  model = reference(config)
  model.use_tiling = tiling
  with torch.no_grad():
    expected = model.encode(to_torch(video)).latent_dist
  params, encode, _ = ours(config)
  posterior = encode(params, video, tiling=tiling)
  assert_close(posterior.mean, from_torch(expected.mean))
  assert_close(posterior.logvar, from_torch(expected.logvar))


def check_decode(config, latents, tiling):
  model = reference(config)
  model.use_tiling = tiling
  with torch.no_grad():
    expected = model.decode(to_torch(latents)).sample
  params, _, decode = ours(config)
  assert_close(decode(params, latents, tiling=tiling), from_torch(expected))


def uniform(*shape, seed=1):
  values = np.random.default_rng(seed).uniform(-1, 1, shape)
  return jnp.asarray(values, jnp.float32)


def assert_close(actual, expected):
  assert actual.dtype == jnp.float32
  # The test is meaningful: the output is not nearly constant.
  assert np.std(expected) > 1e-2 * np.abs(expected).max()
  error = torch_weights.scaled_error(actual, expected)
  assert error <= TOLERANCE, error


class ParityTest(parameterized.TestCase):
  # Frames: 1 and 5 are one short chunk, 9 one long, 17 is 9 + 8 and 45 is
  # 13 + 4 * 8. Sizes: multiples of 8, and one that is rounded down.
  @parameterized.parameters(
    (1, 16, 24), (5, 16, 24), (9, 20, 29), (17, 16, 40), (45, 8, 16),
  )  # fmt: skip
  def test_encode(self, num_frames, height, width):
    check_encode(TINY, uniform(2, num_frames, height, width, 3), False)

  # Latents: 1, 2 + 2, 3 + 2 and 3 + 4 * 2.
  @parameterized.parameters((1, 2, 3), (4, 3, 2), (5, 2, 5), (11, 1, 2))
  def test_decode(self, num_frames, height, width):
    check_decode(TINY, uniform(2, num_frames, height, width, 3), False)

  # Of tiles: 3 x 3 in four shapes, as published; one column, with a last row
  # thinner than the others; one row, in two chunks.
  @parameterized.parameters((9, 24, 20), (9, 22, 10), (17, 12, 18))
  def test_encode_tiled(self, num_frames, height, width):
    check_encode(SHALLOW, uniform(1, num_frames, height, width, 3), True)

  @parameterized.parameters((3, 12, 10), (3, 11, 5), (5, 6, 9))
  def test_decode_tiled(self, num_frames, height, width):
    check_decode(SHALLOW, uniform(1, num_frames, height, width, 3), True)

  def test_tiled_with_all_blocks(self):
    check_decode(TINY, uniform(1, 3, 6, 7, 3), True)

  def test_no_tiling_if_one_tile_is_enough(self):
    params, encode, decode = ours(SHALLOW)
    video, latents = uniform(1, 1, 12, 10, 3), uniform(1, 1, 6, 5, 3)
    np.testing.assert_array_equal(
      encode(params, video, tiling=True).mean,
      encode(params, video, tiling=False).mean,
    )
    np.testing.assert_array_equal(
      decode(params, latents, tiling=True),
      decode(params, latents, tiling=False),
    )


class CausalityTest(absltest.TestCase):
  # GroupNorm mixes the frames of one chunk, so the arrow of time shows between
  # chunks: 17 frames are 9 + 8, 5 latents are 3 + 2.

  def test_encode_ignores_later_chunks(self):
    params, encode, _ = ours(TINY)
    video = uniform(2, 17, 16, 40, 3)
    before = encode(params, video, tiling=False).mean
    changed = video.at[:, 9].multiply(-1)
    after = encode(params, changed, tiling=False).mean
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    self.assertTrue(np.all(np.any(before[:, 3:] != after[:, 3:], (2, 3, 4))))

  def test_encode_remembers_earlier_chunks(self):
    params, encode, _ = ours(TINY)
    video = uniform(2, 17, 16, 40, 3)
    before = encode(params, video, tiling=False).mean
    changed = video.at[:, 8].multiply(-1)
    after = encode(params, changed, tiling=False).mean
    self.assertTrue(np.all(np.any(before != after, (2, 3, 4))))

  def test_decode_ignores_later_chunks(self):
    params, _, decode = ours(TINY)
    latents = uniform(2, 5, 2, 5, 3)
    before = decode(params, latents, tiling=False)
    changed = latents.at[:, 3].multiply(-1)
    after = decode(params, changed, tiling=False)
    np.testing.assert_array_equal(before[:, :9], after[:, :9])
    self.assertTrue(np.all(np.any(before[:, 9:] != after[:, 9:], (2, 3, 4))))

  def test_convolution_in_parts_is_convolution(self):
    conv = vae_lib.CausalConv(
      2, 3, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0)
    )
    x = uniform(1, 7, 4, 5, 2)
    whole, _ = conv(x, None)
    parts, cache = [], None
    for start, stop in ((0, 1), (1, 3), (3, 4), (4, 7)):
      part, cache = conv(x[:, start:stop], cache)
      parts.append(part)
    np.testing.assert_allclose(
      jnp.concatenate(parts, axis=1), whole, rtol=0, atol=1e-6
    )

  def test_convolution_ignores_the_future(self):
    conv = vae_lib.CausalConv(
      2, 3, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0)
    )
    x = uniform(1, 6, 4, 5, 2)
    slope = jax.grad(lambda x: conv(x, None)[0][:, 3].sum())(x)
    moved = np.any(slope != 0, axis=(0, 2, 3, 4))
    self.assertEqual(moved.tolist(), [False, True, True, True, False, False])


class FrameByFrameTest(parameterized.TestCase):
  """The implementation of convolutions on CPUs."""

  @parameterized.parameters((jnp.float32, 1e-5), (jnp.bfloat16, 2e-2))
  def test_same(self, dtype, tolerance):
    conv = vae_lib.CausalConv(3, 5, dtype=dtype, rngs=nnx.Rngs(0))
    conv.bias[...] = jnp.arange(5.0)
    x_bthwc = jax.random.normal(jax.random.key(1), (2, 6, 5, 4, 3), dtype)
    published = nnx.Conv.__call__(conv, x_bthwc)
    ours = conv._frame_by_frame(x_bthwc)
    self.assertEqual((ours.shape, ours.dtype), ((2, 4, 5, 4, 5), dtype))
    np.testing.assert_allclose(
      np.asarray(ours, np.float32),
      np.asarray(published, np.float32),
      atol=tolerance * float(jnp.abs(published).max()),
    )


class PosteriorTest(absltest.TestCase):
  def test_log_variance_is_bounded(self):
    params, encode, _ = ours(TINY)
    conv_out = params['encoder']['conv_out']
    bias = jnp.array([0.0, 0, 0, 100, -100, 0])
    encoder = params['encoder'] | {'conv_out': conv_out | {'bias': bias}}
    video = uniform(2, 1, 16, 24, 3)
    logvar = encode(params | {'encoder': encoder}, video, tiling=False).logvar
    np.testing.assert_array_equal(logvar[..., 0], 20.0)
    np.testing.assert_array_equal(logvar[..., 1], -30.0)


class PrecisionTest(parameterized.TestCase):
  def test_norm_is_fp32_with_the_published_epsilon(self):
    norm = vae_lib.Norm(
      TINY,
      4,
      False,
      dtype=jnp.bfloat16,
      param_dtype=jnp.float32,
      rngs=nnx.Rngs(0),
    )
    # Two groups of two channels, with a variance near epsilon.
    x = (1e-3 * uniform(1, 3, 4, 5, 4)).astype(jnp.bfloat16)
    groups = np.asarray(x, np.float64).reshape(60, 2, 2)
    centred = groups - groups.mean(axis=(0, 2), keepdims=True)
    variance = (centred**2).mean(axis=(0, 2), keepdims=True)
    expected = (centred / np.sqrt(variance + 1e-6)).reshape(x.shape)
    actual = norm(x, None)
    self.assertEqual(actual.dtype, jnp.float32)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)

  @parameterized.parameters(
    ('encode', (2, 5, 16, 24, 3)), ('decode', (2, 1, 2, 3, 3))
  )
  def test_bf16_is_close_and_returns_fp32(self, method, shape):
    params, encode, decode = ours(TINY)
    x = uniform(*shape)
    exact = {'encode': encode, 'decode': decode}[method](
      params, x, tiling=False
    )
    model = model_of(TINY, jnp.bfloat16)
    run = jax.jit(
      functools.partial(model, method=method), compiler_options=QUICK
    )
    convolutions = [
      line
      for line in run.lower(params, x).as_text().splitlines()
      if 'stablehlo.convolution' in line
    ]
    self.assertNotEmpty(convolutions)
    for line in convolutions:
      self.assertRegex(line, r': \(tensor<[\dx]*bf16>, tensor<[\dx]*bf16>\)')
    rough = run(params, x)
    if method == 'encode':
      rough, exact = rough.mean, exact.mean
    self.assertEqual(rough.dtype, jnp.float32)
    error = jnp.sqrt(jnp.mean((rough - exact) ** 2)) / jnp.std(exact)
    self.assertBetween(float(error), 1e-4, 5e-2)


class FullSizeTest(absltest.TestCase):
  def test_counts(self):
    def count(tree):
      return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))

    shapes = model_of(VAEConfig()).abstract_params
    self.assertEqual(count(shapes), 215_583_907)
    self.assertEqual(count(shapes['encoder']), 92_215_456)
    self.assertEqual(count(shapes['decoder']), 123_368_451)

  def test_table_is_total(self):
    with torch.device('meta'):
      published = diffusers.AutoencoderKLCogVideoX().state_dict()
    sources = conversion.resolve(
      vae_convert.VAE_TABLE, model_of(VAEConfig()).abstract_params
    )
    self.assertEqual(
      {source.names: source.shape for source in sources.values()},
      {(name,): tuple(leaf.shape) for name, leaf in published.items()},
    )

  def test_names(self):
    names = param_paths.flatten(model_of(VAEConfig()).abstract_params)
    self.assertIn('encoder/down_blocks/0/resnets/1/conv1/kernel', names)
    self.assertIn('decoder/up_blocks/3/resnets/0/norm1/gain/kernel', names)

  def test_shapes(self):
    model = model_of(VAEConfig(), jnp.bfloat16)
    video = jax.ShapeDtypeStruct((1, 49, 480, 720, 3), jnp.float32)
    posterior = jax.eval_shape(
      functools.partial(model, method='encode', tiling=True),
      model.abstract_params,
      video,
    )
    self.assertEqual(posterior.mean.shape, (1, 13, 60, 90, 16))
    self.assertEqual(posterior.logvar.shape, (1, 13, 60, 90, 16))
    decoded = jax.eval_shape(
      functools.partial(model, method='decode', tiling=True),
      model.abstract_params,
      posterior.mean,
    )
    self.assertEqual(decoded.shape, video.shape)


class LayoutTest(parameterized.TestCase):
  def test_published_tiles(self):
    for make_tiles, height, width, scale in (
      (vae_tiling.encode_tiles, 480, 720, 8),
      (vae_tiling.decode_tiles, 60, 90, 1),
    ):
      plan = vae_tiling.layout(*make_tiles(VAEConfig()), height, width)
      rows = [(start // scale, size // scale) for start, size in plan.rows]
      columns = [
        (start // scale, size // scale) for start, size in plan.columns
      ]
      self.assertEqual(rows, [(0, 30), (25, 30), (50, 10)])
      self.assertEqual(columns, [(0, 45), (36, 45), (72, 18)])
      self.assertEqual(
        sorted(len(places) for places in plan.groups.values()), [1, 2, 2, 4]
      )

  def test_published_blends(self):
    self.assertEqual(
      vae_tiling.encode_tiles(VAEConfig()),
      ((240, 200, 5, 25), (360, 288, 9, 36)),
    )
    self.assertEqual(
      vae_tiling.decode_tiles(VAEConfig()),
      ((30, 25, 40, 200), (45, 36, 72, 288)),
    )

  @parameterized.parameters(
    (1, 8, [1]), (7, 8, [7]), (8, 8, [8]), (13, 8, [13]), (16, 8, [8, 8]),
    (49, 8, [9, 8, 8, 8, 8, 8]), (45, 8, [13, 8, 8, 8, 8]),
    (13, 2, [3, 2, 2, 2, 2, 2]), (1, 2, [1]),
  )  # fmt: skip
  def test_chunks(self, num_frames, chunk, expected):
    traced = []

    def run(x, cache):
      traced.append(x.shape[1])
      number = jnp.int32(0) if cache is None else cache
      y = jnp.concatenate([x, jnp.full_like(x, number)], axis=-1)
      return y, number + 1

    x = jnp.arange(num_frames).reshape(1, num_frames, 1, 1, 1)
    result = vae_tiling.run_chunks(run, x, chunk)[0, :, 0, 0]
    self.assertEqual(result[:, 0].tolist(), list(range(num_frames)))
    numbers = [n for n, size in enumerate(expected) for _ in range(size)]
    self.assertEqual(result[:, 1].tolist(), numbers)
    self.assertLessEqual(len(traced), 2)

  def test_too_small_tiles_are_refused(self):
    model = model_of(TINY)
    for height, tiling in ((4, False), (84, True)):  # 84 leaves a tile of 4
      video = jax.ShapeDtypeStruct((1, 1, height, 16, 3), jnp.float32)
      with self.assertRaisesRegex(errors.UserError, 'multiples of 8'):
        jax.eval_shape(
          functools.partial(model, method='encode', tiling=tiling),
          model.abstract_params,
          video,
        )


class ConfigTest(parameterized.TestCase):
  def test_round_trip_through_diffusers(self):
    for config in (
      VAEConfig(),
      VAEConfig(scaling_factor=0.7, invert_scale_latents=True),
      TINY,
    ):
      with torch.device('meta'):
        model = diffusers.AutoencoderKLCogVideoX.from_config(config.to_json())
      written = json.loads(model.to_json_string())
      self.assertEqual(VAEConfig.from_json(written), config)
      self.assertEqual(written, written | config.to_json())

  @parameterized.parameters(
    ({'_class_name': 'AutoencoderKL'}, 'AutoencoderKLCogVideoX'),
    ({'act_fn': 'gelu'}, "act_fn='gelu' .only 'silu'"),
    ({'use_quant_conv': True}, 'use_quant_conv'),
    ({'latents_mean': [0.0] * 16}, 'latents_mean'),
    ({'down_block_types': ['DownBlock'] * 4}, 'down_block_types'),
    ({'up_block_types': None}, 'up_block_types'),
    ({'z_dim': 16}, 'z_dim .unknown'),
    ({'layers_per_block': 'three'}, "layers_per_block='three'"),
    ({'latent_channels': 0}, 'latent_channels=0'),
    ({'block_out_channels': [128, 200]}, 'multiples of norm_num_groups 32'),
    ({'block_out_channels': []}, 'block_out_channels'),
    ({'temporal_compression_ratio': 3}, 'power of two'),
    ({'temporal_compression_ratio': 16}, 'power of two'),
  )
  def test_refuses(self, change, message):
    with self.assertRaisesRegex(errors.UserError, f'^a/b.json: .*{message}'):
      VAEConfig.from_json(VAEConfig().to_json() | change, source='a/b.json')

  def test_accepts(self):
    self.assertEqual(VAEConfig.from_json({}), VAEConfig())
    self.assertEqual(
      VAEConfig.from_json(
        {
          '_diffusers_version': '0.30.0.dev0',
          '_name_or_path': 'somewhere',
          'temporal_compression_ratio': 4.0,
        }
      ),
      VAEConfig(),
    )


if __name__ == '__main__':
  absltest.main()
