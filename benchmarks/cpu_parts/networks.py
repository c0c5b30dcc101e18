"""A random CogVideoX of middle or tiny size, in the published format."""

import pathlib

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.models import generator_folder, tiny
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.model import CogVideoXSizes
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.t5.config import T5Config

# The autoencoder has a quarter of the published widths. Nothing is embedded.
_MIDDLE = CogVideoXSizes(
  family='cogvideox',
  seed=0,
  transformer=TransformerConfig(
    num_layers=6,
    num_heads=8,
    sample_height=16,
    sample_width=24,
    sample_frames=17,
  ),
  vae=VAEConfig(block_out_channels=(32, 64, 64, 128)),
  text_encoder=T5Config(
    vocab_size=384, d_model=4096, d_kv=64, d_ff=64, num_layers=1, num_heads=1
  ),
  schedule=ScheduleConfig(),
)


def write(folder: pathlib.Path, is_tiny: bool) -> CogVideoXSizes:
  """Writes the model; returns its sizes."""
  sizes = _MIDDLE
  if is_tiny:
    sizes = config_lib.resolve(
      config_dict.ConfigDict(tiny.video_model()), CogVideoXSizes
    )
  generator_folder.make_random_model(folder, sizes)
  return sizes
