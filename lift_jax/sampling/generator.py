"""Batched generation: text encoder, transformer and autoencoder in turn.

B clips  S text tokens  D width of their embeddings  F latent frames  h w height
and width in latents  C channels  T H W frames, height and width of videos
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import functools
import itertools
from typing import TypeVar

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from lift_jax import partitioning
from lift_jax.diffusion import sampler as sampler_lib
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.generators import VideoModel
from lift_jax.models.offloading import OffloadedNetwork
from lift_jax.partitioning import BATCH
from lift_jax.sampling import cache_curve, programs, sizes
from lift_jax.sampling.config import VideoConfig

T = TypeVar('T')


class Generator:
  """A text-to-video model on the devices of one host.

  Args:
    model: folder of the networks.
    config: dtype of the computation, and attention.
    mesh: of the devices.
    video: size of the clips.
    sampler: settings of the sampler.
    negative: negative prompt.
    offload: see `SamplingRunConfig`.

  Attributes:
    num_shards: number of shards of a batch.
    latent_shape: (F, h, w, C) of a clip.
    num_frames: of a decoded clip, see `sizes.decoded_frames`.
    is_computed: which steps run the transformer's blocks, bool [N]; None
      without a cache, for all.

  Raises:
    UserError: the model cannot generate such clips, or the mesh does not divide
      it; or the sampler's cache has no curve that was measured for it.
  """

  def __init__(
    self,
    model: VideoModel,
    config: ModelConfig,
    mesh: jax.sharding.Mesh,
    video: VideoConfig,
    sampler: SamplerConfig,
    *,
    negative: str,
    offload: bool,
  ):
    self.mesh = mesh
    self.num_shards = partitioning.batch_shards(mesh)
    self.latent_shape = sizes.latent_shape(model, video)
    self._model, self._sampler, self._tiling = model, sampler, video.tiling
    model.check_mesh(mesh)
    self._num_steps = len(model.schedule.make_steps(sampler).index)
    self.is_computed = cache_curve.computed_steps(model, video, sampler)
    open_network = functools.partial(
      OffloadedNetwork,
      model,
      mesh=mesh,
      dtype=config.compute_dtype,
      offload=offload,
    )
    self._text_encoder = open_network('text_encoder')
    self._transformer = open_network(
      'transformer', attention_backend=config.attention
    )
    self._vae = open_network('vae')
    self._tokenize = model.load_tokenizer()
    self._negative = negative
    self._negative_text = None
    self.num_frames = sizes.decoded_frames(model, self._vae.network, video)
    self._batch_sharding = NamedSharding(mesh, BATCH)
    self._replicated = NamedSharding(mesh, P())

  def flops(self) -> float:
    """FLOPs of the transformer for one clip, over all computed steps."""
    num_tokens = self._model.num_tokens(*self.latent_shape[:3])
    is_computed = self.is_computed
    if is_computed is None:
      is_computed = np.ones(self._num_steps, bool)
    passes = self._sampler.passes(is_computed)
    return passes * self._model.flops(num_tokens).forward

  def too_long(self, texts: Sequence[str]) -> list[bool]:
    """Which texts have more tokens than the model reads."""
    return self._tokenize(texts)[1]

  @property
  def max_text_length(self) -> int:
    """Most tokens of a text that the model reads."""
    return self._model.text_shape[0]

  def embed(
    self, batches: Iterable[Sequence[str]], *, keep: bool = True
  ) -> Iterator[np.ndarray]:
    """Embeddings [B, S, D] of batches of B texts.

    Args:
      batches: of texts.
      keep: whether the network is needed again, here and below.
    """
    with self._text_encoder.params(keep=keep) as params:

      def run(texts):
        tokens_bs, _ = self._tokenize(texts)
        tokens_bs = jax.device_put(tokens_bs, self._batch_sharding)
        return programs.embed(self._text_encoder.network, params, tokens_bs)

      if self._negative_text is None:
        batches = iter(batches)
        first = next(batches)
        # As a full batch, so that no other program is compiled.
        (text_bsd,) = self._one_ahead(run, [[self._negative] * len(first)])
        self._negative_text = text_bsd[0]
        batches = itertools.chain([first], batches)
      yield from self._one_ahead(run, batches)

  def denoise(
    self,
    batches: Iterable[tuple[np.ndarray, Sequence[int], np.ndarray | None]],
    *,
    keep: bool = True,
  ) -> Iterator[np.ndarray]:
    """Scaled latents fp32 [B, F, h, w, C] of batches.

    Args:
      batches: embeddings [B, S, D], seeds of the B clips, and the initial noise
        [B, F, h, w, C] or None to sample it.
      keep: see `embed`.
    """
    with self._transformer.params(keep=keep) as params:
      negative = jax.device_put(self._negative_text, self._replicated)

      def run(batch):
        text_bsd, seeds, noise = batch
        put = functools.partial(jax.device_put, device=self._batch_sharding)
        return programs.denoise(
          self._transformer.network,
          params,
          self._model.schedule,
          self._sampler.uncached,
          put(text_bsd),
          negative if self._sampler.is_guided else None,
          latent_shape=self.latent_shape,
          keys_b2=put(sampler_lib.clip_keys(seeds)),
          initial_noise=None if noise is None else put(noise),
          is_computed=self.is_computed,
        )

      yield from self._one_ahead(run, batches)

  def measure_steps(
    self,
    batches: Iterable[tuple[np.ndarray, Sequence[int]]],
    *,
    keep: bool = True,
  ) -> Iterator[programs.StepChanges]:
    """What a step cache needs to know of batches: embeddings and seeds."""
    with self._transformer.params(keep=keep) as params:
      negative = jax.device_put(self._negative_text, self._replicated)
      put = functools.partial(jax.device_put, device=self._batch_sharding)
      for text_bsd, seeds in batches:
        with jax.set_mesh(self.mesh):
          changes = programs.measure_steps(
            self._transformer.network,
            params,
            self._model.schedule,
            self._sampler.uncached,
            put(text_bsd),
            negative if self._sampler.is_guided else None,
            latent_shape=self.latent_shape,
            keys_b2=put(sampler_lib.clip_keys(seeds)),
          )
        yield jax.device_get(changes)

  def decode(
    self, batches: Iterable[np.ndarray], *, keep: bool = True
  ) -> Iterator[np.ndarray]:
    """Videos uint8 [B, T, H, W, 3] of batches of scaled latents."""
    with self._vae.params(keep=keep) as params:

      def run(latents_bfhwc):
        return programs.decode_latents(
          self._vae.network,
          params,
          jax.device_put(latents_bfhwc, self._batch_sharding),
          self._model.latent_scale,
          self._tiling,
        )

      yield from self._one_ahead(run, batches)

  def _one_ahead(
    self, run: Callable[[T], jax.Array], items: Iterable[T]
  ) -> Iterator[np.ndarray]:
    """Results on the host, each fetched once the next one is dispatched."""
    pending = None
    for item in items:
      with jax.set_mesh(self.mesh):
        result = run(item)
      if pending is not None:
        yield jax.device_get(pending)
      pending = result
    if pending is not None:
      yield jax.device_get(pending)
