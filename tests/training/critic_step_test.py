"""A step of teaching a critic, against torch and against itself."""

import dataclasses
import functools
import math
import re

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lift_jax import partitioning
from lift_jax.models import lora
from lift_jax.models.functional import functional
from lift_jax.models.llama.convert import LLAMA_TABLE
from lift_jax.models.siglip.convert import SIGLIP_TABLE
from lift_jax.models.vila import sharding
from lift_jax.models.vila.backbone import ADAPTER_TABLE
from lift_jax.models.vila.projector import PROJECTOR_TABLE
from lift_jax.training import critic_step
from lift_jax.training import setup as setup_lib
from lift_jax.training.critic_losses import LabelScale, LossConfig
from lift_jax.training.critic_step import (
  CriticStepConfig,
  Ratings,
)
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths
from tests.models.vila.critics import (
  CONFIG,
)
from tests.optional import torch
from tests.torch_weights import to_torch_names
from tests.training.critic_pair import (
  BATCH,
  NUM_TARGETS,
  NUM_TOKENS,
  declare,
  params_of,
  torch_critic,
)

STEP = CriticStepConfig(max_targets=6, grad_accum=1, ema_decay=0.0)

# All losses together. Slots 0 and 1 are a pair, and so on; the second is none.
# Slots 0 to 3 are two clips in two dimensions, and so are the others.
SCALE = LabelScale(
  ids=(7, 11, 30), rewards=(0.9, 0.2, 0.05), dimension_weights=(1.5, 0.5)
)
LOSSES = LossConfig(
  answer=0.5, label=1.0, pair=2.0, overall=3.0, theta=5.0, pair_scale=10.0
)
RATED_STEP = dataclasses.replace(STEP, losses=LOSSES, scale=SCALE)
RATED = BATCH._replace(
  ratings=Ratings(
    position=np.where(
      BATCH.is_target.any(1),
      BATCH.is_target.argmax(1) - 1,
      BATCH.segment_ids.sum(1) - 1,
    ).astype(np.int32),
    shares=np.array(
      [
        [1, 0, 0], [0.5, 0.25, 0.25], [0, 0, 0], [0, 0, 1],
        [0, 2 / 3, 1 / 3], [0, 0, 1], [1, 0, 0], [0, 1, 0],
      ],
      np.float32,
    ),
    preference=np.repeat(
      np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32), 2, 0
    ),
    overall=np.repeat(
      np.array([[0, 1, 0], [1, 0, 0]], np.float32), 4, 0
    ),
  )
)  # fmt: skip

# Plain descent that keeps the gradient, so that it can be looked at.
RATE = 0.1
DESCENT = optax.GradientTransformation(
  lambda params: jax.tree.map(jnp.zeros_like, params),
  lambda grads, *_: (jax.tree.map(lambda g: -RATE * g, grads), grads),
)


def run_step(
  trainable,
  config=STEP,
  batch=BATCH,
  mesh=None,
  tx=DESCENT,
  steps=1,
  dropout=0.0,
  **options,
):
  """(state, metrics, frozen) after some steps, everything on one device unless
  there is a mesh."""
  model = declare(trainable, **options)
  mesh = mesh or partitioning.make_mesh(
    partitioning.MeshConfig(), jax.devices()[:1]
  )
  setup = setup_lib.make_setup(model, sharding.rules(CONFIG), trainable, mesh)
  params = jax.device_put(params_of(trainable), setup.shardings)
  first, frozen = setup.split(params)
  if dropout:
    model = functional(lora.with_dropout(model.build, dropout))
  step = jax.jit(critic_step.make_critic_step(model, tx, config))
  with jax.set_mesh(mesh):
    state = TrainState.create(first, tx, config.ema_decay > 0)
    batch = jax.device_put(batch, setup.batch_sharding)
    for _ in range(steps):
      state, metrics = step(state, frozen, batch)
  return state, jax.device_get(metrics), frozen


@functools.cache
def expected_step(trainable):
  """On one device, without micro-batches."""
  state, metrics, _ = run_step(trainable)
  return jax.device_get(state), metrics


