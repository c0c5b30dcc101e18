"""A network and a batch that compile at once."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from lift_jax.models.latents import LatentScale
from lift_jax.training.step import StepConfig

CONFIG = StepConfig(
  latent_scale=LatentScale(1.0),
  caption_dropout=0.0,
  grad_accum=1,
  ema_decay=0.0,
)
NULL_TEXT = np.zeros((3, 4), np.float32)
_LATENTS = (2, 4, 4, 5)


def model(params, noisy, text, timesteps):
  """Stands for a `FunctionalModel`: a matrix over channels, and the caption."""
  about = jnp.mean(text, axis=(1, 2)) + timesteps / 1000
  return noisy @ params['w'] + about[:, None, None, None, None]


def params(seed: int = 0) -> dict[str, Any]:
  rng = np.random.default_rng(seed)
  return {'w': jnp.asarray(rng.normal(size=(5, 5)), jnp.float32)}


def arrays(size: int = 8) -> dict[str, np.ndarray]:
  """As `data.pipeline` gives them."""
  rng = np.random.default_rng(1)
  return {
    'mean': rng.normal(size=(size, *_LATENTS)).astype(np.float32),
    'logvar': rng.normal(-2, 1, size=(size, *_LATENTS)).astype(np.float32),
    'text': rng.normal(size=(size, 3, 4)).astype(np.float32),
    'reward': rng.uniform(size=size).astype(np.float32),
    'is_real': np.zeros(size, bool),
  }
