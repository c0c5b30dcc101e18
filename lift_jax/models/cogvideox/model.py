"""The CogVideoX 1.0 family (arXiv 2408.06072), in diffusers' format."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib

import numpy as np

from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.models import generators
from lift_jax.models.cogvideox.config import COGVIDEOX_5B, TransformerConfig
from lift_jax.models.cogvideox.convert import (
  TRANSFORMER_ADAPTER_ALIASES,
  TRANSFORMER_TABLE,
  computed_tensors,
)
from lift_jax.models.cogvideox.flops import forward_flops
from lift_jax.models.cogvideox.sharding import TRANSFORMER_RULES, VAE_RULES
from lift_jax.models.cogvideox.transformer import Transformer
from lift_jax.models.cogvideox.vae import VAE
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.cogvideox.vae_convert import VAE_TABLE
from lift_jax.models.generators import (
  Flops,
  NetworkSpec,
  RandomModelConfig,
  VideoModel,
)
from lift_jax.models.latents import LatentGrid, LatentScale
from lift_jax.models.t5 import flops as t5_flops
from lift_jax.models.t5.config import T5Config
from lift_jax.models.t5.convert import T5_ALIASES, T5_IGNORED, T5_TABLE
from lift_jax.models.t5.encoder import Encoder
from lift_jax.models.t5.sharding import RULES as T5_RULES
from lift_jax.models.t5.tokenizer import load_tokenizer, tokenize


@dataclasses.dataclass(frozen=True)
class CogVideoXSizes(RandomModelConfig):
  """Sizes of a CogVideoX."""

  transformer: TransformerConfig
  vae: VAEConfig
  text_encoder: T5Config
  schedule: ScheduleConfig


@generators.register
class CogVideoX(VideoModel):
  """CogVideoX: one full attention over text and video, v-prediction, T5."""

  family = 'cogvideox'
  pipeline = 'CogVideoXPipeline'
  random_config = CogVideoXSizes
  can_cache = True
  # As in the config files of THUDM/CogVideoX-2b and -5b.
  published = {
    'CogVideoX-2b': CogVideoXSizes(
      family='cogvideox',
      seed=0,
      transformer=TransformerConfig(),
      vae=VAEConfig(),
      text_encoder=T5Config(),
      schedule=ScheduleConfig(),
    ),
    'CogVideoX-5b': CogVideoXSizes(
      family='cogvideox',
      seed=0,
      transformer=COGVIDEOX_5B,
      vae=VAEConfig(scaling_factor=0.7, invert_scale_latents=True),
      text_encoder=T5Config(),
      schedule=ScheduleConfig(snr_shift_scale=1.0),
    ),
  }
  random_index = {
    '_class_name': 'CogVideoXPipeline',
    '_diffusers_version': '0.30.0',
    'scheduler': ['diffusers', 'CogVideoXDDIMScheduler'],
    'text_encoder': ['transformers', 'T5EncoderModel'],
    'tokenizer': ['transformers', 'ByT5Tokenizer'],
    'transformer': ['diffusers', 'CogVideoXTransformer3DModel'],
    'vae': ['diffusers', 'AutoencoderKLCogVideoX'],
  }

  @property
  def networks(self) -> Mapping[str, NetworkSpec]:
    return {
      'transformer': NetworkSpec(
        functools.partial(Transformer, self.transformer),
        'diffusion_pytorch_model',
        TRANSFORMER_TABLE,
        TRANSFORMER_RULES,
        computed=computed_tensors(self.transformer),
        adapter_aliases=TRANSFORMER_ADAPTER_ALIASES,
      ),
      'vae': NetworkSpec(
        functools.partial(VAE, self.vae),
        'diffusion_pytorch_model',
        VAE_TABLE,
        VAE_RULES,
      ),
      'text_encoder': NetworkSpec(
        functools.partial(Encoder, self.text_encoder),
        'model',
        T5_TABLE,
        T5_RULES,
        T5_ALIASES,
        T5_IGNORED,
      ),
    }

  @property
  def latent_grid(self) -> LatentGrid:
    return LatentGrid(
      frames=self.vae.temporal_compression_ratio,
      pixels=self.vae.spatial_ratio,
      multiple=self.vae.spatial_ratio * self.transformer.patch_size,
      channels=self.vae.latent_channels,
    )

  @property
  def latent_scale(self) -> LatentScale:
    return LatentScale(self.vae.scaling_factor)

  @property
  def text_shape(self) -> tuple[int, int]:
    return self.transformer.max_text_length, self.transformer.text_embed_dim

  def load_tokenizer(
    self,
  ) -> Callable[[Sequence[str]], tuple[np.ndarray, list[bool]]]:
    tokenizer = load_tokenizer(self.path / generators.TOKENIZER)
    return functools.partial(
      tokenize,
      tokenizer,
      max_length=self.transformer.max_text_length,
      vocab_size=self.text_encoder.vocab_size,
    )

  @staticmethod
  def write_random_tokenizer(folder: pathlib.Path) -> None:
    """Writes ByT5's tokenizer, whose tokens are bytes: it has no vocabulary."""
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(folder)

  def num_tokens(self, frames: int, height: int, width: int) -> int:
    return self.transformer.num_tokens(frames, height, width)

  def flops(self, num_tokens: int) -> Flops:
    return forward_flops(self.transformer, num_tokens)

  def text_flops(self) -> float:
    num_tokens, _ = self.text_shape
    return t5_flops.forward_flops(self.text_encoder, num_tokens)
