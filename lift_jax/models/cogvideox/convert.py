"""Conversion table of CogVideoX transformer weights (diffusers layout)."""

from collections.abc import Mapping
import functools

import numpy as np

from lift_jax.models.cogvideox import positions
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.weights.conversion import (
  CONV2D,
  Computed,
  Table,
  conv,
  linear,
  norm,
)

TRANSFORMER_TABLE: Table = (
  *conv('patch_embed.proj', 'patch', CONV2D),
  *linear('patch_embed.text_proj', 'text_proj'),
  *linear('time_embedding.linear_1', 'time/linear_1'),
  *linear('time_embedding.linear_2', 'time/linear_2'),
  *linear('transformer_blocks.{i}.norm1.linear', 'blocks/norm1/linear'),
  *norm('transformer_blocks.{i}.norm1.norm', 'blocks/norm1/norm'),
  *linear('transformer_blocks.{i}.attn1.to_q', 'blocks/attn/to_q'),
  *linear('transformer_blocks.{i}.attn1.to_k', 'blocks/attn/to_k'),
  *linear('transformer_blocks.{i}.attn1.to_v', 'blocks/attn/to_v'),
  *linear('transformer_blocks.{i}.attn1.to_out.0', 'blocks/attn/to_out'),
  *norm('transformer_blocks.{i}.attn1.norm_q', 'blocks/attn/norm_q'),
  *norm('transformer_blocks.{i}.attn1.norm_k', 'blocks/attn/norm_k'),
  *linear('transformer_blocks.{i}.norm2.linear', 'blocks/norm2/linear'),
  *norm('transformer_blocks.{i}.norm2.norm', 'blocks/norm2/norm'),
  *linear('transformer_blocks.{i}.ff.net.0.proj', 'blocks/ff/up'),
  *linear('transformer_blocks.{i}.ff.net.2', 'blocks/ff/down'),
  *norm('norm_final', 'norm_final'),
  *linear('norm_out.linear', 'norm_out/linear'),
  *norm('norm_out.norm', 'norm_out/norm'),
  *linear('proj_out', 'proj_out'),
)

_BLOCK = 'transformer_blocks.{i}'
_QKV = tuple(f'{_BLOCK}.attn1.to_{name}' for name in 'qkv')

# Layers of adapters under other names: those of SAT, in which the authors of
# CogVideoX train (tools/convert_weight_sat2hf.py in
# https://github.com/zai-org/CogVideo), and of `fuse_qkv_projections` in
# diffusers. The rows of q, k and v follow each other.
TRANSFORMER_ADAPTER_ALIASES: Mapping[str, tuple[str, ...]] = {
  'layers.{i}.attention.query_key_value': _QKV,
  'layers.{i}.attention.dense': (f'{_BLOCK}.attn1.to_out.0',),
  'layers.{i}.mlp.dense_h_to_4h': (f'{_BLOCK}.ff.net.0.proj',),
  'layers.{i}.mlp.dense_4h_to_h': (f'{_BLOCK}.ff.net.2',),
  f'{_BLOCK}.attn1.to_qkv': _QKV,
}


def computed_tensors(config: TransformerConfig) -> Computed:
  """The position table, as for `published_tensors.load`; some files have it."""
  if config.use_rotary:
    return {}
  table = functools.partial(_position_table, config)
  return {'patch_embed.pos_embedding': table}


def _position_table(config: TransformerConfig) -> np.ndarray:
  """Of videos of the training size: [1, text and video tokens, width].

  That of the text is zero.
  """
  video_nd = positions.sincos_table(
    (config.sample_frames - 1) // config.temporal_compression + 1,
    config.sample_height // config.patch_size,
    config.sample_width // config.patch_size,
    config.width,
    config.spatial_scale,
    config.temporal_scale,
  )
  return np.pad(video_nd, ((config.max_text_length, 0), (0, 0)))[None]
