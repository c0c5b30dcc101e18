"""What the step does for an objective that declares all its needs."""

import dataclasses

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lift_jax import partitioning
from lift_jax.data.pipeline import ScoredEntry
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.errors import UserError
from lift_jax.models.latents import LatentScale
from lift_jax.training import alignment, alignment_data
from lift_jax.training import step as step_lib
from lift_jax.training.batches import merge_micro_batches, micro_batches
from lift_jax.training.objectives import ObjectiveConfig
from lift_jax.training.objectives.objective import Objective
from lift_jax.training.objectives.reward_weighted import RewardWeighted
from lift_jax.training.state import TrainState
from tests.training.objectives import tiny

_SCHEDULE = ScheduleConfig()
_KEY = jax.random.key(5)
_TX = optax.sgd(0.1)


@dataclasses.dataclass(frozen=True)
class _Preference(Objective):
  """Compares the clips of a pair, relative to the batch mean."""

  beta: float

  unit = 'pair'
  columns = ('reward',)
  needs_reference = True
  needs_statistics = True

  def values(self, predictions):
    errors = predictions.errors()
    gain_b = errors['reference_error'] - errors['error']
    return errors | {'margin': gain_b[::2] - gain_b[1::2]}  # one for each pair

  def statistics(self, values, columns):
    return {'usual': jnp.mean(values['margin'] * columns['reward'][::2])}

  def loss(self, values, columns, statistics):
    weight_p = columns['reward'][::2]
    margin_p = values['margin'] - statistics['usual']
    return jnp.mean(weight_p * jax.nn.softplus(-self.beta * margin_p))

  def metrics(self, values, columns):
    # In the order of the batch, or they would be others.
    return {
      'ordered': jnp.sum(values['error'] * jnp.arange(8.0)),
      'ordered_margin': jnp.sum(values['margin'] * jnp.arange(4.0)),
      'reference_error': jnp.mean(values['reference_error']),
    }


_PREFERENCE = _Preference(beta=3.0)


def _batch(size=8) -> step_lib.LatentBatch:
  return step_lib.LatentBatch.of(tiny.arrays(size), _PREFERENCE)


def _run(num_steps=1, **changes):
  """(state, metrics of each step)."""
  step = jax.jit(
    step_lib.make_train_step(
      tiny.model,
      _SCHEDULE,
      _TX,
      _PREFERENCE,
      dataclasses.replace(tiny.CONFIG, **changes),
    )
  )
  state = TrainState.create(tiny.params(), _TX, with_ema=False)
  history = []
  for _ in range(num_steps):
    state, metrics = step(
      state, {}, _batch(), tiny.NULL_TEXT, _KEY, tiny.params(seed=7)
    )
    history.append(metrics)
  return state, history


class StepTest(parameterized.TestCase):
  def test_pairs_share_draws(self):
    draws = step_lib.draw(_KEY, _batch(), _SCHEDULE, 0.5, unit_size=2)
    for name in ('noise', 'timesteps', 'drop_caption'):
      first, second = (getattr(draws, name)[start::2] for start in (0, 1))
      np.testing.assert_array_equal(first, second)
      self.assertGreater(len({bytes(np.asarray(x)) for x in first}), 1, name)
    self.assertFalse(np.any(draws.posterior[::2] == draws.posterior[1::2]))

  def test_equals_the_formula(self):
    state, (metrics,) = _run()
    batch = _batch()
    draws = step_lib.draw(
      jax.random.fold_in(_KEY, 0), batch, _SCHEDULE, 0.0, unit_size=2
    )

    def gain(params, errors_of_reference):
      predictions = step_lib.predict(
        tiny.model,
        _SCHEDULE,
        LatentScale(1.0),
        params,
        batch,
        draws,
        tiny.NULL_TEXT,
      )
      self.assertIsNone(predictions.reference)
      return errors_of_reference - predictions.errors()['error']

    reference_b = -gain(tiny.params(seed=7), 0.0)
    weight_p = batch.columns['reward'][::2]

    def loss_fn(params):
      gain_b = gain(params, reference_b)
      margin_p = gain_b[::2] - gain_b[1::2]
      usual = jax.lax.stop_gradient(jnp.mean(margin_p * weight_p))
      return jnp.mean(weight_p * jnp.log1p(jnp.exp(-3 * (margin_p - usual))))

    loss, grads = jax.value_and_grad(loss_fn)(tiny.params())
    np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
    np.testing.assert_allclose(
      metrics['reference_error'], np.mean(reference_b), rtol=1e-5
    )
    np.testing.assert_allclose(
      state.trainable['w'], tiny.params()['w'] - 0.1 * grads['w'], rtol=1e-5
    )

  @parameterized.parameters(2, 4)
  def test_accumulation_equals_the_big_batch(self, grad_accum):
    whole, history = _run(2)
    parts, other = _run(2, grad_accum=grad_accum)
    for one, two in zip(history, other, strict=True):
      self.assertEqual(one.keys(), two.keys())
      for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(
      parts.trainable['w'], whole.trainable['w'], rtol=1e-5
    )


