"""Losses of objectives against worked numbers and against their formulas.

B examples  U units of two
"""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lift_jax import partitioning
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.errors import UserError
from lift_jax.models.latents import LatentScale
from lift_jax.training import step as step_lib
from lift_jax.training.objectives import ObjectiveConfig, nft
from lift_jax.training.objectives.anchored import Anchored
from lift_jax.training.objectives.dpo import DPO
from lift_jax.training.objectives.kto import KTO
from lift_jax.training.objectives.likelihood import SFT, Rejection
from lift_jax.training.objectives.nft import NFT
from lift_jax.training.objectives.objective import effective_sample_share
from lift_jax.training.objectives.reward_weighted import RewardWeighted
from lift_jax.training.state import TrainState
from tests.optional import torch
from tests.training.objectives import tiny

# Errors of winner, loser, and those of the reference.
_PAIR = {
  'winner_error': 0.10,
  'winner_reference_error': 0.11,
  'loser_error': 0.13,
  'loser_reference_error': 0.12,
}
_DPO = DPO(500.0, 'half', 'sigmoid', 0.0, 0.0)
_KTO = KTO(100.0, 0.6, 1.5, 0.5, 2.0)
_NFT = NFT(0.1, 5.0)
_SCHEDULE = ScheduleConfig()
_KEY = jax.random.key(3)


def _values(**values):
  return {name: jnp.atleast_1d(value) for name, value in values.items()}


def _columns(**columns):
  return {name: jnp.asarray(column) for name, column in columns.items()}


@pytest.mark.fast
class TestDPO:
  pair = _values(**_PAIR)
  columns = _columns(is_real=[False, False])

  def test_worked_example(self):
    """Logit 5: -log sigmoid(5) = 0.0067153."""
    loss = _DPO.loss(self.pair, self.columns, {})
    np.testing.assert_allclose(loss, 0.0067153, rtol=1e-4)
    metrics = _DPO.metrics(self.pair, self.columns)
    np.testing.assert_allclose(metrics['sum/logit'], 5, rtol=1e-5)
    np.testing.assert_allclose(metrics['max/logit_max'], 5, rtol=1e-5)
    np.testing.assert_allclose(metrics['sum/preference'], 0.02, rtol=1e-5)
    np.testing.assert_allclose(metrics['sum/winner_change'], -0.01, rtol=1e-5)
    np.testing.assert_allclose(metrics['sum/loser_change'], 0.01, rtol=1e-5)
    assert metrics['sum/implicit_accuracy'] == 1

  @pytest.mark.parametrize(
    'changes, expected',
    [
      ({'convention': 'full', 'beta': 250.0}, 0.0067153),
      ({'convention': 'full', 'beta': 30.0, 'form': 'hinge'}, 1 - 30 * 0.02),
      ({'form': 'hinge'}, 0.0),
      ({'form': 'ipo', 'beta': 50.0, 'convention': 'full'}, (0.02 - 0.01) ** 2),
      ({'form': 'ipo', 'beta': 50.0}, (0.02 - 0.02) ** 2),
      ({'sft_weight': 2.0}, 0.0067153 + 0.2),
    ],
  )
  def test_forms(self, changes, expected):
    objective = dataclasses.replace(_DPO, **changes)
    loss = objective.loss(self.pair, self.columns, {})
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-7)

  def test_ties_are_half_right(self):
    tie = _values(**dict.fromkeys(_PAIR, 0.1))
    assert _DPO.metrics(tie, self.columns)['sum/implicit_accuracy'] == 0.5

  def test_real_clips(self):
    """Two of them in the place of a pair: half of the units."""
    values = {name: jnp.tile(value, 2) for name, value in self.pair.items()}
    columns = _columns(is_real=[False, False, True, True])
    objective = dataclasses.replace(_DPO, real_weight=3.0)
    np.testing.assert_allclose(
      objective.loss(values, columns, {}),
      (0.0067153 + 3 * (0.10 + 0.13) / 2) / 2,
      rtol=1e-4,
    )
    metrics = objective.metrics(values, columns)
    assert metrics['count/logit'] == 1
    assert metrics['effective_sample_share'] == 1  # of the one pair
    np.testing.assert_allclose(metrics['sum/logit'], 5, rtol=1e-5)

  def test_effective_sample_share(self):
    """A pair pulls by sigmoid(-logit): here logits 5 and 0."""
    values = {
      name: jnp.array([value, 0.1], jnp.float32)
      for name, value in _PAIR.items()
    }
    columns = _columns(is_real=[False] * 4)
    weights = np.array([1 / (1 + np.exp(5)), 0.5])
    np.testing.assert_allclose(
      _DPO.metrics(values, columns)['effective_sample_share'],
      weights.sum() ** 2 / (2 * (weights**2).sum()),
      rtol=1e-5,
    )

  @pytest.mark.parametrize(
    'changes, message',
    [
      ({'beta': 0.0}, 'objective.dpo.beta must be above 0'),
      ({'convention': 'double'}, 'objective.dpo.convention'),
      ({'form': 'log'}, 'objective.dpo.form'),
      ({'real_weight': -1.0}, 'real_weight must not be below 0'),
    ],
  )
  def test_settings(self, changes, message):
    with pytest.raises(UserError, match=message):
      dataclasses.replace(_DPO, **changes)


