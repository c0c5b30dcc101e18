"""Guided sampling with DDIM and decoding, as in `lift sample`, one clip.

In the folder: model/, settings.json, and for each round NUMBER.npz with the
noise and embedded texts.
"""

from collections.abc import Callable
import pathlib

from cpu_parts import networks
from cpu_parts.rows import Results
import jax
import numpy as np

from lift_jax import partitioning
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.models.generators import open_model
from lift_jax.models.offloading import OffloadedNetwork
from lift_jax.runtime.files import read_json, write_json
from lift_jax.sampling import programs

_GUIDANCE = 6.0


def write(folder: pathlib.Path, tiny: bool, rounds: int) -> dict[str, float]:
  """Makes a model, noise and texts."""
  config = networks.write(folder / 'model', tiny).transformer
  # 17 x 128 x 192 pixels, 10 steps; or 9 x 48 x 64, 2 steps.
  frames, rows, columns = (3, 6, 8) if tiny else (5, 16, 24)
  rng = np.random.default_rng(0)
  for number in range(rounds):
    texts_2sd = rng.standard_normal(
      (2, config.max_text_length, config.text_embed_dim), np.float32
    )
    noise_fhwc = rng.standard_normal(
      (frames, rows, columns, config.in_channels), np.float32
    )
    np.savez(
      folder / f'{number}.npz',
      noise=noise_fhwc[None],
      text=texts_2sd[:1],
      negative=texts_2sd[1:],
    )
  write_json(
    folder / 'settings.json',
    {'num_steps': 2 if tiny else 10, 'guidance_scale': _GUIDANCE},
  )
  return {}


class Ours:
  """The programs of `lift sample` after its text encoder."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._model = open_model(folder / 'model')
    self._config = SamplerConfig('ddim', **read_json(folder / 'settings.json'))
    self._mesh = partitioning.make_mesh(
      partitioning.MeshConfig(), jax.local_devices()[:1]
    )
    self._transformer, self._vae = (
      OffloadedNetwork(self._model, name, self._mesh, 'float32', offload=False)
      for name in ('transformer', 'vae')
    )

  def __call__(self, number: int) -> Callable[[], Results]:
    inputs = dict(np.load(self._folder / f'{number}.npz'))

    def sample() -> Results:
      with jax.set_mesh(self._mesh):
        with self._transformer.params() as params:
          latents = programs.denoise(
            self._transformer.network,
            params,
            self._model.schedule,
            self._config,
            inputs['text'],
            inputs['negative'][0],
            latent_shape=inputs['noise'].shape[1:],
            initial_noise=inputs['noise'],
          )
        with self._vae.params() as params:
          frames = programs.decode_latents(
            self._vae.network,
            params,
            latents,
            self._model.latent_scale,
            tiling=False,
          )
      return {
        'latents': np.asarray(latents),
        'frames': np.asarray(frames, np.float32) / 255,
      }

    return sample
