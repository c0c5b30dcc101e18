"""Encoding of videos and captions into latents and embeddings."""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
import numpy as np

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models.generators import TOKENIZER, VideoModel
from lift_jax.models.offloading import OffloadedNetwork


class ClipEncoder:
  """Video autoencoder and text encoder on the devices of this host.

  Both are loaded on first use and compiled once per shape; a partial batch is
  padded by repeating its last item, and the results are cut again.

  Args:
    model: folder of the networks.
    batch_per_device: videos, and captions, that a device encodes at a time.
    dtype: of the computation and of the weights.
    keep_dtype: of the results.
    tiling: whether the VAE works in tiles, as the reference does.
  """

  def __init__(
    self,
    model: VideoModel,
    *,
    batch_per_device: int,
    dtype,
    keep_dtype,
    tiling: bool,
  ):
    devices = jax.local_devices()
    self._mesh = partitioning.make_mesh(
      partitioning.MeshConfig(data=1, fsdp=-1, context=1, tensor=1), devices
    )
    self._sharding = NamedSharding(self._mesh, partitioning.BATCH)
    self.batch_size = batch_per_device * len(devices)
    self._shrink = model.latent_grid.pixels
    self._tokenize = model.load_tokenizer()
    open_network = functools.partial(
      OffloadedNetwork, model, mesh=self._mesh, dtype=dtype, offload=False
    )
    self._vae, self._text_encoder = (
      open_network('vae'),
      open_network('text_encoder'),
    )

    def encode_video(params, frames_bthw3):
      video = frames_bthw3.astype(jnp.float32) / 255 * 2 - 1
      posterior = self._vae.network(
        params, video, method='encode', tiling=tiling
      )
      return jax.tree.map(lambda x: x.astype(keep_dtype), tuple(posterior))

    def encode_text(params, tokens_bs):
      return self._text_encoder.network(params, tokens_bs).astype(keep_dtype)

    self._encode_video = jax.jit(encode_video)
    self._encode_text = jax.jit(encode_text)

  def _run(self, function, network: OffloadedNetwork, array: np.ndarray):
    """`function` on one batch, possibly a partial one."""
    count = len(array)
    array = np.concatenate(
      [array, np.repeat(array[-1:], self.batch_size - count, axis=0)]
    )
    with jax.set_mesh(self._mesh), network.params() as params:
      result = function(params, jax.device_put(array, self._sharding))
    return jax.tree.map(lambda x: np.asarray(x)[:count], result)

  def videos(self, frames_bthw3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log-variance of the latents, [B, F, h, w, C] each.

    Args:
      frames_bthw3: uint8 [B, T, H, W, 3], at most `batch_size` clips.

    Raises:
      UserError: the VAE's tiles do not join exactly at this size.
    """
    moments = self._run(self._encode_video, self._vae, frames_bthw3)
    height, width = frames_bthw3.shape[2:4]
    expected = (height // self._shrink, width // self._shrink)
    if moments[0].shape[2:4] != expected:
      # Overlaps are rounded down to integer latents, so that for some sizes
      # tiles cover a row or column twice.
      raise UserError(
        f'data.sizes: {height} x {width} pixels encode to '
        f'{moments[0].shape[2:4]} latents instead of {expected}: the tiles of '
        'this VAE do not join exactly; choose another size, or set '
        'prepare.tiling = False'
      )
    return moments

  def captions(self, captions: Sequence[str]) -> tuple[np.ndarray, list[bool]]:
    """Embeddings [B, S, D], and which captions were truncated to length S."""
    tokens_bs, truncated = self._tokenize(captions)
    text_bsd = self._run(self._encode_text, self._text_encoder, tokens_bs)
    return text_bsd, truncated


def check_sizes(model: VideoModel, sizes: Sequence[tuple[int, int]]) -> None:
  """Raises UserError if the model cannot take videos of a size."""
  multiple = model.latent_grid.multiple
  for height, width in sizes:
    if height % multiple or width % multiple:
      raise UserError(
        f'data.sizes: {height} x {width} is not a multiple of {multiple} '
        'pixels, which this model requires; choose another size'
      )


def fingerprint(
  model: VideoModel, *, dtype, keep_dtype, tiling: bool
) -> dict[str, object]:
  """Everything that determines the encoding of given frames and captions."""
  return {
    'vae': model.fingerprint('vae'),
    'text_encoder': model.fingerprint('text_encoder'),
    'tokenizer': model.fingerprint(TOKENIZER),
    'max_text_length': model.text_shape[0],
    'compute_dtype': jnp.dtype(dtype).name,
    'keep_dtype': jnp.dtype(keep_dtype).name,
    'tiling': tiling,
  }
