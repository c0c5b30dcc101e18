"""Validation of a text-to-video model: clips of fixed prompts and seeds.

Batches are sharded over the mesh of all hosts, as training batches are. Each
host writes the clips that its own devices hold.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from lift_jax import partitioning
from lift_jax.data.video_write import write_mp4
from lift_jax.diffusion import sampler as sampler_lib
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.errors import UserError
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.models.generators import TOKENIZER, VideoModel
from lift_jax.models.offloading import OffloadedNetwork
from lift_jax.partitioning import BATCH
from lift_jax.runtime import distributed
from lift_jax.runtime.files import atomic_path, json_sha256, remove_partials
from lift_jax.sampling import programs, sizes
from lift_jax.sampling.clips import clip_seed, safe_name
from lift_jax.sampling.config import VideoConfig

# Height of the downscaled copies for TensorBoard.
_PREVIEW_HEIGHT = 160
_NAME_BYTES = 80


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
  """Clips generated during training.

  Attributes:
    every_steps: optimizer steps between two sets of clips; 0 generates none.
      There is also one before the first step and one after the last.
    prompts: one clip is generated for each.
    negative: negative prompt.
    seed: of their noise, which is the same every time.
    fps: frames per second of the files.
    video: size of the clips.
    sampler: settings of the sampler.
  """

  every_steps: int
  prompts: tuple[str, ...]
  negative: str
  seed: int
  fps: float
  video: VideoConfig
  sampler: SamplerConfig

  def __post_init__(self):
    if self.every_steps < 0:
      raise UserError('validation.every_steps must not be below 0')
    self.sampler.check_uncached('validation.sampler')
    if self.every_steps and not all(text.strip() for text in self.prompts):
      raise UserError('validation.prompts has a blank prompt; remove it')
    if self.every_steps and not self.prompts:
      raise UserError('validation.prompts is empty; add some, or set '
                      'validation.every_steps = 0')  # fmt: skip


class Validation:
  """Generates the validation clips of a run.

  Args:
    config: with `every_steps` above 0.
    model: folder of the networks.
    transformer: the one in training.
    mesh: all devices of all hosts.
    dtype: of text encoder and autoencoder.
    workdir: gets `validation/step_NUMBER/NAME.mp4`.

  Attributes:
    root: the folder `validation`.
    names: of the clips, one for each prompt.

  Raises:
    UserError: sizes or a sampler that the model does not support.
  """

  def __init__(
    self,
    config: ValidationConfig,
    model: VideoModel,
    transformer: FunctionalModel,
    mesh: jax.sharding.Mesh,
    dtype: str,
    workdir: pathlib.Path,
  ):
    self._config, self._model, self._mesh = config, model, mesh
    self._transformer = transformer
    self.root = workdir / 'validation'
    if distributed.is_primary():  # the others wait for it in `_embed`
      for folder in (self.root, *self.root.glob('step_*')):
        remove_partials(folder)
    self._batch_size = partitioning.batch_shards(mesh)
    self._batch_sharding = NamedSharding(mesh, BATCH)
    self._replicated = NamedSharding(mesh, P())
    self._latent_shape = sizes.latent_shape(model, config.video)
    model.schedule.make_steps(config.sampler)  # raises if unsupported
    open_network = functools.partial(
      OffloadedNetwork, model, mesh=mesh, dtype=dtype, offload=True
    )
    self._vae = open_network('vae')
    sizes.decoded_frames(model, self._vae.network, config.video)
    *texts, negative = self._embed(open_network('text_encoder'), dtype)
    self._texts, self._negative = np.stack(texts), negative
    seeds = [clip_seed(config.seed, prompt, 0) for prompt in config.prompts]
    self._keys_b2 = sampler_lib.clip_keys(seeds)
    self.names = [
      f'{number:02d}-{safe_name(prompt, _NAME_BYTES)}'
      for number, prompt in enumerate(config.prompts)
    ]

  def _embed(self, text_encoder: OffloadedNetwork, dtype: str) -> np.ndarray:
    """Embeddings of the prompts and, last, of the negative prompt.

    They are cached, so that a resumed run need not load the text encoder.
    """
    texts = [*self._config.prompts, self._config.negative]
    fingerprint = [
      texts,
      dtype,
      self._model.fingerprint('text_encoder'),
      self._model.fingerprint(TOKENIZER),
      self._model.text_shape[0],
    ]
    path = self.root / f'text-{json_sha256(fingerprint)[:16]}.npy'
    is_cached = path.exists()
    distributed.barrier('every host has checked for cached embeddings')
    if is_cached:
      with path.open('rb') as file:
        return np.load(file, allow_pickle=False)
    tokens_bs, _ = self._model.load_tokenizer()(texts)
    with text_encoder.params(keep=False) as params:
      embedded = self._over_batches(
        lambda tokens: programs.embed(
          text_encoder.network, params, self._put(tokens)
        ),
        tokens_bs,
      )
      text_bsd = np.concatenate(
        [self._fetch(batch).astype(np.float32) for batch in embedded]
      )[: len(texts)]
    if distributed.is_primary():
      self.root.mkdir(parents=True, exist_ok=True)
      with atomic_path(path) as partial, partial.open('wb') as file:
        np.save(file, text_bsd)
    return text_bsd

  def _put(self, array: np.ndarray, sharding=None) -> jax.Array:
    """The array on the mesh, by default sharded along the batch axis."""
    return jax.make_array_from_callback(
      array.shape, sharding or self._batch_sharding, lambda index: array[index]
    )

  def _fetch(self, x: jax.Array) -> np.ndarray:
    """A sharded array as a full copy on every host."""
    return np.asarray(jax.jit(_same, out_shardings=self._replicated)(x))

  def _over_batches(self, run: Callable[..., Any], *arrays: np.ndarray):
    """`run` on batches of `arrays`; the last one is padded by repetition."""
    count, size = len(arrays[0]), self._batch_size
    for start in range(0, count, size):
      indices = np.minimum(np.arange(start, start + size), count - 1)
      with jax.set_mesh(self._mesh):
        yield run(*(array[indices] for array in arrays))

  def conditions(self) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Yields text embeddings [B, S, D] and keys [B, 2] of each batch.

    They are on the mesh; the last batch is padded by repetition.
    """
    return self._over_batches(
      lambda *arrays: tuple(map(self._put, arrays)), self._texts, self._keys_b2
    )

  def __call__(self, step: int, params: Params) -> dict[str, np.ndarray]:
    """Generates and writes the clips of a step; every host must call it.

    Args:
      step: for the names of the files.
      params: of the transformer.

    Returns:
      Downscaled copies uint8 [T, H, W, 3] by name.

    Raises:
      UserError: a file cannot be written, on this host or another.
    """
    return self.write(self.folder(step), self.denoise(params))

  def folder(self, step: int) -> pathlib.Path:
    """The folder of the clips of a step."""
    return self.root / f'step_{step:08d}'

  def denoise(self, params: Params) -> list[jax.Array]:
    """Latents [B, F, h, w, C] of each batch; every host must call it."""
    config = self._config
    negative = self._put(self._negative, self._replicated)
    latents: list[jax.Array] = []
    for text_bsd, keys_b2 in self.conditions():
      with jax.set_mesh(self._mesh):
        latents.append(
          programs.denoise(
            self._transformer,
            params,
            self._model.schedule,
            config.sampler,
            text_bsd,
            negative if config.sampler.is_guided else None,
            latent_shape=self._latent_shape,
            keys_b2=keys_b2,
          )
        )
    return latents

  def write(
    self, folder: pathlib.Path, latents: Sequence[jax.Array]
  ) -> dict[str, np.ndarray]:
    """Decodes and writes clips; every host must call it.

    Args:
      folder: to write to.
      latents: of `denoise`.

    Returns:
      See `__call__`.
    """
    config = self._config
    shrink = max(1, config.video.height // _PREVIEW_HEIGHT)
    previews = []
    with self._vae.params() as vae_params:
      for number, latents_bfhwc in enumerate(latents):
        with jax.set_mesh(self._mesh):
          video = programs.decode_latents(
            self._vae.network,
            vae_params,
            latents_bfhwc,
            self._model.latent_scale,
            config.video.tiling,
          )
        self._write(folder, number * self._batch_size, video)
        previews.extend(self._fetch(video[:, :, ::shrink, ::shrink]))
    return dict(zip(self.names, previews, strict=False))

  def _write(
    self, folder: pathlib.Path, first: int, video_bthw3: jax.Array
  ) -> None:
    """Writes the clips that this host holds."""
    error = None
    try:
      folder.mkdir(parents=True, exist_ok=True)
      for shard in video_bthw3.addressable_shards:
        start = first + (shard.index[0].start or 0)
        clips = enumerate(np.asarray(shard.data), start)
        for index, frames_thw3 in clips if shard.replica_id == 0 else ():
          if index < len(self.names):
            path = folder / f'{self.names[index]}.mp4'
            write_mp4(path, frames_thw3, self._config.fps)
    except OSError as raised:
      error = UserError(f'{folder} cannot be written ({raised}); make room')
    distributed.raise_together(error)


def _same(x: Any) -> Any:
  return x
