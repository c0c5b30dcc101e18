"""The tower against transformers' ViTModel, with DINO's own interpolation."""

import functools
import tempfile

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.errors import UserError
from lift_jax.models.dino import tower
from lift_jax.models.dino.config import DinoConfig
from lift_jax.models.dino.convert import DINO_TABLE
from lift_jax.models.functional import functional
from lift_jax.weights import conversion, published_tensors, safetensors_files
from tests.models.dino.tiny_dino import TINY
from tests.optional import safetensors_torch, torch, transformers
from tests.torch_weights import scaled_error


def _model(config=TINY):
  return functional(lambda rngs: tower.Tower(config, rngs=rngs))


@functools.cache
def _reference():
  torch.manual_seed(0)
  reference = transformers.ViTModel(
    transformers.ViTConfig(**TINY.to_json(), attn_implementation='eager'),
    add_pooling_layer=False,
  ).eval()
  with torch.no_grad():
    for name, tensor in reference.named_parameters():
      # The usual initial values leave scales at one and biases at zero.
      if 'norm' in name and name.endswith('weight'):
        tensor.uniform_(0.5, 1.5)
      elif tensor.ndim == 1:
        tensor.normal_(0, 0.5)
      elif tensor.ndim == 3:
        tensor.normal_()
      else:
        tensor.normal_(0, 1.5 * tensor[0].numel() ** -0.5)
  return reference


@functools.cache
def _published():
  """Tensors as in published files, whatever transformers calls them inside."""
  with tempfile.TemporaryDirectory() as folder:
    _reference().save_pretrained(folder)
    return safetensors_torch.load_file(f'{folder}/model.safetensors')


def _load(tensors):
  """Parameters through a file and the shipped table."""
  with tempfile.TemporaryDirectory() as folder:
    safetensors_torch.save_file(tensors, f'{folder}/model.safetensors')
    return published_tensors.load(
      DINO_TABLE,
      _model().abstract_params,
      safetensors_files.open_tensors(folder, 'model'),
    )


def _dino_positions(self, embeddings, height, width):
  """The rule of facebookresearch/dino, in place of that of transformers."""
  del embeddings
  table = self.position_embeddings
  old = TINY.image_size // TINY.patch_size
  patches = torch.nn.functional.interpolate(
    table[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2),
    scale_factor=tuple(
      (size // TINY.patch_size + 0.1) / old for size in (height, width)
    ),
    mode='bicubic',
  )
  return torch.cat(
    [table[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1
  )


class ParityTest(parameterized.TestCase):
  @parameterized.parameters(
    ((30, 30),),
    ((30, 45),),  # as many rows of patches, which are interpolated too
    ((44, 30),),
  )
  def test_class_token(self, size):
    pixels_bhw3 = np.random.default_rng(0).normal(size=(2, *size, 3))
    pixels_bhw3 = pixels_bhw3.astype(np.float32)
    reference, is_square = _reference(), size == (30, 30)
    embeddings = type(reference.embeddings)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
      patch.setattr(embeddings, 'interpolate_pos_encoding', _dino_positions)
      expected = reference(
        torch.tensor(pixels_bhw3.transpose(0, 3, 1, 2)),
        interpolate_pos_encoding=not is_square,
      ).last_hidden_state[:, 0]
    actual = jax.jit(_model())(_load(_published()), pixels_bhw3)
    self.assertEqual(actual.shape, (2, TINY.width))
    # Observed 5e-7; without the 0.1 of DINO it would be 1e-2.
    self.assertLess(scaled_error(actual, expected), 5e-6)

  @pytest.mark.fast
  def test_preprocessing(self):
    """Means and standard deviations of ImageNet."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3))
    expected = (frames / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(
      tower.normalise(jnp.asarray(frames, jnp.uint8)), expected, atol=1e-5
    )


class ConvertTest(parameterized.TestCase):
  def test_another_vit(self):
    """One with a pooling layer, as those trained to classify have it."""
    with self.assertRaisesRegex(UserError, '1 unknown: pooler.dense.bias'):
      _load(_published() | {'pooler.dense.bias': torch.ones(24)})

  def test_missing(self):
    tensors = dict(_published())
    del tensors['layernorm.bias']
    with self.assertRaisesRegex(UserError, '1 missing: layernorm.bias'):
      _load(tensors)


@pytest.mark.fast
class FullSizeTest(parameterized.TestCase):
  def test_published_numbers(self):
    config = DinoConfig()
    model = _model(config)
    leaves = jax.tree.leaves(model.abstract_params)
    self.assertEqual(sum(leaf.size for leaf in leaves), 85_798_656)
    sources = conversion.resolve(DINO_TABLE, model.abstract_params)
    self.assertEqual(sum(len(source.names) for source in sources.values()), 198)
    output = jax.eval_shape(
      model,
      model.abstract_params,
      jax.ShapeDtypeStruct((3, 224, 336, 3), jnp.float32),
    )
    self.assertEqual(output.shape, (3, 768))
