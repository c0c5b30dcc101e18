"""Conversion table of CogVideoX transformer weights (diffusers layout)."""

from lift_jax.weights.conversion import CONV2D, Table, conv, linear, norm

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
