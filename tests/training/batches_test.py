"""Batches of several sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lift_jax.data.batch_sizes import BucketSteps, mean_batch
from lift_jax.training.batches import weigh_examples
from lift_jax.training.critic_step import (
  CriticBatch,
  CriticStepConfig,
  make_critic_step,
)
from lift_jax.training.state import TrainState


@pytest.mark.fast
def test_examples_count_alike():
  """The gradients of an epoch add up to those of all examples, in steps."""
  rng = np.random.default_rng(0)
  # Of each example, in batches of two sizes.
  batches = [rng.normal(size=(size, 3)) for size in (2, 2, 2, 6)]
  buckets = [BucketSteps('', 6, 1.0, 2), BucketSteps('', 6, 1.0, 6)]
  mean = float(mean_batch(buckets))
  weighed = [
    weigh_examples({'w': batch.mean(0)}, len(batch), mean)['w']
    for batch in batches
  ]
  everything = np.concatenate(batches)
  np.testing.assert_allclose(np.mean(weighed, 0), everything.mean(0))


class _Bigrams:
  """A critic that predicts a token from the one before."""

  abstract_params = {}

  def __call__(self, params, *args, method=None):
    if method == 'logits':
      return args[0] @ params['w']
    return jax.nn.one_hot(args[1], len(params['w']))


def test_step_of_a_critic():
  """A batch half as large as others has half of its gradient."""
  tokens = np.array([[1, 2, 0], [2, 1, 1]])
  batch = CriticBatch(
    None, tokens, tokens > 1, np.ones((2, 3), np.int32), np.ones(2, np.float32)
  )
  state = TrainState.create({'w': jnp.eye(3)}, optax.sgd(1.0), False)
  norms = []
  for mean in (None, 4.0):
    config = CriticStepConfig(1, 1, 0.0, mean_batch=mean)
    step = jax.jit(make_critic_step(_Bigrams(), optax.sgd(1.0), config))
    after, metrics = step(state, {}, batch)
    norms.append(metrics['grad_norm'])
    np.testing.assert_allclose(
      np.linalg.norm(after.trainable['w'] - np.eye(3)), norms[-1], rtol=1e-5
    )
  np.testing.assert_allclose(norms[1], norms[0] / 2, rtol=1e-6)


@pytest.mark.fast
def test_batches_of_one_size():
  """Nothing is computed."""
  grads = {'w': jnp.ones(2)}
  assert weigh_examples(grads, 4, None) is grads
  assert weigh_examples(grads, 4, 4.0) is grads
