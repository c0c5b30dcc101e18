"""The encoder against transformers' T5EncoderModel, and its full size."""

import json
import tempfile

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.models import functional
from lift_jax.models.t5 import config as config_lib
from lift_jax.models.t5 import convert, encoder
from lift_jax.weights import (
  conversion,
  param_paths,
  published_tensors,
  safetensors_files,
)
from tests.optional import Package, safetensors_torch, torch, transformers

modeling_t5 = Package('transformers.models.t5.modeling_t5')

# Heads times head width differs from the model width, as T5 allows.
TINY = config_lib.T5Config(
  vocab_size=97,
  d_model=32,
  d_kv=6,
  d_ff=56,
  num_layers=3,
  num_heads=4,
  relative_attention_num_buckets=16,
  relative_attention_max_distance=20,
  layer_norm_epsilon=1e-2,  # large, so that a wrong one shows
)


def _model(config, dtype=jnp.float32):
  return functional.functional(
    lambda rngs: encoder.Encoder(config, dtype=dtype, rngs=rngs)
  )


def _load(model, folder):
  return published_tensors.load(
    convert.T5_TABLE,
    model.abstract_params,
    safetensors_files.open_tensors(folder, 'model'),
    aliases=convert.T5_ALIASES,
  )


class EncoderTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    torch.manual_seed(0)
    reference_config = transformers.T5Config(**TINY.to_json())
    cls.reference = transformers.T5EncoderModel(reference_config).eval()
    with torch.no_grad():
      for name, tensor in cls.reference.named_parameters():
        # The usual initial values leave scales at one and biases near zero.
        if 'layer_norm' in name:
          tensor.uniform_(0.5, 1.5)
        elif 'relative_attention_bias' in name:
          tensor.normal_(0, 2)
    cls.model = _model(TINY)
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.reference.save_pretrained(folder)
    cls.params = _load(cls.model, folder)

  # Up to twice the largest relative distance of the table.
  @parameterized.parameters((3, 1), (2, 2), (2, 17), (1, 45))
  def test_parity(self, batch, length):
    rng = np.random.default_rng(length)
    tokens_bn = rng.integers(0, TINY.vocab_size, (batch, length))
    tokens_bn[:, length // 2 + 1 :] = 0  # padding is attended to
    with torch.no_grad():
      expected = self.reference(torch.tensor(tokens_bn)).last_hidden_state
    expected = expected.numpy()
    actual = jax.jit(self.model)(self.params, jnp.asarray(tokens_bn, jnp.int32))
    # Observed 8e-7; the exact form of GELU would be 2e-4.
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    self.assertLess(error, 5e-6)

  def test_bfloat16(self):
    tokens_bn = jnp.arange(12, dtype=jnp.int32).reshape(2, 6)
    expected = self.model(self.params, tokens_bn)
    actual = _model(TINY, jnp.bfloat16)(self.params, tokens_bn)
    self.assertEqual(actual.dtype, jnp.bfloat16)
    difference = actual.astype(jnp.float32) - expected
    # Eight bits of mantissa through three layers; observed 9e-3.
    self.assertLess(
      float(jnp.linalg.norm(difference) / jnp.linalg.norm(expected)), 3e-2
    )

  @parameterized.parameters(
    (['shared.weight', 'encoder.embed_tokens.weight'],),
    (['shared.weight'],),
    (['encoder.embed_tokens.weight'],),
  )
  def test_names_of_the_embedding(self, names):
    state = self.reference.state_dict()
    unwanted = {'shared.weight', 'encoder.embed_tokens.weight'} - set(names)
    folder = self.enterContext(tempfile.TemporaryDirectory())
    # Clones: safetensors refuses tensors that share memory.
    safetensors_torch.save_file(
      {name: state[name].clone() for name in state.keys() - unwanted},
      f'{folder}/model.safetensors',
    )
    jax.tree.map(
      np.testing.assert_array_equal, _load(self.model, folder), self.params
    )

  def test_reference_reads_what_we_write(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    published_tensors.save(convert.T5_TABLE, self.params, folder, 'model')
    with open(f'{folder}/config.json', 'w') as file:
      json.dump(TINY.to_json(), file)
    loaded, report = transformers.T5EncoderModel.from_pretrained(
      folder, output_loading_info=True
    )
    self.assertEmpty(report['missing_keys'])
    self.assertEmpty(report['unexpected_keys'])
    for name, tensor in self.reference.state_dict().items():
      self.assertTrue(torch.equal(loaded.state_dict()[name], tensor), name)

  def test_reads_config_of_reference(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.reference.config.save_pretrained(folder)
    with open(f'{folder}/config.json') as file:
      values = json.load(file)
    self.assertEqual(config_lib.T5Config.from_json(values), TINY)

  def test_initial_scales(self):
    config = config_lib.T5Config(
      vocab_size=512,
      d_model=64,
      d_kv=16,
      d_ff=128,
      num_layers=2,
      num_heads=8,
    )
    ours = param_paths.flatten(_model(config).init(jax.random.key(0)))
    torch.manual_seed(0)
    reference = transformers.T5EncoderModel(
      transformers.T5Config(**config.to_json())
    ).state_dict()
    sources = conversion.resolve(
      convert.T5_TABLE, _model(config).abstract_params
    )
    for name, source in sources.items():
      expected = torch.stack([reference[name] for name in source.names])
      with self.subTest(name):
        np.testing.assert_allclose(
          np.std(ours[name]), expected.std(correction=0), rtol=0.12
        )
        np.testing.assert_allclose(
          np.mean(ours[name]), expected.mean(), atol=0.05
        )

  def test_layers_differ_at_start(self):
    kernels = self.model.init(jax.random.key(0))['blocks']['mlp']['up']
    self.assertFalse(np.allclose(kernels['kernel'][0], kernels['kernel'][1]))

  def test_full_size(self):
    model = _model(config_lib.T5Config())
    leaves = jax.tree.leaves(model.abstract_params)
    self.assertEqual(sum(leaf.size for leaf in leaves), 4_762_310_656)
    self.assertEqual({leaf.dtype for leaf in leaves}, {np.dtype('float32')})
    sources = conversion.resolve(convert.T5_TABLE, model.abstract_params)
    names = [name for source in sources.values() for name in source.names]
    self.assertLen(names, 219)
    self.assertLen(set(names), 219)
    output = jax.eval_shape(
      model,
      model.abstract_params,
      jax.ShapeDtypeStruct((2, 226), jnp.int32),
    )
    self.assertEqual(output.shape, (2, 226, 4096))


class PositionBucketsTest(parameterized.TestCase):
  def test_formula(self):
    """16 per sign; exact below 8; then floor(ln(r/8)/ln(16)*8), 15 at most."""
    buckets_nm = encoder.position_buckets(300, 32, 128)
    self.assertEqual(buckets_nm.dtype, np.int32)
    self.assertEqual(buckets_nm[0, :9].tolist(), [0, *range(17, 25)])
    self.assertEqual(buckets_nm[:9, 0].tolist(), list(range(9)))
    for distance in range(8, 300):
      # The small term keeps exact powers on their side of the edge.
      grown = 8 + int(np.log(distance / 8) / np.log(16) * 8 + 1e-9)
      self.assertEqual(buckets_nm[distance, 0], min(grown, 15))
      self.assertEqual(buckets_nm[0, distance], 16 + min(grown, 15))

  @parameterized.parameters((32, 128), (16, 20), (8, 64), (32, 9), (4, 2))
  def test_reference(self, num_buckets, max_distance):
    positions = torch.arange(300)
    expected = modeling_t5.T5Attention._relative_position_bucket(
      positions[None, :] - positions[:, None],
      num_buckets=num_buckets,
      max_distance=max_distance,
    )
    np.testing.assert_array_equal(
      encoder.position_buckets(300, num_buckets, max_distance),
      expected.numpy(),
    )


class BlockTest(absltest.TestCase):
  def test_position_bias_reaches_every_layer(self):
    """Without positions, equal tokens get equal embeddings at any depth."""
    model = _model(TINY)
    params = model.init(jax.random.key(1))
    tokens_bn = jnp.array([[5, 7, 5, 7, 9]])
    without = params | {
      'relative_bias': jax.tree.map(jnp.zeros_like, params['relative_bias'])
    }
    plain = model(without, tokens_bn)
    np.testing.assert_allclose(plain[0, 0], plain[0, 2], rtol=1e-5, atol=1e-6)
    strong = params | {
      'relative_bias': jax.tree.map(lambda x: 50 * x, params['relative_bias'])
    }
    self.assertGreater(
      float(jnp.abs(model(strong, tokens_bn)[0, 0] - plain[0, 0]).max()), 0.1
    )
