"""Samplers compared with diffusers' schedulers and exact solutions."""

import dataclasses
import warnings

from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.diffusion import sampler
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.diffusion.schedule import ScheduleConfig, alpha_bars
from lift_jax.errors import UserError
from tests.optional import diffusers, torch
from tests.torch_weights import scaled_error

SCHEDULES = {
  '2b': ScheduleConfig(snr_shift_scale=3.0),
  '5b': ScheduleConfig(snr_shift_scale=1.0),
}
SHAPE = (2, 3, 4)


def some_velocity(x, t, library):
  """Any smooth function of latents and timestep."""
  return library.tanh(x * 1.3 - 0.2) * (0.5 + t / 1500) + 0.1


def make_noises(num_steps, shape=SHAPE):
  rng = np.random.default_rng(0)
  start = rng.normal(size=shape).astype(np.float32)
  return start, rng.normal(size=(num_steps, *shape)).astype(np.float32)


def run_diffusers(schedule, name, num_steps, start, noises, monkeypatch):
  """The loop of the published pipeline around its scheduler, in float64.

  `noises[i]` are made the noise that step i uses: the second where two are
  drawn.
  """
  kinds = {
    'ddim': diffusers.CogVideoXDDIMScheduler,
    'dpm': diffusers.CogVideoXDPMScheduler,
  }
  config = schedule.to_json() | {'trained_betas': None}
  scheduler = kinds[name].from_config(config)
  scheduler.set_timesteps(num_steps)
  x, before = torch.tensor(start, dtype=torch.float64), None
  timesteps = scheduler.timesteps
  for i, t in enumerate(timesteps):
    v = some_velocity(x, t.item(), torch)
    if name == 'ddim':
      x = scheduler.step(v, t, x, return_dict=False)[0]
      continue
    monkeypatch.setattr(
      'diffusers.schedulers.scheduling_dpm_cogvideox.randn_tensor',
      lambda *_, noise=noises[i], **__: torch.tensor(
        noise, dtype=torch.float64
      ),
    )
    back = timesteps[i - 1] if i else None
    x, before = scheduler.step(v, before, t, back, x, return_dict=False)
  return timesteps.numpy(), x.numpy()


def sample(velocity, steps, *args):
  """Latents of one phase without a cache."""

  def with_cache(x_b, step, cache):
    return velocity(x_b, step.timestep, step.guidance), cache

  latents, _ = sampler.sample([sampler.Phase(with_cache, steps)], *args)
  return latents


def run_ours(steps, start, noises, velocity=None):
  velocity = velocity or (lambda x, t, _: some_velocity(x, t, jnp))

  @jax.jit
  def run(start, noises):
    draw = None if noises is None else lambda index: noises[index]
    return sample(velocity, steps, start, draw)

  return run(start, noises)


class ParityTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _monkeypatch(self, monkeypatch):
    self.monkeypatch = monkeypatch

  # 1, 2 and 50 divide 1000; the others miss the next timestep in the reference,
  # 7 leaves noise; 61 has an extra step at timestep -1.
  @parameterized.product(
    name=('ddim', 'dpm'), num_steps=(1, 2, 7, 30, 49, 50, 61)
  )
  def test_reference_is_diffusers(self, name, num_steps):
    schedule = SCHEDULES['5b' if num_steps % 2 else '2b']
    config = SamplerConfig(name=name, num_steps=num_steps, reference=True)
    steps = schedule.make_steps(config)
    start, noises = make_noises(len(steps.index))
    timesteps, expected = run_diffusers(
      schedule, name, num_steps, start, noises, self.monkeypatch
    )
    np.testing.assert_array_equal(steps.timestep, timesteps)
    ours = run_ours(steps, start, noises if name == 'dpm' else None)
    self.assertLess(scaled_error(ours, expected), 1e-5)

  @parameterized.product(
    name=('ddim', 'dpm'),
    spacing=(('linspace', 0), ('leading', 0), ('leading', 1), ('trailing', 1)),
    to_one=(True, False),
    num_steps=(7, 50),
  )
  def test_published_spacings(self, name, spacing, to_one, num_steps):
    """Those that a scheduler_config.json may name; here in float64."""
    schedule = ScheduleConfig(
      timestep_spacing=spacing[0],
      steps_offset=spacing[1],
      set_alpha_to_one=to_one,
    )
    config = SamplerConfig(name=name, num_steps=num_steps, reference=True)
    steps = schedule.make_steps(config)
    start, noises = make_noises(num_steps)
    timesteps, expected = run_diffusers(
      schedule, name, num_steps, start, noises, self.monkeypatch
    )
    np.testing.assert_array_equal(steps.timestep, timesteps)
    x, previous = start.astype(np.float64), 0.0
    for i, t in enumerate(timesteps):
      x0 = steps.signal[i] * x - steps.noise[i] * some_velocity(x, t, np)
      x = steps.from_x[i] * x + steps.from_x0[i] * x0
      x = (
        x + steps.from_previous[i] * previous + steps.from_noise[i] * noises[i]
      )
      previous = x0
    # Observed 3e-7: coefficients are fp32. Another spacing differs by 1e-2.
    self.assertLess(scaled_error(x, expected), 5e-6)

  @parameterized.product(name=('ddim', 'dpm'), offset=(0, 1, 19))
  def test_leading_steps_are_those_of_the_reference(self, name, offset):
    ours, theirs = (
      ScheduleConfig(
        timestep_spacing='leading', steps_offset=offset
      ).make_steps(SamplerConfig(name, 30, reference=reference))
      for reference in (False, True)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)

  @parameterized.product(
    name=('ddim', 'dpm'), num_steps=(1, 2, 4, 5, 20, 50, 100)
  )
  def test_reference_changes_nothing_where_steps_divide(self, name, num_steps):
    ours, theirs = (
      SCHEDULES['2b'].make_steps(
        SamplerConfig(name=name, num_steps=num_steps, reference=reference),
      )
      for reference in (False, True)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


class TablesTest(parameterized.TestCase):
  @parameterized.product(
    name=('ddim', 'dpm'), reference=(False, True), schedule=('2b', '5b')
  )
  def test_finite_for_any_number_of_steps(self, name, reference, schedule):
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      for num_steps in (*range(1, 130), 499, 997, 999, 1000):
        config = SamplerConfig(name, num_steps, reference=reference)
        steps = SCHEDULES[schedule].make_steps(config)
        for table in jax.tree.leaves(steps):
          self.assertTrue(np.isfinite(table).all(), num_steps)
        if not reference:
          self.assertLen(steps.timestep, num_steps)
          self.assertEqual(steps.timestep[0], 999)
          self.assertGreaterEqual(steps.timestep[-1], 0)
          self.assertTrue((np.diff(steps.timestep) < 0).all())
          # The last step returns the clean latents.
          last = [
            float(table[-1])
            for table in (
              steps.from_x,
              steps.from_x0,
              steps.from_previous,
              steps.from_noise,
            )
          ]
          self.assertEqual(last, [0, 1, 0, 0])

  def test_timesteps_of_fifty(self):
    steps = SCHEDULES['2b'].make_steps(SamplerConfig())
    self.assertEqual(steps.timestep.tolist(), list(range(999, 0, -20)))

  @parameterized.parameters(7, 30, 49)
  def test_each_step_ends_where_the_next_begins(self, num_steps):
    """DDIM with the velocity of fixed x0 and noise stays on their line."""
    bars = alpha_bars(SCHEDULES['2b'])
    steps = SCHEDULES['2b'].make_steps(SamplerConfig(num_steps=num_steps))
    x0, noise = np.float64(0.7), np.float64(-1.1)
    x = noise
    for i, t in enumerate(steps.timestep):
      on_line = np.sqrt(bars[t]) * x0 + np.sqrt(1 - bars[t]) * noise
      self.assertAlmostEqual(x, on_line, delta=1e-5)
      x = steps.from_x[i] * x + steps.from_x0[i] * x0
    self.assertAlmostEqual(x, x0, delta=1e-6)


class KnownAnswerTest(parameterized.TestCase):
  @parameterized.product(name=('ddim', 'dpm'), num_steps=(1, 2, 7, 30, 49, 50))
  def test_perfect_velocity_returns_the_clean_latents(self, name, num_steps):
    rng = np.random.default_rng(1)
    clean = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
    a = alpha_bars(SCHEDULES['2b'])
    signal = jnp.asarray(np.sqrt(a), jnp.float32)
    noise = jnp.asarray(np.sqrt(1 - a), jnp.float32)

    def velocity(x, t, _):
      return (signal[t] * x - clean) / noise[t]

    start, noises = make_noises(num_steps)
    steps = SCHEDULES['2b'].make_steps(SamplerConfig(name, num_steps))
    out = run_ours(steps, start, noises if name == 'dpm' else None, velocity)
    self.assertLess(scaled_error(out, clean), 1e-5)

  @parameterized.product(name=('ddim', 'dpm'), num_steps=(250, 999))
  def test_normal_data(self, name, num_steps):
    """Data of N(2, 0.5^2), whose best velocity is known.

    The deterministic sampler then turns noise n into 2 + 0.5 n; the stochastic
    one draws from the data.
    """
    mean, variance = 2.0, 0.25
    a = alpha_bars(SCHEDULES['2b'])
    gain = np.sqrt(a) * variance / (a * variance + 1 - a)
    tables = [np.sqrt(a), np.sqrt(1 - a), gain]
    signal, noise, gain = (jnp.asarray(x, jnp.float32) for x in tables)

    def velocity(x, t, _):
      clean = mean + gain[t] * (x - signal[t] * mean)
      return (signal[t] * x - clean) / noise[t]

    start, _ = make_noises(1, (4000,))
    steps = SCHEDULES['2b'].make_steps(SamplerConfig(name, num_steps))
    if name == 'ddim':
      out = run_ours(steps, start, None, velocity)
      # The error decreases with the number of steps, as for first order.
      atol = 25 / num_steps
      np.testing.assert_allclose(out, mean + 0.5 * start, rtol=0, atol=atol)
    else:
      _, noises = make_noises(num_steps, (4000,))
      out = np.asarray(run_ours(steps, start, noises, velocity))
      # Four standard errors.
      self.assertAlmostEqual(out.mean(), mean, delta=0.032)
      self.assertAlmostEqual(out.std(), 0.5, delta=0.023)
      self.assertLess(abs(np.corrcoef(out, start)[0, 1]), 0.064)

  def test_carry_in_half_precision(self):
    start, noises = make_noises(50)
    steps = SCHEDULES['2b'].make_steps(SamplerConfig('dpm'))
    seen = []

    def run(dtype):
      def velocity(x, t, _):
        seen.append(x.dtype)
        return some_velocity(x.astype(jnp.float32), t, jnp)

      return sample(
        velocity, steps, start, lambda i: jnp.asarray(noises)[i], dtype
      )

    half, whole = run(jnp.bfloat16), run(jnp.float32)
    self.assertEqual({*seen}, {jnp.dtype('bfloat16'), jnp.dtype('float32')})
    np.testing.assert_array_equal(half, half.astype(jnp.bfloat16))
    error = scaled_error(half, whole)
    self.assertBetween(error, 1e-4, 0.05)


def mesh_of(**axes):
  sizes = {'data': 1, 'fsdp': 1, 'context': 1, 'tensor': 1} | axes
  count = int(np.prod(list(sizes.values())))
  return partitioning.make_mesh(
    partitioning.MeshConfig(**sizes), jax.devices()[:count]
  )


class NoiseTest(parameterized.TestCase):
  seeds = (3, 2**32, 2**64 - 1, 41, 5, 6, 7, 8)
  shape = (3, 5, 8, 4)

  def alone(self, draw):
    noise = jax.jit(sampler.clip_noise, static_argnums=2)
    return np.concatenate(
      [
        noise(sampler.clip_keys([seed]), draw, self.shape)
        for seed in self.seeds
      ]
    )

  @parameterized.parameters(0, 1, 50)
  def test_batch_and_order_do_not_matter(self, draw):
    expected = self.alone(draw)
    noise = jax.jit(sampler.clip_noise, static_argnums=2)
    keys = sampler.clip_keys(self.seeds)
    for chosen in ([0, 1, 2, 3], [6, 0, 3], [5, 4, 7, 1, 2, 0, 3, 6]):
      ours = noise(keys[chosen], jnp.int32(draw), self.shape)
      np.testing.assert_array_equal(ours, expected[chosen])

  @parameterized.parameters(
    ({'data': 8}, P('data')),
    ({'fsdp': 2, 'tensor': 2, 'context': 2}, P('fsdp')),
    ({'context': 8}, P(None, None, None, 'context')),
    ({'data': 2, 'tensor': 4}, P('data', None, None, None, 'tensor')),
  )
  def test_mesh_does_not_matter(self, axes, spec):
    with jax.set_mesh(mesh := mesh_of(**axes)):
      keys = jax.device_put(
        sampler.clip_keys(self.seeds), NamedSharding(mesh, P(spec[0]))
      )
      noise = jax.jit(
        sampler.clip_noise,
        static_argnums=2,
        out_shardings=NamedSharding(mesh, spec),
      )
      for draw in (0, 17):
        ours = noise(keys, jnp.int32(draw), self.shape)
        np.testing.assert_array_equal(ours, self.alone(draw))

  @parameterized.parameters(1, 3)
  def test_inside_the_loop(self, num_steps):
    """Steps that keep only their noise return that of the last one."""
    steps = SCHEDULES['2b'].make_steps(SamplerConfig('dpm', num_steps))
    zero = np.zeros_like(steps.from_x)
    steps = steps._replace(
      from_x=zero, from_x0=zero, from_previous=zero, from_noise=zero + 1
    )

    def run(keys):
      return sample(
        lambda x, t, _: some_velocity(x, t, jnp),
        steps,
        sampler.clip_noise(keys, 0, self.shape),
        lambda index: sampler.clip_noise(keys, index + 1, self.shape),
      )

    expected = self.alone(num_steps)
    keys = sampler.clip_keys(self.seeds)
    np.testing.assert_array_equal(jax.jit(run)(keys), expected)
    np.testing.assert_array_equal(jax.jit(run)(keys[1:2]), expected[1:2])
    mesh = mesh_of(data=4, context=2)
    keys = jax.device_put(keys, NamedSharding(mesh, P('data')))
    with jax.set_mesh(mesh):
      np.testing.assert_array_equal(jax.jit(run)(keys), expected)

  def test_draws_differ(self):
    noises = np.stack([self.alone(draw) for draw in range(4)])
    flat = noises.reshape(4 * len(self.seeds), -1)
    self.assertLen(np.unique(flat[:, 0]), len(flat))
    self.assertAlmostEqual(flat.mean(), 0, delta=0.05)
    self.assertAlmostEqual(flat.std(), 1, delta=0.05)

  def test_keys_are_those_of_jax(self):
    keys = sampler.clip_keys([0, 12345])
    for seed, key in zip((0, 12345), keys, strict=True):
      np.testing.assert_array_equal(
        jax.random.key_data(jax.random.key(seed, impl='threefry2x32')), key
      )

  @parameterized.parameters(-1, 2**64)
  def test_seed_out_of_range(self, seed):
    with pytest.raises(UserError, match='seeds'):
      sampler.clip_keys([seed])


CURVE = {'cache': 'magcache', 'cache_curve': 'curve.json'}


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'name': 'euler'}, "name is 'euler'; give one of ddim, dpm"),
    ({'num_steps': 0}, 'num_steps is 0'),
    ({'num_steps': 50.0}, 'num_steps is 50.0'),
    ({'num_steps': True}, 'num_steps is True'),
    ({'guidance_scale': 0.5}, 'guidance_scale is 0.5'),
    ({'guidance_scale': float('nan')}, 'guidance_scale is nan'),
    ({'guidance_scale': '6'}, "guidance_scale is '6'"),
    ({'dynamic_guidance': True}, 'dynamic_guidance is True; give one of none'),
    ({'reference': 'yes'}, "reference is 'yes'"),
    ({'carry_dtype': 'fp16'}, "carry_dtype is 'fp16'"),
    ({'guidance_range': (3,)}, r'guidance_range is \(3,\); give the first'),
    ({'guidance_range': (3, 3)}, r'guidance_range is \(3, 3\)'),
    ({'guidance_range': (0, 51)}, 'from 0 to 50'),
    (
      {'guidance_range': (0, 9), 'guidance_scale': 1.0},
      'guidance_scale must then be above 1',
    ),
    ({'cache': 'fora'}, "cache is 'fora'; give one of none, magcache"),
    ({'cache': 'magcache'}, 'name the file that lift calibrate wrote'),
    (CURVE | {'cache_threshold': 0.0}, 'cache_threshold is 0.0'),
    (CURVE | {'cache_max_skips': 0}, 'cache_max_skips is 0'),
    (CURVE | {'cache_retention': 1.5}, 'cache_retention is 1.5'),
  )
  def test_bad_values(self, change, message):
    with pytest.raises(UserError, match=message):
      SamplerConfig(**change)

  def test_uncached(self):
    config = SamplerConfig('dpm', 9, guidance_range=(1, 4))
    cached = dataclasses.replace(config, **CURVE, cache_threshold=0.5)
    self.assertNotEqual(cached, config)
    self.assertEqual(cached.uncached, config)
    config.check_uncached('sample.sampler')
    with pytest.raises(UserError, match="set sample.sampler.cache = 'none'"):
      cached.check_uncached('sample.sampler')

  def test_passes(self):
    """Two of a guided step that is computed, one of another."""
    is_computed = np.array([1, 1, 0, 1, 1, 0], bool)
    for change, passes in (
      ({}, 8),
      ({'guidance_scale': 1.0}, 4),
      ({'guidance_range': (1, 4)}, 6),
      ({'guidance_range': (0, 6)}, 8),
    ):
      config = SamplerConfig('ddim', 6, **change)
      self.assertEqual(config.passes(is_computed), passes)

  def test_offset_beyond_the_last_timestep(self):
    schedule = ScheduleConfig(timestep_spacing='leading', steps_offset=21)
    schedule.make_steps(SamplerConfig(num_steps=48))
    with pytest.raises(UserError, match='start at timestep 1001 of 1000; give'):
      schedule.make_steps(SamplerConfig(num_steps=50))

  def test_more_steps_than_timesteps(self):
    with pytest.raises(UserError, match='num_steps is 1001'):
      ScheduleConfig().make_steps(SamplerConfig(num_steps=1001))
