"""CogVideoX transformer compared with diffusers, and its sizes."""

import math

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.errors import UserError
from lift_jax.models.cogvideox.config import (
  COGVIDEOX_2B,
  COGVIDEOX_5B,
  TransformerConfig,
)
from lift_jax.models.cogvideox.convert import TRANSFORMER_TABLE
from lift_jax.models.cogvideox.transformer import Block, Layers, Transformer
from lift_jax.models.functional import functional
from lift_jax.weights import conversion, param_paths
from tests.models.cogvideox.reference import (
  TINY,
  inputs,
  reference,
  run_reference,
)
from tests.optional import Package, diffusers, torch
from tests.torch_weights import (
  params_from_torch,
  scaled_error,
  to_torch_names,
)

cogvideox_transformer_3d = Package(
  'diffusers.models.transformers.cogvideox_transformer_3d'
)


def declare(config, **options):
  return functional(lambda rngs: Transformer(config, rngs=rngs, **options))


def assert_gradients_agree(ours, theirs, tolerance):
  """Each tensor within `tolerance` of its own scale.

  Without rotations a shift of all keys changes no softmax, so the gradient of
  norm_k.bias is rounding noise about zero: it is held to the noise floor.
  """
  floor = 1e-6 * max(float(np.abs(grad).max()) for grad in theirs.values())
  for name, expected in theirs.items():
    scale = float(np.abs(expected).max())
    error = float(np.abs(np.asarray(ours[name]) - expected).max())
    assert error <= max(tolerance * scale, floor), (name, error, scale)


class ParityTest(parameterized.TestCase):
  @parameterized.product(
    rotary=(False, True),
    # The size of training, fewer and more frames, another aspect.
    size=((3, 8, 12), (5, 6, 10), (1, 12, 8)),
  )
  @pytest.mark.fast
  def test_forward(self, rotary, size):
    module = reference(rotary)
    config = TransformerConfig.from_json(module.config)
    model = declare(config)
    params = params_from_torch(TRANSFORMER_TABLE, model.abstract_params, module)
    batch = inputs(*size)
    with torch.no_grad():
      theirs = run_reference(module, *batch)
    ours = jax.jit(model)(params, *batch)
    self.assertLess(scaled_error(ours, theirs), 1e-4)

  @parameterized.parameters(False, True)
  def test_gradients(self, rotary):
    module = reference(rotary)
    config = TransformerConfig.from_json(module.config)
    model = declare(config, remat='full')
    params = params_from_torch(TRANSFORMER_TABLE, model.abstract_params, module)
    latents, text, times = inputs()
    target = np.random.default_rng(2).normal(size=latents.shape)
    target = target.astype(np.float32)

    def loss_fn(params):
      return jnp.mean(jnp.square(model(params, latents, text, times) - target))

    grads = to_torch_names(
      TRANSFORMER_TABLE, jax.jit(jax.grad(loss_fn))(params)
    )
    loss = run_reference(module, latents, text, times) - torch.tensor(target)
    loss.square().mean().backward()
    theirs = {name: p.grad.numpy() for name, p in module.named_parameters()}
    self.assertEqual(grads.keys(), theirs.keys())
    assert_gradients_agree(grads, theirs, 1e-3)

  def test_block_at_the_width_of_2b(self):
    torch.manual_seed(0)
    module = cogvideox_transformer_3d.CogVideoXBlock(
      1920, 30, 64, 512, attention_bias=True
    ).eval()
    config = COGVIDEOX_2B
    model = functional(
      lambda rngs: Block(config, Layers(jnp.float32, jnp.float32, rngs), 'auto')
    )
    table = tuple(
      conversion.TensorRule(
        row.published.removeprefix('transformer_blocks.{i}.'),
        row.ours.removeprefix('blocks/'),
        row.transform,
      )
      for row in TRANSFORMER_TABLE
      if row.ours.startswith('blocks/')
    )
    params = params_from_torch(table, model.abstract_params, module)
    rng = np.random.default_rng(0)
    text, video, time = (
      rng.normal(size=shape).astype(np.float32)
      for shape in ((1, 26, 1920), (1, 60, 1920), (1, 512))
    )
    with torch.no_grad():
      theirs = module(*map(torch.tensor, (video, text, time)))
    ours = jax.jit(model)(
      params,
      np.concatenate([text, video], axis=1),
      time,
      np.arange(86) < 26,
      None,
    )
    self.assertLess(scaled_error(ours[:, 26:], theirs[0]), 1e-4)
    self.assertLess(scaled_error(ours[:, :26], theirs[1]), 1e-4)


