"""Sampling and decoding against diffusers' pipeline, on any mesh."""

import functools
import json

from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.diffusion import sampler, step_cache
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.convert import TRANSFORMER_TABLE
from lift_jax.models.cogvideox.sharding import TRANSFORMER_RULES
from lift_jax.models.cogvideox.transformer import Transformer
from lift_jax.models.cogvideox.vae import VAE
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.cogvideox.vae_convert import VAE_TABLE
from lift_jax.models.functional import functional
from lift_jax.models.latents import LatentScale
from lift_jax.partitioning import BATCH
from lift_jax.sampling.programs import decode_latents, denoise, measure_steps
from tests.models.cogvideox.reference import reference
from tests.optional import diffusers, torch
from tests.torch_weights import params_from_torch, scaled_error

LATENT_SHAPE = (3, 8, 12, 16)
UNSCALED = LatentScale(1.0)
DRAWS = 'diffusers.schedulers.scheduling_dpm_cogvideox.randn_tensor'


@functools.cache
def pipeline(rotary):
  """The published pipeline around tiny networks.

  The autoencoder makes four frames of a latent, as published, but 4 x 4 pixels
  in place of 8 x 8, which compiles faster; its tiles are 4 x 6 latents.
  """
  torch.manual_seed(1)
  config = VAEConfig(
    block_out_channels=(4, 8, 8),
    layers_per_block=1,
    norm_num_groups=2,
    sample_height=32,
    sample_width=48,
  )
  vae = diffusers.AutoencoderKLCogVideoX.from_config(config.to_json()).eval()
  with torch.no_grad():
    for parameter in vae.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
    # Frames are then seldom clipped to black or white.
    vae.decoder.conv_out.conv.weight.mul_(0.5)
  pipe = diffusers.CogVideoXPipeline(
    tokenizer=None,
    text_encoder=None,
    vae=vae,
    transformer=reference(rotary, time_embed_dim=16, text_embed_dim=32),
    scheduler=diffusers.CogVideoXDDIMScheduler(),
  )
  pipe.set_progress_bar_config(disable=True)
  return pipe


@functools.cache
def networks(rotary):
  """((transformer, its parameters), (autoencoder, its parameters))."""
  pipe = pipeline(rotary)
  config = TransformerConfig.from_json(pipe.transformer.config)
  transformer = functional(lambda rngs: Transformer(config, rngs=rngs))
  vae_config = VAEConfig.from_json(json.loads(pipe.vae.to_json_string()))
  vae = functional(lambda rngs: VAE(vae_config, rngs=rngs))
  return (
    (
      transformer,
      params_from_torch(
        TRANSFORMER_TABLE, transformer.abstract_params, pipe.transformer
      ),
    ),
    (vae, params_from_torch(VAE_TABLE, vae.abstract_params, pipe.vae)),
  )


def texts(batch):
  rng = np.random.default_rng(0)
  text = rng.normal(size=(batch, 7, 32)).astype(np.float32)
  return text, rng.normal(size=(7, 32)).astype(np.float32)


def noise_of(latent_shape, batch):
  rng = np.random.default_rng(1)
  return rng.normal(size=(batch, *latent_shape)).astype(np.float32)


def video_size(latent_shape):
  frames, height, width, _ = latent_shape
  size = {'height': 4 * height, 'width': 4 * width}
  return size | {'num_frames': 4 * frames - 3}


def channels_second(x_bfhwc):
  return torch.tensor(np.array(x_bfhwc)).permute(0, 1, 4, 2, 3)