def assert_same(ours, theirs, tolerance):
  """Two steps: metrics, gradients and parameters, each within its scale."""
  (state, metrics), (other, others) = ours, theirs
  assert metrics.keys() == others.keys()
  for name, value in others.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
  for got, expected in (
    (state.opt_state, other.opt_state),
    (state.trainable, other.trainable),
  ):
    got, expected = param_paths.flatten(got), param_paths.flatten(expected)
    assert got.keys() == expected.keys()
    largest = max(np.abs(leaf).max() for leaf in expected.values())
    for name, leaf in expected.items():
      error = np.abs(np.asarray(got[name]) - leaf).max()
      # Gradients of the biases of keys in the tower are rounding noise.
      floor = 1e-7 * largest
      assert error <= max(tolerance * np.abs(leaf).max(), floor), name


class _AgainstTorch(parameterized.TestCase):
  def reference(self, trainable):
    """Losses [B, N - 1] and right predictions of the tokens from the second."""
    _, logits = torch_critic(trainable)(BATCH.frames, BATCH.tokens)
    targets = torch.tensor(BATCH.tokens[:, 1:]).long().clamp(min=0)
    losses = torch.nn.functional.cross_entropy(
      logits[:, :-1].transpose(1, 2), targets, reduction='none'
    )
    return losses, logits[:, :-1].argmax(-1) == targets

  def gradients(self, trainable):
    """By published name; None of the layers after the tower's feature."""
    critic = torch_critic(trainable)
    if trainable == 'lora':
      return {
        name.replace('.default.', '.'): tensor.grad.numpy()
        for name, tensor in critic.named_parameters()
        if 'lora_' in name
      }
    found = {}
    for prefix, module in (
      ('', critic.llm),
      ('vision_model.', critic.tower),
      ('', critic.mm_projector),
    ):
      for name, tensor in module.named_parameters():
        if tensor.grad is not None:
          found[prefix + name] = tensor.grad.numpy()
    return found

  def published(self, trainable, grads):
    if trainable == 'lora':
      return to_torch_names(ADAPTER_TABLE, grads)
    return {
      **to_torch_names(LLAMA_TABLE, grads['llm']),
      **to_torch_names(SIGLIP_TABLE, grads['vision_tower']),
      **to_torch_names(PROJECTOR_TABLE, grads['projector']),
    }


