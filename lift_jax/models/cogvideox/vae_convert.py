"""Conversion table of the CogVideoX video autoencoder (diffusers layout).

The decoder's norms have GroupNorm under `norm_layer` and the two modulations
under `conv_y` and `conv_b`; the parameters of 3x3x3 convolutions and
modulations are one level down, in `conv`.
"""

from lift_jax.weights import conversion
from lift_jax.weights.conversion import CONV2D, CONV3D


def _causal(published: str, ours: str) -> conversion.Table:
  return conversion.conv(f'{published}.conv', ours, CONV3D)


def _norm(published: str, ours: str, is_decoder: bool) -> conversion.Table:
  if not is_decoder:
    return conversion.norm(published, f'{ours}/group_norm')
  return (
    *conversion.norm(f'{published}.norm_layer', f'{ours}/group_norm'),
    *_causal(f'{published}.conv_y', f'{ours}/gain'),
    *_causal(f'{published}.conv_b', f'{ours}/shift'),
  )


def _resnet(published: str, ours: str, is_decoder: bool) -> conversion.Table:
  return (
    *_norm(f'{published}.norm1', f'{ours}/norm1', is_decoder),
    *_causal(f'{published}.conv1', f'{ours}/conv1'),
    *_norm(f'{published}.norm2', f'{ours}/norm2', is_decoder),
    *_causal(f'{published}.conv2', f'{ours}/conv2'),
    *conversion.conv(f'{published}.conv_shortcut', f'{ours}/shortcut', CONV3D),
  )


def _half(side: str, block: str, resample: str) -> conversion.Table:
  """Rules of the encoder or of the decoder.

  Args:
    side: 'encoder' or 'decoder'.
    block: 'down' or 'up'.
    resample: our name of the block's last convolution.
  """
  is_decoder = side == 'decoder'
  blocks = f'{block}_blocks'
  return (
    *_causal(f'{side}.conv_in', f'{side}/conv_in'),
    *_resnet(
      f'{side}.{blocks}.{{i}}.resnets.{{j}}',
      f'{side}/{blocks}/{{i}}/resnets/{{j}}',
      is_decoder,
    ),
    *conversion.conv(
      f'{side}.{blocks}.{{i}}.{resample}rs.0.conv',
      f'{side}/{blocks}/{{i}}/{resample}',
      CONV2D,
    ),
    *_resnet(
      f'{side}.mid_block.resnets.{{j}}', f'{side}/mid_block/{{j}}', is_decoder
    ),
    *_norm(f'{side}.norm_out', f'{side}/norm_out', is_decoder),
    *_causal(f'{side}.conv_out', f'{side}/conv_out'),
  )


VAE_TABLE: conversion.Table = (
  *_half('encoder', 'down', 'downsample'),
  *_half('decoder', 'up', 'upsample'),
)
