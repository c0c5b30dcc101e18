"""How far a model is from another one, on noisy latents that both are given.

  d = mean over elements, timesteps and noises of (v - v_base)^2

with v the predictions of the two networks for the same noisy latents, timestep
and caption.

B clips  N all clips  F latent frames  h w C height, width and channels of
latents  S text tokens  D width of their embeddings
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from lift_jax import partitioning
from lift_jax.diffusion.sampler import clip_keys, clip_noise
from lift_jax.diffusion.schedule import Schedule
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.generators import VideoModel
from lift_jax.models.offloading import OffloadedNetwork
from lift_jax.sampling import programs


@dataclasses.dataclass(frozen=True)
class NoisyClip:
  """A clip that both networks are given with noise.

  Attributes:
    latents: scaled, fp32 [F, h, w, C].
    caption: its text.
    seed: of noise and timesteps, in [0, 2^53).
  """

  latents: np.ndarray
  caption: str
  seed: int


class VelocityDistance:
  """The distance of two models on clips.

  The networks are on the devices one after the other, and between calls in host
  memory, with the latents of a call and `draws` velocities of each of its
  clips.

  Args:
    base: a model of the same sizes as `other`; its text encoder is used.
    other: the model to compare with it.
    config: dtype of the computation, and attention.
    mesh: of devices of this host.
    draws: timesteps and noises of each clip.
    batch_per_shard: clips at a time, per shard of a batch.
  """

  def __init__(
    self,
    base: VideoModel,
    other: VideoModel,
    config: ModelConfig,
    mesh: jax.sharding.Mesh,
    *,
    draws: int,
    batch_per_shard: int,
  ):
    self._models, self._mesh, self._draws = (base, other), mesh, draws
    self._dtype = config.compute_dtype
    self._batch_size = batch_per_shard * partitioning.batch_shards(mesh)
    self._attention = config.attention

  # Networks are declared at their first use: a job that has nothing left to
  # measure only takes the fingerprint.
  @functools.cached_property
  def _text_encoder(self) -> OffloadedNetwork:
    base, _ = self._models
    return OffloadedNetwork(
      base, 'text_encoder', self._mesh, self._dtype, offload=True
    )

  @functools.cached_property
  def _transformers(self) -> list[OffloadedNetwork]:
    return [
      OffloadedNetwork(
        model,
        'transformer',
        self._mesh,
        self._dtype,
        offload=True,
        attention_backend=self._attention,
      )
      for model in self._models
    ]

  def fingerprint(self) -> dict[str, Any]:
    """What determines the distance, besides the clips."""
    base, other = self._models
    return {
      'base': base.fingerprint('transformer'),
      'model': other.fingerprint('transformer'),
      'compute_dtype': self._dtype,
      'draws': self._draws,
    }

  def __call__(
    self, clips: Sequence[NoisyClip], *, keep: bool = False
  ) -> list[float]:
    """The distance on each of the clips, which have one size.

    Args:
      clips: to measure.
      keep: whether there are more clips to come. Otherwise the networks are
        dropped after use, and another call reads them from their files again.
    """
    text_nsd = self._embed([clip.caption for clip in clips], keep)
    before, after = (
      self._velocities(network, model.schedule, clips, text_nsd, keep)
      for network, model in zip(self._transformers, self._models, strict=True)
    )
    first = list(before)
    totals = np.zeros(len(clips))
    for (_, base_b), (indices, velocity_b) in zip(first, after, strict=True):
      squares_b = np.square(velocity_b - base_b, dtype=np.float64)
      totals[indices] += squares_b.mean(axis=tuple(range(1, squares_b.ndim)))
    return (totals / self._draws).tolist()

  def _embed(self, captions: Sequence[str], keep: bool) -> np.ndarray:
    """Text embeddings [N, S, D]."""
    sharding = NamedSharding(self._mesh, partitioning.BATCH)
    size = partitioning.batch_shards(self._mesh)
    embedded = []
    base, _ = self._models
    tokenize, text_encoder = base.load_tokenizer(), self._text_encoder
    with jax.set_mesh(self._mesh), text_encoder.params(keep=keep) as params:
      for _, texts in _batches(list(captions), size):
        tokens_bs, _ = tokenize(texts)
        tokens_bs = jax.device_put(tokens_bs, sharding)
        embedded.append(
          np.asarray(programs.embed(text_encoder.network, params, tokens_bs))
        )
    return np.concatenate(embedded)[: len(captions)]

  def _velocities(
    self,
    network: OffloadedNetwork,
    schedule: Schedule,
    clips: Sequence[NoisyClip],
    text_nsd: np.ndarray,
    keep: bool,
  ) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yields indices of clips and the velocities for them, draw by draw."""
    put = functools.partial(
      jax.device_put, device=NamedSharding(self._mesh, partitioning.BATCH)
    )
    with jax.set_mesh(self._mesh), network.params(keep=keep) as params:
      for draw in range(self._draws):
        for indices, batch in _batches(
          list(range(len(clips))), self._batch_size
        ):
          velocity_b = _velocity(
            network.network,
            params,
            schedule,
            put(np.stack([clips[index].latents for index in batch])),
            put(text_nsd[batch]),
            put(clip_keys([clips[index].seed for index in batch])),
            draw,
          )
          yield indices, np.asarray(velocity_b, np.float32)[: len(indices)]


