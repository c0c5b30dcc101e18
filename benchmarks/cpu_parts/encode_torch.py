"""The encoder of diffusers."""

from collections.abc import Callable
import pathlib

from cpu_parts.rows import Results
import diffusers
import numpy as np
import torch


class Torch:
  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._vae = diffusers.AutoencoderKLCogVideoX.from_pretrained(
      folder / 'model' / 'vae', use_safetensors=True, local_files_only=True
    ).eval()

  def __call__(self, number: int) -> Callable[[], Results]:
    frames_bthw3 = torch.from_numpy(np.load(self._folder / f'{number}.npy'))

    @torch.inference_mode()
    def encode() -> Results:
      video = frames_bthw3.movedim(-1, 1).float() / 255 * 2 - 1
      posterior = self._vae.encode(video).latent_dist
      return {
        'mean': posterior.mean.movedim(1, -1).numpy(),
        'logvar': posterior.logvar.movedim(1, -1).numpy(),
      }

    return encode