@pytest.mark.fast
class TestKTO:
  # Gains .02, -.01, .05; the last clip is real.
  values = _values(
    error=np.array([0.10, 0.13, 0.20, 0.40], np.float32),
    reference_error=np.array([0.12, 0.12, 0.25, 0.10], np.float32),
  )
  columns = _columns(
    reward=[0.7, 0.2, 0.1, 1.0], is_real=[False, False, False, True]
  )

  def test_worked_example(self):
    """kl is the mean gain of generated clips, .02."""
    statistics = _KTO.statistics(self.values, self.columns)
    np.testing.assert_allclose(statistics['kl'], 0.02, rtol=1e-5)

    def sigmoid(x):
      return 1 / (1 + np.exp(-x))

    expected = [
      1.5 * sigmoid(-100 * 0.00),
      0.5 * sigmoid(+100 * -0.03),
      0.5 * sigmoid(+100 * 0.03),
      2.0 * 0.40,
    ]
    loss = _KTO.loss(self.values, self.columns, statistics)
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)
    metrics = _KTO.metrics(self.values, self.columns)
    assert metrics['count/desirable_change'] == 1
    # Slopes of 100 x: 1.5 s(0) s(0), .5 s(-3) s(3) twice; the last is real.
    steep, flat = 1.5 / 4, 0.5 * sigmoid(3) * sigmoid(-3)
    np.testing.assert_allclose(
      metrics['effective_sample_share'],
      (steep + 2 * flat) ** 2 / (3 * (steep**2 + 2 * flat**2)),
      rtol=1e-4,
    )
    np.testing.assert_allclose(
      metrics['sum/undesirable_change'], 0.01 - 0.05, rtol=1e-4
    )

  def test_kl_is_not_negative(self):
    values = self.values | {'error': self.values['error'] + 1}
    assert _KTO.statistics(values, self.columns)['kl'] == 0

  def test_settings(self):
    with pytest.raises(UserError, match='kto.beta must be above 0'):
      dataclasses.replace(_KTO, beta=0.0)
    with pytest.raises(UserError, match='must not be below 0'):
      dataclasses.replace(_KTO, undesirable_weight=-1.0)


@pytest.mark.fast
class TestNFT:
  def test_branches(self):
    """v_old 1, v 1.2, b .1: v+ = 1.02 and v- = 0.98."""
    positive, negative = nft.branches(jnp.array(1.2), jnp.array(1.0), 0.1)
    np.testing.assert_allclose([positive, negative], [1.02, 0.98], rtol=1e-6)

  def test_equals_the_formula_in_x0(self):
    rng = np.random.default_rng(0)
    x0, noise, policy, reference = rng.normal(size=(4, 3, 2, 2, 2, 4)).astype(
      np.float32
    )
    t_b = jnp.array([5, 500, 990])
    noisy = _SCHEDULE.add_noise(x0, noise, t_b)
    predictions = step_lib.Predictions(
      noisy, t_b, _SCHEDULE.target(x0, noise, t_b), policy, reference, _SCHEDULE
    )
    p_b = np.array([0.2, 0.5, 1.0])
    signal, noise_rate = (np.asarray(r) for r in _SCHEDULE._rates(t_b, 5))
    expected = []
    for sign, weight_b in ((1, p_b), (-1, 1 - p_b)):
      v = reference + sign * 0.1 * (policy - reference)
      error = np.abs(signal * noisy - noise_rate * v - x0).reshape(3, -1)
      expected.append(weight_b * (error**2).mean(1) / error.mean(1))
    loss = _NFT.loss(_NFT.values(predictions), _columns(optimality=p_b), {})
    np.testing.assert_allclose(
      loss, np.mean(sum(expected)) / 0.1 * 5, rtol=1e-4
    )

  def test_settings(self):
    with pytest.raises(UserError, match='nft.scale must be above 0'):
      NFT(0.1, 0.0)