def run_diffusers(rotary, config, latent_shape, batch, monkeypatch):
  """Initial noise, noises of the steps and latents of the published pipeline.

  The noise of a step is the last one that its scheduler draws in it.
  """
  pipe = pipeline(rotary)
  kinds = {
    'ddim': diffusers.CogVideoXDDIMScheduler,
    'dpm': diffusers.CogVideoXDPMScheduler,
  }
  schedule = ScheduleConfig(snr_shift_scale=1.0 if rotary else 3.0)
  pipe.scheduler = kinds[config.name].from_config(
    schedule.to_json() | {'trained_betas': None}
  )
  text, negative = texts(batch)
  start = noise_of(latent_shape, batch)
  drawn, used = [], []
  draw = diffusers.utils.torch_utils.randn_tensor

  def record(*args, **kwargs):
    drawn.append(draw(*args, **kwargs))
    return drawn[-1]

  def end_of_step(*_):
    used.extend(x.permute(0, 1, 3, 4, 2).numpy() for x in drawn[-1:])
    return {}

  monkeypatch.setattr(DRAWS, record)
  latents = pipe(
    prompt_embeds=torch.tensor(text),
    negative_prompt_embeds=torch.tensor(negative).expand(batch, -1, -1),
    num_inference_steps=config.num_steps,
    guidance_scale=config.guidance_scale,
    use_dynamic_cfg=config.dynamic_guidance == 'timestep',
    latents=channels_second(start),
    generator=torch.Generator().manual_seed(2),
    callback_on_step_end=end_of_step,
    output_type='latent',
    **video_size(latent_shape),
  ).frames
  noises = np.stack(used) if used else None
  return start, noises, latents.permute(0, 1, 3, 4, 2).numpy()


def frames_of_diffusers(rotary, latents, tiling):
  pipe = pipeline(rotary)
  pipe.vae.use_tiling = tiling
  with torch.no_grad():
    video = pipe.decode_latents(channels_second(latents))
  return pipe.video_processor.postprocess_video(video, output_type='np')


def run_ours(rotary, config, latent_shape, batch, **noises):
  model, params = networks(rotary)[0]
  schedule = ScheduleConfig(snr_shift_scale=1.0 if rotary else 3.0)
  return denoise(
    model,
    params,
    schedule,
    config,
    *texts(batch),
    latent_shape=latent_shape,
    **noises,
  )


DPM = SamplerConfig('dpm', dynamic_guidance='timestep')
DDIM = SamplerConfig('ddim')


class PipelineTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _monkeypatch(self, monkeypatch):
    self.monkeypatch = monkeypatch

  # Frames 9, 13 and 49; the size of training, others, and a width of latents
  # that takes one and two thirds of a tile.
  @parameterized.named_parameters(
    ('ddim_2b', False, DDIM, (3, 8, 12, 16), False),
    ('ddim_5b', True, DDIM, (4, 4, 6, 16), False),
    ('dpm_2b_tiled', False, DPM, (3, 2, 10, 16), True),
    ('dpm_5b', True, DPM, (4, 8, 12, 16), False),
    ('dpm_5b_49_frames', True, DPM, (13, 2, 4, 16), False),
  )
  def test_latents_and_frames(self, rotary, config, latent_shape, tiling):
    start, noises, expected = run_diffusers(
      rotary, config, latent_shape, 2, self.monkeypatch
    )
    self.assertEqual(noises is None, config.name == 'ddim')
    latents = run_ours(
      rotary,
      config,
      latent_shape,
      2,
      initial_noise=start,
      step_noise=noises,
    )
    self.assertEqual(latents.dtype, jnp.float32)
    self.assertLess(scaled_error(latents, expected), 1e-3)

    vae, params = networks(rotary)[1]
    factor = pipeline(rotary).vae.config.scaling_factor
    video = decode_latents(vae, params, latents, LatentScale(factor), tiling)
    self.assertEqual(video.dtype, jnp.uint8)
    frames = 255 * frames_of_diffusers(rotary, expected, tiling)
    # The case says something: frames are neither flat nor all clipped.
    self.assertGreater(frames.std(), 20)
    self.assertLess(np.mean((frames == 0) | (frames == 255)), 0.3)
    self.assertEqual(video.shape, frames.shape)
    self.assertLessEqual(np.abs(video - frames).max(), 2)

  @parameterized.parameters(
    SamplerConfig('ddim', 7, reference=True),
    SamplerConfig('dpm', 30, dynamic_guidance='timestep', reference=True),
    SamplerConfig('dpm', 7, guidance_scale=1.0, reference=True),
  )
  def test_other_numbers_of_steps(self, config):
    shape = (3, 4, 6, 16)
    start, noises, expected = run_diffusers(
      False, config, shape, 1, self.monkeypatch
    )
    latents = run_ours(
      False, config, shape, 1, initial_noise=start, step_noise=noises
    )
    self.assertLess(scaled_error(latents, expected), 1e-3)