class FullSizeTest(parameterized.TestCase):
  @parameterized.parameters(
    (COGVIDEOX_2B, 1_693_783_872, 56_081_536, 736),
    (COGVIDEOX_5B, 5_570_283_072, 132_197_632, 1024),
  )
  def test_parameter_counts(self, config, total, per_block, num_tensors):
    params = declare(config).abstract_params
    sizes = {
      name: math.prod(leaf.shape)
      for name, leaf in param_paths.flatten(params).items()
    }
    self.assertEqual(sum(sizes.values()), total)
    blocks = sum(s for name, s in sizes.items() if name.startswith('blocks/'))
    self.assertEqual(blocks, per_block * config.num_layers)
    sources = conversion.resolve(TRANSFORMER_TABLE, params)
    names = [name for source in sources.values() for name in source.names]
    self.assertLen(names, num_tensors)
    self.assertLen(set(names), num_tensors)

  def test_tokens_and_output_of_2b(self):
    self.assertEqual(COGVIDEOX_2B.num_tokens(13, 60, 90), 17_776)
    model = declare(COGVIDEOX_2B, dtype=jnp.bfloat16)
    shaped = jax.ShapeDtypeStruct
    out = jax.eval_shape(
      model,
      model.abstract_params,
      shaped((2, 13, 60, 90, 16), jnp.bfloat16),
      shaped((2, 226, 4096), jnp.bfloat16),
      shaped((2,), jnp.int32),
    )
    self.assertEqual(out.shape, (2, 13, 60, 90, 16))
    self.assertEqual(out.dtype, jnp.bfloat16)


class BehaviourTest(parameterized.TestCase):
  @parameterized.parameters('full', 'save_attention', 'offload')
  def test_remat_changes_no_gradient(self, remat):
    config = TransformerConfig.from_json(TINY)
    plain, remade = declare(config), declare(config, remat=remat)
    params = jax.jit(plain.init)(jax.random.key(0))
    batch = inputs()

    def grad_of(model):
      loss_fn = lambda params: jnp.sum(jnp.square(model(params, *batch)))  # noqa: E731
      return jax.jit(jax.grad(loss_fn))(params)

    assert_gradients_agree(
      param_paths.flatten(grad_of(remade)),
      param_paths.flatten(grad_of(plain)),
      1e-5,
    )

  def test_bf16_error(self):
    """2B was published in fp16, which TPUs lack."""
    module = reference(rotary=False)
    config = TransformerConfig.from_json(module.config)
    exact, half = declare(config), declare(config, dtype=jnp.bfloat16)
    params = params_from_torch(TRANSFORMER_TABLE, exact.abstract_params, module)
    batch = inputs()
    ours = jax.jit(half)(params, *batch).astype(jnp.float32)
    theirs = jax.jit(exact)(params, *batch)
    self.assertTrue(np.isfinite(ours).all())
    drift = np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(theirs**2))
    self.assertLess(drift, 0.03)

  def test_wrong_text_length(self):
    model = declare(TransformerConfig.from_json(TINY))
    latents, text, times = inputs()
    with pytest.raises(ValueError, match='expected 7 text tokens, got 6'):
      jax.eval_shape(model, model.abstract_params, latents, text[:, :6], times)

  @parameterized.parameters(
    ({'patch_size_t': 2}, r'patch_size_t=2 \(only None\)'),
    ({'num_layer': 3}, r'num_layer \(unknown\)'),
    ({'ofs_embed_dim': 512}, 'ofs_embed_dim'),
    ({'patch_size': 0}, 'patch_size=0'),
    ({'num_layer': 3, 'dropout': 0.1}, r'dropout=.*, num_layer \(unknown'),
    (
      {'use_rotary_positional_embeddings': 1},
      r'embeddings=1 \(give true or false\)',
    ),
    ({'activation_fn': 'geglu'}, 'geglu'),
    ({'num_layers': '2'}, r"num_layers='2' \(give a positive integer\)"),
    ({'norm_eps': None}, r'norm_eps=None \(give a positive number\)'),
  )
  def test_config_of_another_model(self, change, message):
    with pytest.raises(UserError, match=message):
      TransformerConfig.from_json({**TINY, **change})

  def test_config_round_trip(self):
    config = TransformerConfig.from_json(TINY)
    self.assertEqual(TransformerConfig.from_json(config.to_json()), config)
    module = diffusers.CogVideoXTransformer3DModel.from_config(config.to_json())
    self.assertEqual(TransformerConfig.from_json(module.config), config)
