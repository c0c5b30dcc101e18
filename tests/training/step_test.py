"""A step of reward-weighted fine-tuning, against torch and against itself."""

import dataclasses
import functools

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lift_jax import partitioning
from lift_jax.diffusion.schedule import ScheduleConfig, alpha_bars
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.convert import TRANSFORMER_TABLE
from lift_jax.models.cogvideox.sharding import TRANSFORMER_RULES
from lift_jax.models.cogvideox.transformer import Transformer
from lift_jax.models.functional import functional
from lift_jax.models.latents import LatentScale
from lift_jax.training import step as step_lib
from lift_jax.training.objectives.reward_weighted import RewardWeighted
from lift_jax.training.optimizer import OptimizerConfig, make_optimizer
from lift_jax.training.setup import IS_TRAINABLE
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths
from tests.models.cogvideox.reference import rotation_of
from tests.optional import diffusers, torch
from tests.torch_weights import params_from_torch, to_torch_names

SIZES = {
  'num_layers': 2,
  'num_attention_heads': 4,
  'attention_head_dim': 16,
  'time_embed_dim': 16,
  'text_embed_dim': 24,
  'max_text_seq_length': 6,
  'sample_height': 8,
  'sample_width': 8,
}
SCALING_FACTOR = 1.15258426
OPTIMIZER = OptimizerConfig(
  learning_rate=1e-4,
  warmup_steps=0,
  cycles=1,
  beta1=0.9,
  beta2=0.95,
  eps=1e-8,
  weight_decay=1e-4,
  clip_norm=0.01,
)
CONFIG = step_lib.StepConfig(
  latent_scale=LatentScale(SCALING_FACTOR),
  caption_dropout=0.0,
  grad_accum=1,
  ema_decay=0.0,
)
OBJECTIVE = RewardWeighted(real_weight=1.0)
SCHEDULE = ScheduleConfig()
NUM_STEPS = 100  # of the learning rate


def declare(rotary=False, **options):
  config = TransformerConfig.from_json(
    {**SIZES, 'use_rotary_positional_embeddings': rotary}
  )
  return functional(lambda rngs: Transformer(config, rngs=rngs, **options))


@pytest.fixture(scope='module')
def model():
  return declare()


@pytest.fixture(scope='module')
def params(model):
  """Initial parameters, with nothing left at the zeros it starts from."""
  initial = jax.jit(model.init)(jax.random.key(0))
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), initial
  )


def make_batch(size=8, seed=1, frames=2, reward=None, is_real=None):
  rng = np.random.default_rng(seed)
  latents = (size, frames, 8, 8, 16)
  if reward is None:
    reward = rng.choice([0.9, 0.67, 0.38, 0.1, 0.05], size)
  if is_real is None:
    is_real = np.zeros(size, bool)
  return step_lib.LatentBatch(
    mean=rng.normal(size=latents).astype(np.float32),
    logvar=rng.normal(-2, 1, size=latents).astype(np.float32),
    text=rng.normal(size=(size, 6, 24)).astype(np.float32),
    columns={
      'reward': np.asarray(reward, np.float32),
      'is_real': np.asarray(is_real),
    },
  )


NULL_TEXT = np.random.default_rng(9).normal(size=(6, 24)).astype(np.float32)


TX = make_optimizer(OPTIMIZER, NUM_STEPS)


@functools.cache
def jitted_step(model, config, objective):
  """The same program for all tests that take the same step."""
  return jax.jit(
    step_lib.make_train_step(model, SCHEDULE, TX, objective, config)
  )


def run_step(
  model,
  params,
  batch,
  config=CONFIG,
  objective=OBJECTIVE,
  trainable='blocks',
  mesh=None,
  steps=1,
):
  """(parameters, metrics of each step, state) after some steps.

  Without a mesh everything lies on one device.
  """
  mesh = mesh or partitioning.make_mesh(
    partitioning.MeshConfig(), jax.devices()[:1]
  )
  shardings = partitioning.param_shardings(
    TRANSFORMER_RULES, model.abstract_params, mesh
  )
  params = jax.device_put(params, shardings)
  first, frozen = param_paths.partition(params, IS_TRAINABLE[trainable])
  with jax.set_mesh(mesh):
    state = TrainState.create(first, TX, config.ema_decay > 0)
    batch = jax.device_put(
      batch,
      jax.sharding.NamedSharding(
        mesh, jax.sharding.PartitionSpec(partitioning.BATCH_AXES)
      ),
    )
    history = []
    step = jitted_step(model, config, objective)
    reference = first if objective.needs_reference else {}
    for _ in range(steps):
      state, metrics = step(
        state, frozen, batch, NULL_TEXT, jax.random.key(3), reference
      )
      history.append(jax.device_get(metrics))
  merged = jax.device_get(param_paths.merge(state.trainable, frozen))
  return merged, history, state