# Of a pipeline of 8 steps; a curve that is not smooth, so that the steps that
# are skipped are no pattern.
CURVE = (1.0, 1.03, 0.97, 1.2, 0.99, 1.02, 0.98, 1.01)


class CacheTest(parameterized.TestCase):
  """MagCache of diffusers, and of ours."""

  shape = (3, 4, 6, 16)

  @pytest.fixture(autouse=True)
  def _setting(self, monkeypatch, capsys):
    self.monkeypatch, self.capsys = monkeypatch, capsys

  def run_diffusers(self, rotary, config, **settings):
    """As above; and which steps ran the blocks."""
    transformer = pipeline(rotary).transformer
    blocks_of_steps = []

    def begin(*_):
      blocks_of_steps.append(0)

    def count(*_):
      blocks_of_steps[-1] += 1

    hooks = [
      transformer.register_forward_pre_hook(begin),
      *(
        block.attn1.register_forward_hook(count)
        for block in transformer.transformer_blocks
      ),
    ]
    transformer.enable_cache(
      diffusers.MagCacheConfig(num_inference_steps=config.num_steps, **settings)
    )
    try:
      results = run_diffusers(rotary, config, self.shape, 2, self.monkeypatch)
    finally:
      transformer.disable_cache()
      for hook in hooks:
        hook.remove()
    return *results, np.array(blocks_of_steps) > 0

  @parameterized.parameters(
    (False, SamplerConfig('ddim', 8), 0.06, 3, 0.2),
    (True, SamplerConfig('dpm', 8, dynamic_guidance='timestep'), 0.3, 2, 0.0),
  )
  def test_is_that_of_diffusers(self, rotary, config, threshold, skips, start):
    noise, noises, expected, is_computed = self.run_diffusers(
      rotary,
      config,
      mag_ratios=list(CURVE),
      threshold=threshold,
      max_skip_steps=skips,
      retention_ratio=start,
    )
    curve = np.array([CURVE, CURVE])
    ours = step_cache.magcache_steps(curve, threshold, skips, start)
    np.testing.assert_array_equal(ours, is_computed)
    self.assertBetween(ours.sum(), 3, 5)
    latents = run_ours(
      rotary, config, self.shape, 2, initial_noise=noise, step_noise=noises,
      is_computed=ours,
    )  # fmt: skip
    self.assertLess(scaled_error(latents, expected), 1e-5)

  def test_curve_is_that_of_diffusers(self):
    config = SamplerConfig('ddim', 4)
    self.run_diffusers(False, config, calibrate=True)
    printed = self.capsys.readouterr().out
    expected = json.loads(
      printed[printed.index('[1') : printed.rindex(']') + 1]
    )
    model, params = networks(False)[0]
    arguments = (model, params, ScheduleConfig(), config, *texts(2))
    changes = measure_steps(
      *arguments, latent_shape=self.shape,
      initial_noise=noise_of(self.shape, 2),
    )  # fmt: skip
    self.assertEqual(changes.residual_kn.shape, (2, 4))
    self.assertGreater(np.ptp(changes.residual_kn, axis=0).max(), 1e-3)
    np.testing.assert_allclose(
      changes.residual_kn.mean(axis=0), expected, rtol=1e-5
    )


