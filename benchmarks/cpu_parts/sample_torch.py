"""The pipeline of diffusers, which gets its texts embedded."""

from collections.abc import Callable
import json
import pathlib

from cpu_parts.rows import Results
import diffusers
import numpy as np
import torch


class Torch:
  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._settings = json.loads((folder / 'settings.json').read_text())

    def load(kind, part):
      return kind.from_pretrained(
        folder / 'model' / part, use_safetensors=True, local_files_only=True
      )

    self._pipeline = diffusers.CogVideoXPipeline(
      tokenizer=None,
      text_encoder=None,
      vae=load(diffusers.AutoencoderKLCogVideoX, 'vae').eval(),
      transformer=load(
        diffusers.CogVideoXTransformer3DModel, 'transformer'
      ).eval(),
      scheduler=diffusers.CogVideoXDDIMScheduler.from_pretrained(
        folder / 'model' / 'scheduler', local_files_only=True
      ),
    )
    self._pipeline.set_progress_bar_config(disable=True)

  def __call__(self, number: int) -> Callable[[], Results]:
    inputs = {
      name: torch.from_numpy(array)
      for name, array in np.load(self._folder / f'{number}.npz').items()
    }
    noise_bfchw = inputs['noise'].movedim(-1, 2).contiguous()
    scale = self._pipeline.vae_scale_factor_spatial
    _, num_latents, _, rows, columns = noise_bfchw.shape
    ratio = self._pipeline.vae_scale_factor_temporal
    last = {}

    def keep(pipeline, step, timestep, tensors):
      last.update(tensors)
      return {}

    def sample() -> Results:
      frames = self._pipeline(
        prompt_embeds=inputs['text'],
        negative_prompt_embeds=inputs['negative'],
        latents=noise_bfchw,
        height=rows * scale,
        width=columns * scale,
        num_frames=(num_latents - 1) * ratio + 1,
        num_inference_steps=self._settings['num_steps'],
        guidance_scale=self._settings['guidance_scale'],
        callback_on_step_end=keep,
        output_type='np',
      ).frames
      return {
        'latents': last['latents'].movedim(2, -1).numpy(),
        'frames': frames,
      }

    return sample