class TorchTest(_AgainstTorch):
  """The full batch at once, all logits, and autograd."""

  @parameterized.parameters('all', 'lora')
  def test_loss_gradients_and_metrics(self, trainable):
    critic = torch_critic(trainable)
    critic.zero_grad()
    losses, is_right = self.reference(trainable)
    is_target = torch.tensor(BATCH.is_target[:, 1:])
    weight = torch.tensor(BATCH.weight)[:, None] * is_target
    loss = (losses * weight).sum() / weight.sum()
    loss.backward()

    state, metrics = expected_step(trainable)
    np.testing.assert_allclose(metrics['loss'], loss.item(), rtol=1e-5)
    expected = self.gradients(trainable)
    grads = self.published(trainable, state.opt_state)
    self.assertEqual(grads.keys(), expected.keys())
    largest = max(np.abs(grad).max() for grad in expected.values())
    for name, grad in expected.items():
      error = np.abs(grads[name] - grad).max()
      if re.fullmatch(r'vision_model\..*k_proj\.bias', name):
        # A shift of all keys changes no softmax: both are noise about zero.
        self.assertLess(np.abs(grads[name]).max(), 1e-5 * largest, name)
        continue
      # Observed 6e-6.
      self.assertLess(error, 5e-5 * np.abs(grad).max(), name)
    norm = math.sqrt(sum((grad**2).sum() for grad in expected.values()))
    np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-4)

    losses, is_right = losses.detach().numpy(), is_right.numpy()
    is_target = is_target.numpy()
    rows = [row for row, count in enumerate(NUM_TARGETS) if count]
    label = is_target.argmax(axis=1)[rows]
    for name, value in {
      'token_accuracy': is_right[is_target].mean(),
      'label_accuracy': is_right[rows, label].mean(),
      'label_loss': losses[rows, label].mean(),
    }.items():
      np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
      self.assertGreater(value, 0 if trainable == 'all' else -1)

  def test_token_losses(self):
    """Each answer token at its index, whatever `max_targets` is."""
    losses, is_right = self.reference('all')
    model = declare('all')
    for max_targets in (6, NUM_TOKENS):
      loss, is_there, right = _answer_losses(
        model, params_of('all'), max_targets
      )
      self.assertEqual(loss.shape, (8, max_targets))
      for row, count in enumerate(NUM_TARGETS):
        taken = BATCH.is_target[row, 1:]
        np.testing.assert_allclose(
          loss[row, :count], losses[row, taken].detach(), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_array_equal(right[row, :count], is_right[row, taken])
        np.testing.assert_array_equal(
          is_there[row], np.arange(max_targets) < count
        )
        self.assertFalse(right[row, count:].any())


@functools.partial(jax.jit, static_argnums=(0, 2))
def _answer_losses(model, params, max_targets):
  hidden_bnd = model(params, BATCH.frames, BATCH.tokens)
  return critic_step.answer_losses(
    model, params, hidden_bnd, BATCH, max_targets
  )


@functools.cache
def expected_rated_step():
  state, metrics, _ = run_step('lora', RATED_STEP, RATED)
  return jax.device_get(state), metrics


class RatingsTest(_AgainstTorch):
  """The losses of labels and pairs, together with that of answers."""

  def test_against_torch(self):
    critic = torch_critic('lora')
    critic.zero_grad()
    _, logits = critic(RATED.frames, RATED.tokens)
    losses, _ = self.reference('lora')
    is_target = torch.tensor(RATED.is_target[:, 1:])
    weight = torch.tensor(RATED.weight)
    token_weight = weight[:, None] * is_target
    answer = (losses * token_weight).sum() / token_weight.sum()

    ratings = jax.tree.map(torch.tensor, RATED.ratings)
    logits = logits[range(8), ratings.position.long()]
    shares = ratings.shares
    log_p = logits.log_softmax(-1)[:, list(SCALE.ids)]
    label = -(weight[:, None] * shares * log_p).sum()
    label /= (weight * shares.sum(1)).sum()

    p = logits[:, list(SCALE.ids)].softmax(-1)
    reward = p @ torch.tensor(SCALE.rewards)
    e = torch.exp(10 * (reward[::2] - reward[1::2]))

    def outcome(e, theta=5.0):
      return torch.stack(
        [
          e / (e + theta),
          (theta**2 - 1) * e / ((e + theta) * (theta * e + 1)),
          1 / (1 + theta * e),
        ],
        1,
      )

    # Of three pairs.
    pair = -(ratings.preference[::2] * outcome(e).log()).sum() / 3
    first, second = (
      0.75 * reward[[start, start + 4]] + 0.25 * reward[[start + 2, start + 6]]
      for start in (0, 1)
    )
    log_p = outcome(torch.exp(10 * (first - second))).log()
    overall = -(log_p[0, 1] + log_p[1, 0]) / 2

    loss = 0.5 * answer + label + 2 * pair + 3 * overall
    loss.backward()
    state, metrics = expected_rated_step()
    np.testing.assert_allclose(metrics['loss'], loss.item(), rtol=1e-5)
    np.testing.assert_allclose(
      metrics['soft_label_loss'], label.item(), rtol=1e-5
    )
    for name, expected in (('pair', pair), ('overall', overall)):
      np.testing.assert_allclose(
        metrics[f'sum/{name}_loss'] / metrics[f'count/{name}_loss'],
        expected.item(),
        rtol=1e-5,
      )
    expected = self.gradients('lora')
    grads = self.published('lora', state.opt_state)
    for name, grad in expected.items():
      error = np.abs(grads[name] - grad).max()
      self.assertLess(error, 5e-5 * np.abs(grad).max(), name)

  @parameterized.parameters(
    (2, {'fsdp': 1}),
    (1, {'data': 2, 'fsdp': 2, 'tensor': 2}),
    (2, {'data': 2, 'context': 2, 'tensor': 2}),
  )
  def test_batches_and_meshes(self, parts, axes):
    devices = jax.devices()[: math.prod(axes.values())]
    mesh = partitioning.make_mesh(
      partitioning.MeshConfig(**{'fsdp': 1} | axes), devices
    )
    config = dataclasses.replace(RATED_STEP, grad_accum=parts)
    state, metrics, _ = run_step('lora', config, RATED, mesh)
    assert_same((state, metrics), expected_rated_step(), 1e-5)

  def test_dropout(self):
    """The same on every mesh, and another in every step and with every seed."""
    one, _, _ = run_step('lora', dropout=0.5)
    mesh = partitioning.make_mesh(
      partitioning.MeshConfig(data=2, fsdp=2, tensor=2)
    )
    config = dataclasses.replace(STEP, dropout_seed=0)
    state, metrics, _ = run_step('lora', config, mesh=mesh, dropout=0.5)
    other, others, _ = run_step('lora', dropout=0.5)
    assert_same((state, metrics), (jax.device_get(other), others), 1e-5)
    plain, _ = expected_step('lora')
    first = 'llm', 'blocks', 'mlp', 'up', 'lora_a'

    def gradient(state):
      return np.asarray(functools.reduce(dict.get, first, state.opt_state))

    self.assertGreater(np.abs(gradient(one) - gradient(plain)).max(), 1e-3)


class BatchTest(parameterized.TestCase):
  @parameterized.parameters(('all', 4), ('lora', 2))
  def test_accumulation_equals_the_big_batch(self, trainable, parts):
    config = dataclasses.replace(STEP, grad_accum=parts)
    state, metrics, _ = run_step(trainable, config)
    assert_same((state, metrics), expected_step(trainable), 1e-5)

  @parameterized.parameters(
    ('all', 1, {'fsdp': 8}),
    ('lora', 1, {'data': 2, 'fsdp': 2, 'tensor': 2}),
    ('all', 2, {'fsdp': 2, 'context': 2, 'tensor': 2}),
    ('lora', 2, {'data': 4, 'tensor': 2}),
    # Divides neither the tokens of a frame nor those of an example.
    ('all', 1, {'context': 8}),
  )
  def test_mesh(self, trainable, parts, axes):
    mesh = partitioning.make_mesh(partitioning.MeshConfig(**{'fsdp': 1} | axes))
    config = dataclasses.replace(STEP, grad_accum=parts)
    state, metrics, _ = run_step(trainable, config, mesh=mesh)
    assert_same((state, metrics), expected_step(trainable), 1e-5)
    name = 'lora_a' if trainable == 'lora' else 'kernel'
    kernel = state.opt_state['llm']['blocks']['mlp']['up'][name]
    parts = mesh.shape['fsdp']
    parts *= mesh.shape['tensor'] if trainable == 'all' else 1
    self.assertEqual(
      kernel.addressable_shards[0].data.size * parts, kernel.size
    )

  def test_only_answers_and_what_they_follow_matter(self):
    """Neither missing frames nor padding count."""
    tokens, frames = BATCH.tokens.copy(), BATCH.frames.copy()
    tokens[BATCH.segment_ids == 0] = 99
    frames[5] = 7  # of the example without frames
    frames[1, 2] = 7  # of one with two
    other = BATCH._replace(tokens=tokens, frames=frames)
    state, metrics, _ = run_step('lora', batch=other)
    assert_same((state, metrics), expected_step('lora'), 1e-6)

  def test_weights(self):
    """Weight 2 is the example twice; weight 0 omits it."""
    twice = [0, 0, 1, 3, 4, 5, 6, 7]
    weight = np.ones(8, np.float32)
    weight[0], weight[2] = 2, 0
    weighted, _, _ = run_step('lora', batch=BATCH._replace(weight=weight))
    repeated, _, _ = run_step(
      'lora',
      batch=jax.tree.map(lambda x: x[twice], BATCH)._replace(
        weight=np.ones(8, np.float32)
      ),
    )
    for name, grad in param_paths.flatten(repeated.opt_state).items():
      other = param_paths.flatten(weighted.opt_state)[name]
      np.testing.assert_allclose(
        other, grad, rtol=1e-4, atol=1e-5 * np.abs(grad).max(), err_msg=name
      )


class TrainableTest(parameterized.TestCase):
  def test_adapters_alone_change(self):
    """Every one of them, from B = 0 on; the base stays bit for bit."""
    before = param_paths.flatten(params_of('lora'))
    state, _, frozen = run_step('lora', tx=optax.adam(1e-3), steps=2)
    after = param_paths.flatten(state.trainable)
    self.assertLen(after, 14)
    for name, leaf in after.items():
      self.assertTrue(lora.is_adapter(name), name)
      for layer in range(CONFIG.llm.num_layers):
        self.assertFalse(np.array_equal(leaf[layer], before[name][layer]), name)
    base = param_paths.flatten(frozen)
    self.assertEqual(base.keys() | after.keys(), before.keys())
    for name, leaf in base.items():
      np.testing.assert_array_equal(leaf, before[name], name)

  def test_all_change(self):
    before = param_paths.flatten(params_of('all'))
    state, _, frozen = run_step('all')
    self.assertEmpty(frozen)
    for name, leaf in param_paths.flatten(state.trainable).items():
      if name != 'vision_tower/blocks/attn/to_k/bias':  # see TorchTest
        self.assertFalse(np.array_equal(leaf, before[name]), name)

  def test_moving_average(self):
    config = dataclasses.replace(STEP, ema_decay=0.75)
    state, _, _ = run_step('lora', config)
    before, _ = param_paths.partition(params_of('lora'), lora.is_adapter)
    jax.tree.map(
      lambda ema, old, new: np.testing.assert_allclose(
        ema, 0.75 * old + 0.25 * np.asarray(new), rtol=1e-4, atol=1e-6
      ),
      state.ema,
      before,
      state.trainable,
    )

  @parameterized.parameters('all', 'lora')
  def test_bfloat16(self, trainable):
    state, metrics, _ = run_step(trainable, dtype=jnp.bfloat16)
    _, expected = expected_step(trainable)
    # Eight bits of mantissa; observed 1e-3.
    np.testing.assert_allclose(metrics['loss'], expected['loss'], rtol=1e-2)
    np.testing.assert_allclose(
      metrics['grad_norm'], expected['grad_norm'], rtol=5e-2
    )
    for name, grad in param_paths.flatten(state.opt_state).items():
      self.assertEqual(grad.dtype, jnp.float32)
      self.assertTrue(np.isfinite(grad).all(), name)


SHAPES = re.compile(r'\b(?:f32|bf16|f16|s32|u32|pred)\[([\d,]+)\]')


def shapes_of_logits(compiled):
  """Shapes in a program that could be logits of every token of the batch."""
  size = BATCH.tokens.size
  found = set()
  for text in SHAPES.findall(compiled.as_text()):
    shape = tuple(map(int, text.split(',')))
    vocab = CONFIG.llm.vocab_size
    if vocab in shape and math.prod(shape) >= size * vocab:
      found.add(shape)
  return found


@pytest.mark.parametrize('trainable', ['all', 'lora'])
def test_no_logits_of_the_whole_row(trainable):
  """The vocabulary is computed for answer tokens alone, also backwards."""
  model = declare(trainable)
  params = params_of(trainable)
  first, frozen = param_paths.partition(
    params, setup_lib.IS_TRAINABLE[trainable]
  )
  state = TrainState.create(first, DESCENT, False)
  step = critic_step.make_critic_step(model, DESCENT, STEP)
  compiled = jax.jit(step).lower(state, frozen, BATCH).compile()
  assert not shapes_of_logits(compiled)

  def all_logits(params):
    hidden = model(params, BATCH.frames, BATCH.tokens)
    return model(params, hidden, method='logits').max()

  # Which would be seen, if there were any.
  assert shapes_of_logits(jax.jit(all_logits).lower(params).compile())