def place(mesh, batch):
  """Parameters and inputs of a batch on a mesh, as a job lays them out."""
  model, params = networks(False)[0]
  shardings = partitioning.param_shardings(
    TRANSFORMER_RULES, model.abstract_params, mesh
  )
  params = jax.tree.map(jax.device_put, params, shardings)
  text, negative = texts(batch)
  rows = NamedSharding(mesh, BATCH)
  return (
    params,
    jax.device_put(text, rows),
    jax.device_put(negative, NamedSharding(mesh, P())),
    jax.device_put(sampler.clip_keys(range(batch)), rows),
  )


class LayoutTest(parameterized.TestCase):
  shape = (3, 4, 6, 16)
  config = DPM

  def alone(self, chosen, **options):
    """Latents of clips sampled one by one on one device."""
    model, params = networks(False)[0]
    text, negative = texts(8)
    return np.concatenate(
      [
        denoise(
          model,
          params,
          ScheduleConfig(),
          self.config,
          text[i : i + 1],
          negative,
          latent_shape=self.shape,
          keys_b2=sampler.clip_keys([i]),
          **options,
        )
        for i in chosen
      ]
    )

  def test_batch_and_order(self):
    model, params = networks(False)[0]
    text, negative = texts(8)
    chosen = [6, 0, 3, 1]
    ours = denoise(
      model,
      params,
      ScheduleConfig(),
      self.config,
      text[chosen],
      negative,
      latent_shape=self.shape,
      keys_b2=sampler.clip_keys(chosen),
    )
    self.assertLess(scaled_error(ours, self.alone(chosen)), 1e-5)

  @parameterized.parameters(
    ({'data': 8},),
    ({'data': 2, 'fsdp': 2, 'tensor': 2},),
    ({'fsdp': 2, 'context': 4},),
    ({'context': 4, 'tensor': 2},),
  )
  def test_mesh(self, axes):
    sizes = {'data': 1, 'fsdp': 1, 'context': 1, 'tensor': 1} | axes
    mesh = partitioning.make_mesh(partitioning.MeshConfig(**sizes))
    model = networks(False)[0][0]
    params, text, negative, keys = place(mesh, 8)
    with jax.set_mesh(mesh):
      ours = denoise(
        model,
        params,
        ScheduleConfig(),
        self.config,
        text,
        negative,
        latent_shape=self.shape,
        keys_b2=keys,
      )
    self.assertLess(scaled_error(ours, self.alone(range(8))), 1e-5)

  def test_mesh_with_skipped_steps(self):
    mesh = partitioning.make_mesh(
      partitioning.MeshConfig(data=2, fsdp=1, context=2, tensor=2)
    )
    model = networks(False)[0][0]
    params, text, negative, keys = place(mesh, 8)
    skips = {'is_computed': np.arange(50) % 3 != 1}
    with jax.set_mesh(mesh):
      ours = denoise(
        model,
        params,
        ScheduleConfig(),
        self.config,
        text,
        negative,
        latent_shape=self.shape,
        keys_b2=keys,
        **skips,
      )
    expected = self.alone([0, 7], **skips)
    self.assertLess(scaled_error(ours[np.array([0, 7])], expected), 1e-5)
    self.assertGreater(scaled_error(self.alone([0, 7]), expected), 1e-3)

  def test_decode(self):
    """Clips spread over all devices, and over the batch axes alone."""
    vae, params = networks(False)[1]
    latents = noise_of((1, 2, 3, 16), 8)
    one_by_one = np.concatenate(
      [decode_latents(vae, params, x[None], UNSCALED, False) for x in latents]
    )
    mesh = partitioning.make_mesh(
      partitioning.MeshConfig(data=2, fsdp=1, context=2, tensor=2)
    )
    with jax.set_mesh(mesh):
      for batch, devices in ((8, 8), (4, 2)):
        video = decode_latents(vae, params, latents[:batch], UNSCALED, False)
        shards = {str(shard.index) for shard in video.addressable_shards}
        self.assertLen(shards, devices)
        # Another order of sums may turn a rounding.
        difference = np.abs(np.int32(video) - one_by_one[:batch])
        self.assertLessEqual(difference.max(), 1)
        self.assertLess(np.mean(difference > 0), 1e-3)

  def test_memory_of_decode_does_not_grow_with_the_batch(self):
    vae, params = networks(False)[1]

    def temporary_bytes(batch):
      latents = noise_of((1, 2, 3, 16), batch)
      program = decode_latents.lower(
        vae, params, latents, UNSCALED, False
      ).compile()
      return program.memory_analysis().temp_size_in_bytes

    one, eight = temporary_bytes(1), temporary_bytes(8)
    self.assertLess(eight, 1.2 * one)


