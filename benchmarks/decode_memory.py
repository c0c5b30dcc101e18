"""Peak memory of the decode of one full-size clip, compiled and not run.

  python benchmarks/decode_memory.py [--tiling] [--dtype=bfloat16]

Prints what XLA's memory analysis says of the program that `lift sample` decodes
with, for the published autoencoder and 49 x 480 x 720 pixels, on the platform
that JAX runs on. On a CPU it says how much the tiles save; an accelerator lays
convolutions out in its own way, so its figures differ.
"""

import argparse
import time

import jax
import jax.numpy as jnp

from lift_jax.models.cogvideox.vae import VAE
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.functional import functional
from lift_jax.models.latents import LatentScale
from lift_jax.sampling.programs import decode_latents

LATENTS = (1, 13, 60, 90, 16)
GIB = 2.0**30


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--tiling', action='store_true')
  parser.add_argument('--dtype', default='bfloat16')
  flags = parser.parse_args()
  config = VAEConfig()
  dtype = jnp.dtype(flags.dtype)
  vae = functional(lambda rngs: VAE(config, dtype=dtype, rngs=rngs))
  params = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), vae.abstract_params
  )
  latents = jax.ShapeDtypeStruct(LATENTS, jnp.float32)
  start = time.monotonic()
  program = decode_latents.lower(
    vae, params, latents, LatentScale(config.scaling_factor), flags.tiling
  ).compile()
  memory = program.memory_analysis()
  print(
    f'{jax.devices()[0].device_kind}, jax {jax.__version__}, {flags.dtype}, '
    f'{"tiles" if flags.tiling else "whole frames"}: '
    f'temporary {memory.temp_size_in_bytes / GIB:.2f} GiB, '
    f'parameters and latents {memory.argument_size_in_bytes / GIB:.2f} GiB, '
    f'video {memory.output_size_in_bytes / GIB:.2f} GiB, '
    f'compiled in {time.monotonic() - start:.0f} s'
  )


if __name__ == '__main__':
  main()