class DistanceToBase:
  """Distance of a network in training to what it was before, on fixed clips.

  Args:
    network: in training.
    base: its parameters before the first step.
    schedule: that it is trained with.
    batches: latents [B, F, h, w, C], text embeddings [B, S, D] and keys
      [B, 2] (see `sampler.clip_keys`) of clips, sharded along B.
    draws: timesteps and noises of each clip.
    mesh: of all devices; every host must call this and the object.
  """

  def __init__(
    self,
    network: FunctionalModel,
    base: Params,
    schedule: Schedule,
    batches: Sequence[tuple[jax.Array, jax.Array, jax.Array]],
    draws: int,
    mesh: jax.sharding.Mesh,
  ):
    self._network, self._schedule, self._mesh = network, schedule, mesh
    self._batches, self._draws = batches, draws
    self._squares = jax.jit(
      _mean_squares, out_shardings=NamedSharding(mesh, P())
    )
    self._base = list(self._velocities(base))

  def _velocities(self, params: Params) -> Iterator[jax.Array]:
    """Yields the velocities of a batch for a draw."""
    with jax.set_mesh(self._mesh):
      for batch in self._batches:
        for draw in range(self._draws):
          yield _velocity(self._network, params, self._schedule, *batch, draw)

  def __call__(self, params: Params) -> np.ndarray:
    """The distance on each clip, with those that fill the last batch."""
    squares = [
      np.asarray(self._squares(velocity, base))
      for velocity, base in zip(
        self._velocities(params), self._base, strict=True
      )
    ]
    return (
      np.reshape(squares, (len(self._batches), self._draws, -1))
      .mean(axis=1)
      .ravel()
    )


def _mean_squares(one_bfhwc: jax.Array, other_bfhwc: jax.Array) -> jax.Array:
  """Mean squared differences [B]."""
  difference = one_bfhwc.astype(jnp.float32) - other_bfhwc
  return jnp.square(difference).mean(axis=range(1, difference.ndim))


def _batches(items: list, size: int) -> Iterator[tuple[list, list]]:
  """Yields items, and the same filled up to the size with the last one."""
  for first in range(0, len(items), size):
    batch = items[first : first + size]
    yield batch, batch + batch[-1:] * (size - len(batch))


@functools.partial(jax.jit, static_argnames=('network', 'schedule'))
def _velocity(
  network: FunctionalModel,
  params: Params,
  schedule: Schedule,
  x0_bfhwc: jax.Array,
  text_bsd: jax.Array,
  keys_b2: jax.Array,
  draw: int,
) -> jax.Array:
  """Predictions for the clips with noise number `draw`."""

  def timestep(key_2):
    key = jax.random.wrap_key_data(key_2, impl='threefry2x32')
    # Not the key of the noise itself.
    key = jax.random.fold_in(jax.random.fold_in(key, draw), 1)
    return schedule.draw_timesteps(key, ())

  t_b = jax.vmap(timestep)(keys_b2)
  noise_bfhwc = clip_noise(keys_b2, draw, x0_bfhwc.shape[1:])
  noisy_bfhwc = schedule.add_noise(x0_bfhwc, noise_bfhwc, t_b)
  return network(params, noisy_bfhwc, text_bsd, t_b)