@functools.cache
def jitted_gradient(model, objective):
  """(loss, errors) and the gradient of every parameter."""

  def loss_fn(params, batch):
    draws = step_lib.draw(jax.random.key(0), batch, SCHEDULE, 0.0)
    values = objective.values(
      step_lib.predict(
        model, SCHEDULE, CONFIG.latent_scale, params, batch, draws, NULL_TEXT
      )
    )
    return objective.loss(values, batch.columns, {}), values['error']

  return jax.jit(jax.value_and_grad(loss_fn, has_aux=True))


def assert_states_agree(ours, theirs, tolerance):
  """Parameters and first moments, each tensor within its own scale.

  The moments are a tenth of the clipped gradients: through them the gradients
  themselves are compared, which Adam's first updates show by their sign only.
  Without rotations the gradient of norm_k.bias is rounding noise about zero
  (a shift of all keys changes no softmax), and its update is that noise made
  large: it is held to the noise floor of all moments, and its update left out.
  """
  moments = [
    {n: x for n, x in param_paths.flatten(s.opt_state).items() if '/mu/' in n}
    for s in (ours, theirs)
  ]
  floor = 1e-6 * max(float(np.abs(x).max()) for x in moments[1].values())
  trees = [param_paths.flatten(s.trainable) for s in (ours, theirs)]
  for got, expected in (moments, trees):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
      value = np.asarray(value)
      error = np.abs(np.asarray(got[name]) - value).max()
      scale = np.abs(value).max()
      if name == 'blocks/attn/norm_k/bias':
        continue
      assert error <= max(tolerance * scale, floor), (name, error, scale)


class TorchTest(parameterized.TestCase):
  """The reference's own form of a step, in torch."""

  @parameterized.parameters(False, True)
  @pytest.mark.fast
  def test_whole_lift_step(self, rotary):
    torch.manual_seed(0)
    module = diffusers.CogVideoXTransformer3DModel(
      **SIZES, use_rotary_positional_embeddings=rotary
    )
    for parameter in module.parameters():
      torch.nn.init.normal_(parameter, std=0.2)
    model = declare(rotary)
    params = params_from_torch(TRANSFORMER_TABLE, model.abstract_params, module)
    batch = make_batch(4)
    # The draws of our step, handed to torch; one is pure noise, one is clean.
    key = jax.random.fold_in(jax.random.key(3), 0)
    draws = step_lib.draw(key, batch, SCHEDULE, 0.0)
    draws = draws._replace(timesteps=np.array([999, 0, 310, 720]))
    self.enter_context(pytest.MonkeyPatch.context()).setattr(
      step_lib, 'draw', lambda *_: draws
    )

    ours, (metrics,), state = run_step(model, params, batch)

    rotation = rotation_of(module, 2, 8, 8)
    loss, norm, theirs = self._torch_step(module, batch, draws, rotation)
    np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-4)
    self.assertGreater(norm, OPTIMIZER.clip_norm)  # so that clipping acts

    updated = to_torch_names(TRANSFORMER_TABLE, ours)
    start = to_torch_names(TRANSFORMER_TABLE, params)
    moments = to_torch_names(
      TRANSFORMER_TABLE, optax.tree.get(state.opt_state, 'mu')
    )
    self.assertEqual(moments.keys(), theirs.keys())
    largest = max(float(moment.abs().max()) for _, moment in theirs.values())
    for name, (expected, moment) in theirs.items():
      # The gradient of norm_k.bias is rounding noise about zero (see above).
      if name.endswith('norm_k.bias'):
        self.assertLess(np.abs(moments[name]).max(), 1e-2 * largest)
        continue
      for got, wanted, tolerance in (
        (updated[name], expected.detach().numpy(), 1e-4),
        (moments[name], moment.numpy(), 1e-3),
      ):
        error = np.abs(got - wanted).max() / np.abs(wanted).max()
        self.assertLess(error, tolerance, name)
    for name in updated.keys() - theirs.keys():
      np.testing.assert_array_equal(updated[name], start[name])

  def _torch_step(self, module, batch, draws, rotation):
    """LiFT: (x0_hat - x0)^2 / (1 - a), times the score, in torch."""
    a = torch.tensor(alpha_bars(ScheduleConfig()), dtype=torch.float32)
    t = torch.tensor(np.asarray(draws.timesteps))
    a = a[t].reshape(-1, 1, 1, 1, 1)
    as_torch = lambda x: torch.tensor(np.array(x)).permute(0, 1, 4, 2, 3)  # noqa: E731
    mean, logvar, posterior, noise = map(
      as_torch, (batch.mean, batch.logvar, draws.posterior, draws.noise)
    )
    x0 = (mean + torch.exp(0.5 * logvar) * posterior) * SCALING_FACTOR
    noisy = a.sqrt() * x0 + (1 - a).sqrt() * noise
    velocity = module(
      noisy, torch.tensor(batch.text), t, image_rotary_emb=rotation,
      return_dict=False,
    )[0]  # fmt: skip
    x0_hat = a.sqrt() * noisy - (1 - a).sqrt() * velocity
    error = ((x0_hat - x0) ** 2 / (1 - a)).flatten(1).mean(1)
    loss = (error * torch.tensor(batch.columns['reward'])).mean()

    trained = {
      name: parameter
      for name, parameter in module.named_parameters()
      if name.startswith('transformer_blocks.')
    }
    optimizer = torch.optim.AdamW(
      trained.values(),
      lr=OPTIMIZER.learning_rate,
      betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
      eps=OPTIMIZER.eps,
      weight_decay=OPTIMIZER.weight_decay,
    )
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trained.values(), OPTIMIZER.clip_norm)
    optimizer.step()
    results = {
      name: (parameter, optimizer.state[parameter]['exp_avg'])
      for name, parameter in trained.items()
    }
    return loss.item(), norm.item(), results


