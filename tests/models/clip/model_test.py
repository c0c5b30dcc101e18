"""CLIP against transformers' CLIPModel."""

import functools
import tempfile

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.errors import UserError
from lift_jax.models.clip import model as clip
from lift_jax.models.clip.config import L14, ClipConfig
from lift_jax.models.clip.convert import CLIP_IGNORED, CLIP_TABLE
from lift_jax.models.functional import functional
from lift_jax.weights import conversion, published_tensors, safetensors_files
from tests.models.clip.tiny_clip import TINY
from tests.optional import safetensors_torch, torch, transformers
from tests.torch_weights import scaled_error


def _model(config=TINY, **options):
  return functional(lambda rngs: clip.Clip(config, rngs=rngs, **options))


@functools.cache
def _reference():
  torch.manual_seed(0)
  reference = transformers.CLIPModel(
    transformers.CLIPConfig(**TINY.to_json(), attn_implementation='eager')
  ).eval()
  with torch.no_grad():
    for name, tensor in reference.named_parameters():
      # The usual initial values leave scales at one and biases at zero.
      if 'norm' in name and name.endswith('weight'):
        tensor.uniform_(0.5, 1.5)
      elif tensor.ndim == 1:
        tensor.normal_(0, 0.5)
      elif tensor.ndim:
        tensor.normal_(0, 1.5 * tensor[0].numel() ** -0.5)
  return reference


def _published():
  """Tensors as in published files, which have numbers of positions too."""
  tensors = dict(_reference().state_dict())
  for part, size in (('text', 12), ('vision', 17)):
    name = f'{part}_model.embeddings.position_ids'
    tensors[name] = torch.arange(size)[None]
  return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _load(tensors, ignored=CLIP_IGNORED):
  """Parameters through a file and the shipped table."""
  with tempfile.TemporaryDirectory() as folder:
    safetensors_torch.save_file(tensors, f'{folder}/model.safetensors')
    return published_tensors.load(
      CLIP_TABLE,
      _model().abstract_params,
      safetensors_files.open_tensors(folder, 'model'),
      ignored=ignored,
    )


@functools.cache
def _params():
  return _load(_published())


def _features(output):
  """The projected features, in any version of transformers."""
  return getattr(output, 'pooler_output', output)


class ParityTest(parameterized.TestCase):
  def test_images(self):
    pixels_bhw3 = np.random.default_rng(0).normal(size=(2, 30, 30, 3))
    pixels_bhw3 = pixels_bhw3.astype(np.float32)
    with torch.no_grad():
      expected = _features(
        _reference().get_image_features(
          torch.tensor(pixels_bhw3.transpose(0, 3, 1, 2))
        )
      )
    actual = jax.jit(functools.partial(_model(), method='images'))(
      _params(), pixels_bhw3
    )
    self.assertEqual(actual.shape, (2, TINY.projection_dim))
    # Observed 4e-7; the exact form of GELU would be 5e-3.
    self.assertLess(scaled_error(actual, expected), 5e-6)

  def test_texts(self):
    """Padding has no effect, though other texts of the batch are longer."""
    end = TINY.text.vocab_size - 1
    texts = [[512, 5, 9, end], [512, 7, 300, 8, 44, 2, end]]
    ids_bn = np.zeros((2, TINY.text.max_length), np.int32)
    for row, ids in enumerate(texts):
      ids_bn[row, : len(ids)] = ids
    lengths_b = np.array([len(ids) for ids in texts], np.int32)
    with torch.no_grad():
      expected = _features(_reference().get_text_features(torch.tensor(ids_bn)))
      with_padding = np.where(ids_bn == 0, end - 1, ids_bn)
    run = jax.jit(functools.partial(_model(), method='texts'))
    actual = run(_params(), ids_bn, lengths_b)
    self.assertLess(scaled_error(actual, expected), 5e-6)
    np.testing.assert_array_equal(
      actual, run(_params(), with_padding.astype(np.int32), lengths_b)
    )

  @pytest.mark.fast
  def test_preprocessing(self):
    """Means and standard deviations of the processor."""
    processor = transformers.CLIPImageProcessorPil()
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3))
    expected = (frames / 255 - processor.image_mean) / processor.image_std
    np.testing.assert_allclose(
      clip.normalise(jnp.asarray(frames, jnp.uint8)), expected, atol=1e-5
    )


class ConvertTest(parameterized.TestCase):
  def test_logit_scale(self):
    self.assertAlmostEqual(float(_params()['logit_scale']), 2.6592, places=4)

  def test_position_numbers_are_ignored_by_name(self):
    with self.assertRaisesRegex(UserError, '2 unknown: text_model.embeddings'):
      _load(_published(), ignored=())

  def test_missing(self):
    tensors = _published()
    del tensors['visual_projection.weight']
    with self.assertRaisesRegex(UserError, '1 missing: visual_projection'):
      _load(tensors)

  def test_another_size(self):
    tensors = _published() | {'text_projection.weight': torch.ones(20, 17)}
    with self.assertRaisesRegex(
      UserError, r'text_projection.weight \[20, 17\] instead of \[20, 16\]'
    ):
      _load(tensors)


@pytest.mark.fast
class FullSizeTest(parameterized.TestCase):
  @parameterized.parameters(
    (ClipConfig(), 151_277_313, 398), (L14, 427_616_513, 590)
  )
  def test_published_numbers(self, config, num_params, num_tensors):
    model = _model(config)
    leaves = jax.tree.leaves(model.abstract_params)
    self.assertEqual(sum(leaf.size for leaf in leaves), num_params)
    sources = conversion.resolve(CLIP_TABLE, model.abstract_params)
    self.assertEqual(
      sum(len(source.names) for source in sources.values()), num_tensors
    )
    images, texts = (
      jax.eval_shape(
        functools.partial(model, method=method), model.abstract_params, *inputs
      )
      for method, inputs in (
        ('images', [jax.ShapeDtypeStruct((3, 224, 224, 3), jnp.float32)]),
        ('texts', [
          jax.ShapeDtypeStruct((3, 77), jnp.int32),
          jax.ShapeDtypeStruct((3,), jnp.int32),
        ]),
      )
    )  # fmt: skip
    self.assertEqual(images.shape, (3, config.projection_dim))
    self.assertEqual(texts.shape, images.shape)