class MicroBatchesTest(parameterized.TestCase):
  @parameterized.parameters(1, 2)
  def test_units_stay_together(self, unit_size):
    examples = jnp.arange(16).reshape(8, 2)
    micro = micro_batches(examples, 2, unit_size)
    self.assertEqual(micro.shape, (2, 4, 2))
    first = micro[0, :, 0] // 2
    expected = {1: [0, 2, 4, 6], 2: [0, 1, 4, 5]}[unit_size]
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(
      merge_micro_batches(micro, 4 // unit_size), examples
    )

  def test_values_of_pairs(self):
    micro = micro_batches(jnp.arange(8), 2, unit_size=2)
    np.testing.assert_array_equal(
      merge_micro_batches(micro[:, ::2], num_units=2), [0, 2, 4, 6]
    )


@dataclasses.dataclass(frozen=True)
class _Config(ObjectiveConfig):
  preference: _Preference | None = None
  unread: RewardWeighted | None = None


@dataclasses.dataclass(frozen=True)
class _ReadsPrice(RewardWeighted):
  columns = ('reward', 'price')


_SCORED = [ScoredEntry(None, 'a dog', 1.0, False, {})]


class ChooseTest(parameterized.TestCase):
  def test_chosen(self):
    config = _Config(
      'preference',
      reward_weighted=RewardWeighted(1.0),
      preference=_PREFERENCE,
    )
    self.assertIs(config.chosen, _PREFERENCE)

  def test_pairs_need_rules(self):
    config = _Config('preference', preference=_PREFERENCE)
    with self.assertRaisesRegex(UserError, 'add the section pairs'):
      alignment_data.make_data(_SCORED, config, None)

  def test_unknown_columns_are_refused(self):
    config = _Config('unread', unread=_ReadsPrice(1.0))
    with self.assertRaisesRegex(UserError, 'reads price; lift align reads is_'):
      alignment_data.make_data(_SCORED, config, None)

  def test_reference(self):
    """A copy, as the trainable parameters are donated to the first step."""
    params = tiny.params()
    self.assertEqual(
      alignment.make_reference(params, RewardWeighted(1.0), 'float32'), {}
    )
    reference = alignment.make_reference(params, _PREFERENCE, 'float32')
    params['w'].delete()
    np.testing.assert_array_equal(reference['w'], tiny.params()['w'])

  def test_reference_is_sharded(self):
    """As the parameters are, in the type of the computation."""
    mesh = partitioning.make_mesh(partitioning.MeshConfig(fsdp=-1))
    sharding = jax.sharding.NamedSharding(mesh, jax.P('fsdp'))
    params = {'w': jax.device_put(jnp.ones((mesh.size, 2)), sharding)}
    reference = alignment.make_reference(params, _PREFERENCE, 'bfloat16')['w']
    self.assertEqual(reference.dtype, jnp.bfloat16)
    self.assertEqual(reference.sharding, sharding)