@pytest.mark.fast
class TestLikelihood:
  def test_sft(self):
    values = _values(error=np.array([1.0, 3.0]))
    assert SFT().loss(values, {}, {}) == 2
    assert SFT().selects(0.0, False)

  def test_rejection(self):
    objective = Rejection(0.5)
    assert objective.selects(0.5, False) and objective.selects(0.0, True)
    assert not objective.selects(0.4, False)
    with pytest.raises(UserError, match='between 0 and 1'):
      Rejection(1.5)


@pytest.mark.fast
def test_anchor():
  config = ObjectiveConfig(
    'rejection', anchor_weight=0.5, rejection=Rejection(0.5)
  )
  objective = config.chosen
  assert isinstance(objective, Anchored) and objective.needs_reference
  assert not objective.selects(0.4, False)
  latents = jnp.ones((2, 1, 1, 1, 2))
  predictions = step_lib.Predictions(
    latents, jnp.array([1, 2]), 0 * latents, 3 * latents, latents, _SCHEDULE
  )
  values = objective.values(predictions)
  assert objective.loss(values, {}, {}) == 9 + 0.5 * 4
  assert objective.metrics(values, {})['anchor_distance'] == 4
  with pytest.raises(UserError, match='anchor_weight must not be below 0'):
    dataclasses.replace(config, anchor_weight=-1.0)


@pytest.mark.fast
def test_effective_sample_share():
  weights = jnp.array([1.0, 1.0, 9.0])
  assert effective_sample_share(jnp.ones(3)) == 1
  assert effective_sample_share(jnp.array([2.0, 0.0])) == 0.5
  assert effective_sample_share(weights, jnp.array([True, True, False])) == 1
  assert effective_sample_share(jnp.zeros(3)) == 0


_OBJECTIVES = {
  'sft': SFT(),
  'reward_weighted': RewardWeighted(0.7),
  'dpo': dataclasses.replace(_DPO, beta=20.0, sft_weight=0.5, real_weight=1.0),
  'hinge': dataclasses.replace(_DPO, beta=1.0, form='hinge'),
  'ipo': dataclasses.replace(_DPO, beta=1.0, form='ipo'),
  'kto': dataclasses.replace(_KTO, beta=2.0),
  'nft': _NFT,
  'anchored dpo': Anchored(dataclasses.replace(_DPO, beta=20.0), 0.5),
}


def _arrays():
  arrays = tiny.arrays()
  arrays['is_real'] = np.array([False] * 6 + [True] * 2)
  arrays['optimality'] = arrays['reward']
  return arrays


@functools.cache
def _run(name, grad_accum=1, axes=()):
  """Parameters after two steps, and metrics of the second.

  Args:
    name: of `_OBJECTIVES`.
    grad_accum: micro-batches.
    axes: items of the `MeshConfig` to run on; () for one device.
  """
  objective = _OBJECTIVES[name]
  tx = optax.sgd(0.1)
  step = jax.jit(
    step_lib.make_train_step(
      tiny.model,
      _SCHEDULE,
      tx,
      objective,
      dataclasses.replace(tiny.CONFIG, grad_accum=grad_accum),
    )
  )
  state = TrainState.create(tiny.params(), tx, with_ema=False)
  batch = step_lib.LatentBatch.of(_arrays(), objective)
  with contextlib.ExitStack() as stack:
    if axes:
      mesh = partitioning.make_mesh(partitioning.MeshConfig(**dict(axes)))
      stack.enter_context(jax.set_mesh(mesh))
      batch = jax.device_put(
        batch, jax.sharding.NamedSharding(mesh, partitioning.BATCH)
      )
    for _ in range(2):
      state, metrics = step(
        state, {}, batch, tiny.NULL_TEXT, _KEY, tiny.params(seed=7)
      )
  return np.asarray(state.trainable['w']), jax.device_get(metrics)


def _assert_close(run, other):
  (w, metrics), (other_w, other_metrics) = run, other
  np.testing.assert_allclose(w, other_w, rtol=1e-4, atol=1e-6)
  assert metrics.keys() == other_metrics.keys()
  for key, value in metrics.items():
    np.testing.assert_allclose(
      value, other_metrics[key], rtol=1e-4, atol=1e-6, err_msg=key
    )


