"""Norms subtract the mean before they square: exact far from zero too."""

from flax import nnx
import numpy as np
import pytest

from lift_jax.config_lib import resolve
from lift_jax.models import encoder_block, tiny
from lift_jax.models.clip.model import Clip
from lift_jax.models.dino.tower import Tower as Dino
from lift_jax.models.functional import functional
from lift_jax.models.generators import NETWORKS, RandomModelConfig, from_sizes
from lift_jax.models.internvit import tower as internvit
from lift_jax.models.internvit.config import InternViTConfig
from lift_jax.models.siglip import tower as siglip
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.models.vila import projector
from tests.models.clip import tiny_clip
from tests.models.dino import tiny_dino

TOWER = {
  'image_size': 14, 'patch_size': 7, 'width': 48, 'num_layers': 2,
  'num_heads': 2, 'mlp_width': 8,
}  # fmt: skip


def projector_norm(rngs):
  config = projector.ProjectorConfig(vision_width=12, width=8)
  return projector.Projector(config, rngs=rngs).norm


def encoder_norm(rngs):
  """Of SigLIP, CLIP and DINO."""
  block = encoder_block.Block(
    SiglipConfig(**TOWER), nnx.relu, 'auto', np.float32, np.float32, rngs
  )
  return block.mlp_norm


def internvit_norm(rngs):
  config = InternViTConfig(**TOWER, norm_type='layer_norm')
  return internvit.Block(config, 'auto', np.float32, np.float32, rngs).mlp_norm


@pytest.mark.fast
@pytest.mark.parametrize(
  'build', [projector_norm, encoder_norm, internvit_norm]
)
def test_mean_of_a_hundred_deviations(build):
  x_nc = np.random.default_rng(0).normal(100, 1, (64, 48)).astype(np.float32)
  norm = build(nnx.Rngs(0))
  exact = x_nc.astype(np.float64)
  exact -= exact.mean(axis=1, keepdims=True)
  exact /= np.sqrt(exact.var(axis=1, keepdims=True) + norm.epsilon)
  # Observed 2e-5, from the mean; with the fast variance 5e-3.
  np.testing.assert_allclose(norm(x_nc), exact, rtol=0, atol=5e-5)


def _networks():
  """Every network, by name."""
  model = from_sizes(
    resolve(tiny.video_model(), RandomModelConfig, 'model.random')
  )
  for name in NETWORKS:
    yield name, model.declare(name)
  for name, build in (
    ('siglip', lambda rngs: siglip.Tower(SiglipConfig(**TOWER), rngs=rngs)),
    ('clip', lambda rngs: Clip(tiny_clip.TINY, rngs=rngs)),
    ('dino', lambda rngs: Dino(tiny_dino.TINY, rngs=rngs)),
    (
      'internvit',
      lambda rngs: internvit.Tower(
        InternViTConfig(**TOWER, norm_type='layer_norm'), rngs=rngs
      ),
    ),
    (
      'projector',
      lambda rngs: projector.Projector(
        projector.ProjectorConfig(vision_width=12, width=8), rngs=rngs
      ),
    ),
  ):
    yield name, functional(build)


def test_no_norm_has_the_fast_variance():
  seen = set()
  for name, model in _networks():
    module = nnx.merge(model.graphdef, model.abstract_params)
    for path, part in nnx.iter_graph(module):
      if isinstance(part, nnx.LayerNorm | nnx.GroupNorm):
        assert not part.use_fast_variance, (name, path)
        seen.add(name)
  # The text encoder has RMS norms, without a mean to subtract.
  assert seen == {
    'transformer', 'vae', 'siglip', 'clip', 'dino', 'internvit', 'projector',
  }  # fmt: skip