class ProgramTest(parameterized.TestCase):
  shape = (2, 2, 2, 16)

  def arguments(self, config, seed):
    model, params = networks(False)[0]
    text, negative = texts(2)
    fixed = (model, params, ScheduleConfig(), config)
    return fixed + (text + np.float32(seed), negative), {
      'latent_shape': self.shape,
      'keys_b2': sampler.clip_keys([seed, seed + 1]),
    }

  def test_compiled_once(self):
    """Also for a schedule and a sampler that are equal, but other objects."""

    def run(seed):
      config = SamplerConfig('dpm', 3, dynamic_guidance='step')
      args, kwargs = self.arguments(config, seed)
      return jax.block_until_ready(denoise(*args, **kwargs))

    with jax.log_compiles():
      with self.assertLogs('jax', 'WARNING') as logs:
        first = run(0)
      self.assertLen(
        [x for x in logs.output if 'Compiling jit(denoise)' in x], 1
      )
      with self.assertNoLogs('jax', 'WARNING'):
        second = run(5)
    self.assertGreater(scaled_error(first, second), 0.1)

  def test_one_program_for_all_schedules(self):
    """Skipping is a branch of it: all blocks or none."""
    config = SamplerConfig('dpm', 4)
    args, kwargs = self.arguments(config, 0)
    program = denoise.lower(*args, **kwargs, is_computed=np.ones(4, bool))
    self.assertIn(' conditional(', program.compile().as_text())

    def run(is_computed):
      return np.array(denoise(*args, **kwargs, is_computed=is_computed))

    every = run(np.ones(4, bool))
    with jax.log_compiles(), self.assertNoLogs('jax', 'WARNING'):
      some = run(np.array([True, True, False, True]))
    self.assertGreater(scaled_error(some, every), 1e-3)
    self.assertLess(scaled_error(every, denoise(*args, **kwargs)), 1e-6)

  def test_guidance_range(self):
    """Steps outside of it take half of the batch, and no guidance."""
    config = SamplerConfig('ddim', 4, guidance_range=(1, 3))
    args, kwargs = self.arguments(config, 0)
    model, params, schedule, _, text, negative = args
    x = np.asarray(noise_of(self.shape, 2))
    batches = []

    class Spy:
      def __call__(self, params, x, text, t):
        batches.append(len(x))
        return model(params, x, text, t)

    run = functools.partial(
      denoise, Spy(), *args[1:], latent_shape=self.shape, initial_noise=x
    )
    ours = run()
    self.assertEqual(batches, [2, 4, 2])
    steps = schedule.make_steps(config)
    for i, t in enumerate(steps.timestep):
      v = model(params, x, text, np.full(2, t))
      if i in (1, 2):
        away = model(params, x, np.stack([negative] * 2), np.full(2, t))
        v = away + 6.0 * (v - away)
      x0 = steps.signal[i] * x - steps.noise[i] * v
      x = steps.from_x[i] * x + steps.from_x0[i] * x0
    self.assertLess(scaled_error(ours, x), 1e-5)

  def test_measured_phases(self):
    """Nothing is compared across the ends of the guided range."""
    args, kwargs = self.arguments(
      SamplerConfig('ddim', 5, guidance_range=(2, 4)), 0
    )
    changes = measure_steps(*args, **kwargs)
    is_start = np.array([True, False, True, False, True])
    np.testing.assert_array_equal(changes.residual_kn[0] == 1, is_start)
    np.testing.assert_array_equal(changes.output_n == 0, is_start)
    self.assertTrue(np.isfinite(changes.residual_kn).all())
    # Without guidance there is one branch, which counts for both.
    negative, positive = changes.residual_kn
    np.testing.assert_array_equal(
      negative == positive, [True, True, True, False, True]
    )

  def test_scan_is_independent_of_the_number_of_steps(self):
    """The program contains the network once."""

    def size(num_steps):
      args, kwargs = self.arguments(SamplerConfig('dpm', num_steps), 0)
      return len(denoise.lower(*args, **kwargs).as_text().splitlines())

    self.assertEqual(size(4), size(40))

  def test_guidance_one_takes_half_of_the_batch(self):
    batches = []
    model, params = networks(False)[0]

    class Spy:
      def __call__(self, params, x, text, t):
        batches.append((x.shape[0], text.shape[0], t.shape[0]))
        return model(params, x, text, t)

    for scale in (1.0, 6.0):
      config = SamplerConfig('dpm', 2, scale)
      args, kwargs = self.arguments(config, 0)
      denoise.eval_shape(Spy(), *args[1:], **kwargs)
    self.assertEqual(batches, [(2, 2, 2), (4, 4, 4)])

  def test_latents_in_the_type_of_the_network(self):
    shape = (3, 4, 6, 16)
    noises = {'initial_noise': noise_of(shape, 1)}
    ours, half = (
      run_ours(
        False, SamplerConfig('ddim', carry_dtype=dtype), shape, 1, **noises
      )
      for dtype in ('float32', 'bfloat16')
    )
    self.assertEqual(half.dtype, jnp.float32)
    np.testing.assert_array_equal(half, half.astype(jnp.bfloat16))
    self.assertBetween(scaled_error(half, ours), 1e-4, 0.05)

  def test_given_noise_is_the_drawn_noise(self):
    args, kwargs = self.arguments(SamplerConfig('dpm', 3), 4)
    drawn = [
      sampler.clip_noise(kwargs['keys_b2'], i, self.shape) for i in range(4)
    ]
    given = denoise(
      *args,
      latent_shape=self.shape,
      initial_noise=drawn[0],
      step_noise=jnp.stack(drawn[1:]),
    )
    self.assertLess(scaled_error(denoise(*args, **kwargs), given), 1e-6)
    mixed = denoise(*args, **kwargs, initial_noise=drawn[0])
    self.assertLess(scaled_error(mixed, given), 1e-6)

  @parameterized.parameters(
    ({'keys_b2': None}, 'give keys, or all noises'),
    ({'negative_text_sd': None}, 'guidance needs the embeddings'),
    ({'initial_noise': (2, 2, 2, 2, 3)}, r'initial_noise has shape \(2, 2, 2'),
    ({'step_noise': (2, 2, 2, 2, 2, 16)}, 'step_noise has shape'),
    ({'is_computed': (2,)}, r'is_computed has shape \(2,\), not \(3,\)'),
  )
  def test_missing_or_misshapen(self, change, message):
    args, kwargs = self.arguments(SamplerConfig('dpm', 3), 0)
    kwargs['negative_text_sd'] = args[5]
    for name, value in change.items():
      kwargs[name] = np.zeros(value) if isinstance(value, tuple) else value
    with pytest.raises(ValueError, match=message):
      denoise(*args[:5], **kwargs)