@pytest.fixture(scope='module')
def two_steps(model, params):
  """(metrics, state) after two steps on one device."""
  _, history, state = run_step(model, params, make_batch(), steps=2)
  return history, state


class MeshTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _fixtures(self, model, params, two_steps):
    self.model, self.params, self.expected = model, params, two_steps

  @parameterized.parameters(
    {'fsdp': 8},
    {'data': 2, 'fsdp': 2, 'tensor': 2},
    {'fsdp': 4, 'context': 2},
    # Neither the 38 tokens nor the 4 heads divide by 8.
    {'fsdp': 1, 'context': 8},
  )
  def test_equals_one_device(self, **axes):
    batch = make_batch()
    mesh = partitioning.make_mesh(partitioning.MeshConfig(**axes))
    _, meshed, state = run_step(
      self.model, self.params, batch, mesh=mesh, steps=2
    )
    history, expected = self.expected
    for one, other in zip(history, meshed, strict=True):
      np.testing.assert_allclose(one['loss'], other['loss'], rtol=1e-5)
      np.testing.assert_allclose(
        one['grad_norm'], other['grad_norm'], rtol=1e-5
      )
    assert_states_agree(state, expected, 1e-5)
    moments = param_paths.flatten(state.opt_state)
    kernel = next(
      leaf for name, leaf in moments.items()
      if name.endswith('mu/blocks/ff/up/kernel')
    )  # fmt: skip
    share = 1 / (mesh.size / mesh.shape['data'])
    shard = kernel.addressable_shards[0].data
    self.assertEqual(shard.size, kernel.size * share)


class StepTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _fixtures(self, model, params):
    self.model, self.params = model, params

  @parameterized.parameters(2, 4)
  def test_accumulation_equals_the_big_batch(self, parts):
    batch = make_batch(8)
    config = dataclasses.replace(CONFIG, grad_accum=parts)
    _, (one,), whole = run_step(self.model, self.params, batch)
    _, (many,), summed = run_step(self.model, self.params, batch, config)
    assert_states_agree(summed, whole, 1e-5)
    self.assertEqual(one.keys(), many.keys())
    for name in one:
      np.testing.assert_allclose(one[name], many[name], rtol=1e-5, atol=1e-6)

  def gradient(self, batch, objective=OBJECTIVE):
    return jitted_gradient(self.model, objective)(self.params, batch)

  def test_uniform_rewards_are_plain_likelihood(self):
    (loss, error_b), grads = self.gradient(make_batch(reward=[0.5] * 8))
    (plain, _), plain_grads = self.gradient(make_batch(reward=[1.0] * 8))
    np.testing.assert_allclose(loss, 0.5 * np.mean(error_b), rtol=1e-6)
    np.testing.assert_allclose(loss, 0.5 * plain, rtol=1e-6)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, 0.5 * b, rtol=1e-3, atol=1e-7),
      grads,
      plain_grads,
    )

  def test_reward_zero_gives_no_gradient(self):
    (loss, _), grads = self.gradient(make_batch(reward=[0.0] * 8))
    self.assertEqual(loss, 0)
    self.assertEqual(optax.tree.norm(grads), 0)
    # One sample of weight: the others do not matter.
    rewards = np.array([0.9] + [0.0] * 7)
    batch = make_batch(reward=rewards)
    (loss, error_b), _ = self.gradient(batch)
    np.testing.assert_allclose(loss, 0.9 * error_b[0] / 8, rtol=1e-6)

  def test_real_videos_have_their_own_weight(self):
    is_real = np.arange(8) < 3
    reward = np.where(is_real, 1.0, 0.2)
    batch = make_batch(reward=reward, is_real=is_real)
    objective = RewardWeighted(real_weight=2.5)
    (loss, error_b), _ = self.gradient(batch, objective)
    weights = np.where(is_real, 2.5, 0.2)
    np.testing.assert_allclose(loss, np.mean(weights * error_b), rtol=1e-6)
    _, (metrics,), _ = run_step(
      self.model, self.params, batch, objective=objective
    )
    self.assertEqual(metrics['count/loss/real'], 3)
    self.assertEqual(metrics['count/loss/reward_to_0.3'], 5)
    share = weights.sum() ** 2 / (8 * (weights**2).sum())
    np.testing.assert_allclose(
      metrics['effective_sample_share'], share, rtol=1e-6
    )

  def test_metrics_account_for_every_sample(self):
    scores = [0.9, 0.67, 0.62, 0.43, 0.38, 0.33, 0.2, 0.05]
    batch = make_batch(reward=scores)
    _, (metrics,), _ = run_step(self.model, self.params, batch)
    count = sum(v for k, v in metrics.items() if k.startswith('count/loss/'))
    self.assertEqual(count, 8)

  def test_only_blocks_train(self):
    batch = make_batch()
    after, _, state = run_step(self.model, self.params, batch)
    before = param_paths.flatten(self.params)
    for name, value in param_paths.flatten(after).items():
      is_block = name.startswith('blocks/')
      self.assertEqual(is_block, not np.array_equal(value, before[name]), name)
    self.assertEqual(set(state.trainable), {'blocks'})

  def test_all_train(self):
    batch = make_batch()
    after, _, _ = run_step(self.model, self.params, batch, trainable='all')
    before = param_paths.flatten(self.params)
    for name, value in param_paths.flatten(after).items():
      self.assertFalse(np.array_equal(value, before[name]), name)

  def test_moving_average(self):
    config = dataclasses.replace(CONFIG, ema_decay=0.75)
    after, _, state = run_step(self.model, self.params, make_batch(), config)
    expected = jax.tree.map(
      lambda old, new: 0.75 * old + 0.25 * new,
      {'blocks': self.params['blocks']},
      {'blocks': after['blocks']},
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
      state.ema,
      expected,
    )

  def test_each_step_draws_anew(self):
    _, history, _ = run_step(self.model, self.params, make_batch(), steps=3)
    losses = {float(metrics['loss']) for metrics in history}
    self.assertLen(losses, 3)

  def test_caption_dropout(self):
    batch = make_batch(512, frames=1)
    draws = step_lib.draw(jax.random.key(1), batch, SCHEDULE, 0.25)
    share = float(jnp.mean(draws.drop_caption))
    self.assertBetween(share, 0.15, 0.35)
    batch = make_batch(4)
    draws = step_lib.draw(jax.random.key(1), batch, SCHEDULE, 0.0)

    @jax.jit
    def errors(draws, text):
      return step_lib.predict(
        self.model, SCHEDULE, CONFIG.latent_scale, self.params,
        batch._replace(text=text), draws, NULL_TEXT,
      ).errors()['error']  # fmt: skip

    dropped = draws._replace(drop_caption=np.array([True, False] * 2))
    text = np.array(batch.text)
    text[::2] = NULL_TEXT
    np.testing.assert_allclose(
      errors(dropped, batch.text), errors(draws, text), rtol=1e-6
    )
    self.assertGreater(
      np.abs(errors(dropped, batch.text) - errors(draws, batch.text)).max(),
      1e-4,
    )

  def test_timesteps_cover_the_schedule(self):
    batch = make_batch(20_000, frames=1)._replace(
      mean=np.zeros((20_000, 1, 1, 1, 1), np.float32)
    )
    draws = step_lib.draw(jax.random.key(0), batch, SCHEDULE, 0.0)
    self.assertGreaterEqual(int(draws.timesteps.min()), 0)
    self.assertEqual(int(draws.timesteps.max()), 999)
    self.assertBetween(float(draws.timesteps.mean()), 480, 520)
