"""The transformer of diffusers at a tiny size."""

import numpy as np

from tests.optional import diffusers, torch

TINY = {
  'num_layers': 2,
  'num_attention_heads': 2,
  'attention_head_dim': 16,
  'time_embed_dim': 12,
  'text_embed_dim': 20,
  'max_text_seq_length': 7,
  'sample_height': 8,
  'sample_width': 12,
  'sample_frames': 9,
}


def reference(rotary: bool, **sizes):
  torch.manual_seed(0)
  module = diffusers.CogVideoXTransformer3DModel(
    **{**TINY, **sizes}, use_rotary_positional_embeddings=rotary
  )
  for parameter in module.parameters():
    # Norm scales of one and biases of zero would hide swapped tensors.
    torch.nn.init.normal_(parameter, std=0.2)
  return module.eval()


def rotation_of(module, frames, height, width):
  """The rotary tables, as the reference pipeline prepares them."""
  if not module.config.use_rotary_positional_embeddings:
    return None

  class Pipeline:
    transformer = module
    vae_scale_factor_spatial = 8

  return diffusers.CogVideoXPipeline._prepare_rotary_positional_embeddings(
    Pipeline, height * 8, width * 8, frames, torch.device('cpu')
  )


def inputs(frames=3, height=8, width=12, batch=2):
  rng = np.random.default_rng(1)
  latents = rng.normal(size=(batch, frames, height, width, 16))
  text = rng.normal(size=(batch, 7, 20))
  times = np.array([999, 37, 0, 500])[:batch]
  return latents.astype(np.float32), text.astype(np.float32), times


def run_reference(module, latents, text, times):
  frames, height, width = latents.shape[1:4]
  return module(
    torch.tensor(latents).permute(0, 1, 4, 2, 3),
    torch.tensor(text),
    torch.tensor(times),
    image_rotary_emb=rotation_of(module, frames, height, width),
    return_dict=False,
  )[0].permute(0, 1, 3, 4, 2)
