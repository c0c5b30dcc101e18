"""Distance of networks that are one number times the noisy latents."""

import contextlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.diffusion.sampler import clip_keys
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.evaluation import velocity_distance
from lift_jax.evaluation.velocity_distance import NoisyClip


def _network(params, noisy, text, t_b):
  return params * noisy


class _Network:
  """Of a model that is a number."""

  def __init__(self, model, name, mesh, dtype, offload, **options):
    self.network, self._scale = _network, model.scale
    self._kept = model.kept

  @contextlib.contextmanager
  def params(self, *, keep):
    self._kept.append(keep)
    yield np.float32(self._scale)


@pytest.fixture(autouse=True)
def _networks(monkeypatch):
  monkeypatch.setattr(velocity_distance, 'OffloadedNetwork', _Network)
  monkeypatch.setattr(
    velocity_distance.VelocityDistance,
    '_embed',
    lambda self, captions, keep: np.zeros((len(captions), 2, 3)),
  )


def distances(first, second, seeds=(1, 2, 3), batch_per_shard=1, draws=2):
  clips = [
    NoisyClip(np.full((2, 4, 4, 3), 2.0, np.float32), 'A cat.', seed)
    for seed in seeds
  ]
  kept = []
  models = [
    types.SimpleNamespace(
      schedule=ScheduleConfig(),
      scale=scale,
      kept=kept,
      load_tokenizer=lambda: None,
    )
    for scale in (first, second)
  ]
  config = types.SimpleNamespace(compute_dtype='float32', attention='auto')
  mesh = partitioning.make_mesh(partitioning.MeshConfig(1, -1, 1, 1))
  distance = velocity_distance.VelocityDistance(
    *models, config, mesh, draws=draws, batch_per_shard=batch_per_shard
  )
  found = np.array(distance(clips))
  assert kept == [False, False]
  np.testing.assert_array_equal(distance(clips, keep=True), found)
  assert kept[2:] == [True, True]
  return found


@pytest.mark.fast
def test_distance():
  """(3 - 1)^2 and 1 times the same mean square of the noisy latents."""
  square = distances(0.0, 1.0)
  # Between that of the noise, 1, and that of the latents, 4.
  assert ((square > 0.7) & (square < 4.1)).all()
  np.testing.assert_allclose(distances(1.0, 3.0), 4 * square, rtol=1e-5)
  assert not distances(1.0, 1.0).any()


def test_depends_on_seeds_alone():
  square = distances(0.0, 1.0)
  assert len(set(square)) == 3
  np.testing.assert_array_equal(
    distances(0.0, 1.0, seeds=(3, 1))[::-1], square[[0, 2]]
  )
  np.testing.assert_allclose(
    distances(0.0, 1.0, batch_per_shard=2), square, rtol=1e-6
  )


def test_draws():
  """Each has noise of its own, and counts equally."""
  one, two = distances(0.0, 1.0, draws=1), distances(0.0, 1.0, draws=2)
  assert (np.abs(one - two) > 1e-3).all()


def test_to_base():
  """The same clips, as arrays; the last one fills the batch."""
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(1, 1, 1, 1), jax.devices()[:1]
  )
  batches = [
    (
      jnp.full((2, 2, 4, 4, 3), 2.0),
      jnp.zeros((2, 2, 3)),
      jnp.asarray(clip_keys(seeds)),
    )
    for seeds in ((1, 2), (3, 3))
  ]
  distance = velocity_distance.DistanceToBase(
    _network, np.float32(1.0), ScheduleConfig(), batches, 2, mesh
  )
  assert not distance(np.float32(1.0)).any()
  expected = distances(1.0, 3.0)
  np.testing.assert_allclose(
    distance(np.float32(3.0)), [*expected, expected[-1]], rtol=1e-5
  )
