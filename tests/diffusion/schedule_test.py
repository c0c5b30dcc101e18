"""The noise schedule, to the digits that the reference prints."""

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.diffusion.schedule import ScheduleConfig, alpha_bars
from lift_jax.errors import UserError
from tests.optional import diffusers

# alpha-bar of diffusers' CogVideoX schedulers, SNR shift 3 (2B) and 1 (5B).
TABLE_2B = {
  0: '0.9974543276',
  19: '0.9465729792',
  249: '0.3908897413',
  499: '0.0959695617',
  749: '0.0109658909',
  979: '0.0000271944',
  998: '6.23e-08',
  999: '0.0',
}
TABLE_5B = {
  0: '0.9991500000',
  19: '0.9810104569',
  249: '0.6541890065',
  499: '0.2423591666',
  749: '0.0331714828',
  979: '0.0000857878',
  998: '1.968e-07',
  999: '0.0',
}


class ScheduleTest(parameterized.TestCase):
  @parameterized.parameters((3.0, TABLE_2B), (1.0, TABLE_5B))
  def test_printed_digits(self, shift, table):
    a = alpha_bars(ScheduleConfig(snr_shift_scale=shift))
    self.assertEqual(a.dtype, np.float64)
    for timestep, printed in table.items():
      mantissa, _, exponent = printed.partition('e')
      digits = len(mantissa.partition('.')[2])
      style = 'e' if exponent else 'f'
      self.assertEqual(
        float(f'{a[timestep]:.{digits}{style}}'), float(printed), timestep
      )

  @parameterized.parameters(3.0, 1.0)
  def test_equals_diffusers(self, shift):
    config = ScheduleConfig(snr_shift_scale=shift)
    theirs = diffusers.CogVideoXDDIMScheduler.from_config(config.to_json())
    np.testing.assert_allclose(
      alpha_bars(config), theirs.alphas_cumprod.numpy(), rtol=1e-9, atol=1e-15
    )
    self.assertEqual(ScheduleConfig.from_json(theirs.config), config)

  def test_settings_of_samplers(self):
    config = ScheduleConfig(
      timestep_spacing='leading', steps_offset=1, set_alpha_to_one=False
    )
    theirs = diffusers.CogVideoXDPMScheduler.from_config(config.to_json())
    self.assertEqual(ScheduleConfig.from_json(theirs.config), config)

  def test_noise_and_velocity_round_trip(self):
    schedule = ScheduleConfig()
    rng = np.random.default_rng(0)
    x0, noise = rng.normal(size=(2, 4, 3, 2)).astype(np.float32)
    t = np.array([0, 500, 998, 999])
    noisy = schedule.add_noise(x0, noise, t)
    velocity = schedule.target(x0, noise, t)
    # x0 = sqrt(a) x_t - sqrt(1 - a) v
    a = alpha_bars(ScheduleConfig())[t].reshape(4, 1, 1)
    np.testing.assert_allclose(
      np.sqrt(a) * noisy - np.sqrt(1 - a) * velocity, x0, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(noisy[3], noise[3])  # pure noise
    np.testing.assert_array_equal(velocity[3], -x0[3])

  @parameterized.parameters(
    ({'prediction_type': 'epsilon'}, "prediction_type='epsilon'"),
    ({'rescale_betas_zero_snr': False}, 'rescale_betas_zero_snr'),
    ({'beta_start': '0.1'}, 'beta_start='),
    ({'beta_end': 1.5}, 'beta_end is 1.5; give a number between'),
    ({'beta_end': float('nan')}, 'beta_end=nan'),
    ({'snr_shift_scale': None}, 'snr_shift_scale=None'),
    ({'snr_shift_scale': True}, 'snr_shift_scale=True'),
    ({'snr_shift_scale': 0}, 'snr_shift_scale=0'),
    ({'num_train_timesteps': -1000}, 'num_train_timesteps=-1000'),
    ({'num_train_timesteps': 1}, 'num_train_timesteps is 1; give'),
    ({'timestep_spacing': 'karras'}, "timestep_spacing is 'karras'; choose"),
    ({'timestep_spacing': None}, 'timestep_spacing=None'),
    ({'steps_offset': -1}, r'steps_offset=-1 \(give an integer of at least 0'),
    ({'steps_offset': 1.0}, 'steps_offset=1.0'),
    ({'steps_offset': False}, 'steps_offset=False'),
    ({'set_alpha_to_one': 1}, r'set_alpha_to_one=1 \(give true or false'),
    ({'beta': 1}, r'beta \(unknown\)'),
  )
  def test_another_schedule(self, change, message):
    published = {**ScheduleConfig().to_json(), **change}
    with pytest.raises(UserError, match=message) as caught:
      ScheduleConfig.from_json(published)
    self.assertStartsWith(
      str(caught.value), 'scheduler/scheduler_config.json: '
    )

  @parameterized.parameters('steps_offset', 'set_alpha_to_one')
  def test_default(self, key):
    published = ScheduleConfig().to_json()
    del published[key]
    self.assertEqual(ScheduleConfig.from_json(published), ScheduleConfig())

  # diffusers' default of the second is 'leading', which no CogVideoX has.
  @parameterized.parameters('snr_shift_scale', 'timestep_spacing')
  def test_missing_key(self, key):
    published = ScheduleConfig().to_json()
    del published[key]
    with pytest.raises(UserError, match=f'no {key}'):
      ScheduleConfig.from_json(published)
