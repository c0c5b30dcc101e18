"""A tiny CogVideoX pipeline, as diffusers makes and saves it."""

import numpy as np

from tests.models.cogvideox.reference import TINY, reference, run_reference
from tests.optional import diffusers, torch, transformers

TOLERANCE = 1e-4  # of the output's scale, as for the network itself
# Sizes that eight devices can share.
TRANSFORMER = {'time_embed_dim': 16, 'text_embed_dim': 32}


def make_pipeline(rotary: bool = False, **dtypes):
  """Random networks; no parameter keeps its default of one or zero.

  Args:
    rotary: positions as in 5B, in place of those of 2B.
    **dtypes: of components; float32 unless told.
  """
  torch.manual_seed(1)
  vae = diffusers.AutoencoderKLCogVideoX(
    down_block_types=('CogVideoXDownBlock3D',) * 2,
    up_block_types=('CogVideoXUpBlock3D',) * 2,
    block_out_channels=(8, 16),
    temporal_compression_ratio=2,
    layers_per_block=1,
    norm_num_groups=4,
    sample_height=64,
    sample_width=96,
  )
  text_encoder = transformers.T5EncoderModel(
    transformers.T5Config(
      vocab_size=384,
      d_model=32,
      d_kv=8,
      d_ff=16,
      num_layers=2,
      num_heads=4,
      feed_forward_proj='gated-gelu',
    )
  )
  for module in (vae, text_encoder):
    for parameter in module.parameters():
      torch.nn.init.normal_(parameter, std=0.2)
  pipeline = diffusers.CogVideoXPipeline(
    tokenizer=transformers.ByT5Tokenizer(),
    text_encoder=text_encoder,
    vae=vae,
    transformer=reference(rotary, **TRANSFORMER),
    scheduler=diffusers.CogVideoXDDIMScheduler(
      beta_start=0.00085,
      beta_end=0.012,
      beta_schedule='scaled_linear',
      prediction_type='v_prediction',
      rescale_betas_zero_snr=True,
      snr_shift_scale=3.0,
      timestep_spacing='linspace',  # not what our own configs say
    ),
  )
  for component, dtype in dtypes.items():
    getattr(pipeline, component).to(dtype)
  return pipeline


def inputs():
  rng = np.random.default_rng(1)
  latents = rng.normal(size=(2, 3, 8, 12, 16)).astype(np.float32)
  text = rng.normal(
    size=(2, TINY['max_text_seq_length'], TRANSFORMER['text_embed_dim'])
  )
  return latents, text.astype(np.float32), np.array([999, 37])


def run_torch(module):
  with torch.no_grad():
    return run_reference(module.eval(), *inputs()).numpy()
