"""A tiny CogVideoX pipeline, as diffusers makes and saves it."""

import diffusers
import torch
import transformers

from tests.models.cogvideox import transformer_test

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
    transformer=transformer_test.reference(rotary, **TRANSFORMER),
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