class TestStep:
  @pytest.mark.parametrize('name', _OBJECTIVES)
  def test_accumulated_equals_whole(self, name):
    """Also where the loss has a statistic of the batch: KTO's kl."""
    _assert_close(_run(name, grad_accum=2), _run(name))

  @pytest.mark.parametrize('grad_accum', [1, 2])
  @pytest.mark.parametrize('name', ['dpo', 'kto', 'nft', 'anchored dpo'])
  def test_sharded_equals_one_device(self, name, grad_accum):
    axes = (('data', 2), ('fsdp', 2), ('context', 2))
    _assert_close(_run(name, grad_accum, axes), _run(name))

  @pytest.mark.parametrize('name', _OBJECTIVES)
  def test_equals_torch(self, name):
    """Two steps written from the formulas, with torch's gradients."""
    objective = _OBJECTIVES[name]
    w, metrics = _run(name)
    expected, loss = _torch_steps(name, objective)
    np.testing.assert_allclose(w, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-4)

  def test_gradient_of_dpo_at_the_reference(self):
    """-beta / 4 of the gradient of the difference of errors (half)."""
    w = tiny.params()['w']
    batch = step_lib.LatentBatch.of(_arrays(), _DPO)
    batch = batch._replace(columns=_columns(is_real=[False] * 8))
    draws = step_lib.draw(_KEY, batch, _SCHEDULE, 0.0, unit_size=2)

    def predict(w, reference):
      return step_lib.predict(
        tiny.model, _SCHEDULE, LatentScale(1.0), {'w': w}, batch, draws,
        tiny.NULL_TEXT, reference,
      )  # fmt: skip

    def loss_fn(w):
      values = _DPO.values(predict(w, tiny.params()))
      return _DPO.loss(values, batch.columns, {})

    def difference(w):
      error_b = predict(w, None).errors()['error']
      return jnp.mean(error_b[::2] - error_b[1::2])

    np.testing.assert_allclose(
      jax.grad(loss_fn)(w), 500 / 4 * jax.grad(difference)(w), rtol=1e-3
    )


def _torch_steps(name, objective):
  """(parameters after two steps, loss of the second)."""
  arrays = _arrays()
  batch = step_lib.LatentBatch.of(arrays, objective)
  size = step_lib.UNIT_SIZES[objective.unit]

  def tensor(x):
    return torch.tensor(np.asarray(x, np.float64))

  w = tensor(tiny.params()['w']).requires_grad_()
  reference = tensor(tiny.params(seed=7)['w'])
  for number in range(2):
    draws = step_lib.draw(
      jax.random.fold_in(_KEY, number), batch, _SCHEDULE, 0.0, size
    )
    t_b = draws.timesteps
    signal, rate = (tensor(r) for r in _SCHEDULE._rates(t_b, 5))
    x0 = tensor(batch.mean) + torch.exp(tensor(batch.logvar) / 2) * tensor(
      draws.posterior
    )
    noise = tensor(draws.noise)
    noisy, target = signal * x0 + rate * noise, signal * noise - rate * x0
    about = tensor(arrays['text']).mean((1, 2)) + tensor(t_b) / 1000
    about = about[:, None, None, None, None]
    v, u = noisy @ w + about, noisy @ reference + about

    def mean(x):
      return x.flatten(1).mean(1)

    e, r = mean((v - target) ** 2), mean((u - target) ** 2)
    is_real = torch.tensor(arrays['is_real'])
    if name == 'sft':
      loss = e.mean()
    elif name == 'reward_weighted':
      reward = tensor(arrays['reward'])
      loss = (torch.where(is_real, 0.7, reward) * e).mean()
    elif name == 'kto':
      gain = r - e
      kl = gain[~is_real].mean().clamp(min=0).detach()
      good = torch.tensor(arrays['reward'] >= 0.6)
      margin = 2.0 * torch.where(good, 1, -1) * (gain - kl)
      loss = torch.where(good, 1.5, 0.5) * (1 - torch.sigmoid(margin))
      loss = torch.where(is_real, 2 * e, loss).mean()
    elif name == 'nft':
      p = tensor(arrays['optimality'])
      loss = 0
      for sign, weight in ((1, p), (-1, 1 - p)):
        branch = u + sign * 0.1 * (v - u)
        error = signal * noisy - rate * branch - x0
        m = mean(error.abs()).detach().clamp(min=1e-5)
        loss = loss + weight * mean(error**2) / m
      loss = loss.mean() / 0.1 * 5
    else:
      z = (r - e)[::2] - (r - e)[1::2]
      dpo = getattr(objective, 'objective', objective)
      beta = dpo.beta / 2
      loss = {
        'sigmoid': lambda z, b: -torch.log(torch.sigmoid(b * z)),
        'hinge': lambda z, b: torch.relu(1 - b * z),
        'ipo': lambda z, b: (z - 1 / (2 * b)) ** 2,
      }[dpo.form](z, beta)
      loss = loss + dpo.sft_weight * e[::2]
      real = dpo.real_weight * (e[::2] + e[1::2]) / 2
      loss = torch.where(is_real[::2], real, loss).mean()
    if name.startswith('anchored'):
      loss = loss + 0.5 * mean((v - u) ** 2).mean()
    (gradient,) = torch.autograd.grad(loss, w)
    w = (w.detach() - 0.1 * gradient).requires_grad_()
  return w.detach().numpy(), loss.item()
