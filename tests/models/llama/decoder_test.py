"""The decoder against transformers' LlamaForCausalLM, and against itself."""

import functools
import json
import tempfile
import types
import warnings

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.models import lora
from lift_jax.models.critic_tokens import last_token
from lift_jax.models.functional import functional
from lift_jax.models.llama import config as config_lib
from lift_jax.models.llama import convert
from lift_jax.models.llama.decoder import Decoder
from lift_jax.weights import (
  conversion,
  param_paths,
  published_tensors,
  safetensors_files,
)
from tests.models.llama.sizes import VILA_3B
from tests.optional import peft, safetensors_torch, torch, transformers
from tests.torch_weights import (
  params_from_torch,
  scaled_error,
  to_torch_names,
)

# Heads times head width differs from the width of a token. A small theta and a
# large epsilon, so that wrong ones show.
GROUPED = config_lib.LlamaConfig(
  vocab_size=53,
  width=24,
  num_layers=3,
  num_heads=6,
  num_kv_heads=2,
  head_dim=8,
  mlp_width=40,
  rope_theta=50.0,
  norm_eps=1e-2,
  max_length=32,
)
PLAIN = config_lib.LlamaConfig(
  vocab_size=53,
  width=24,
  num_layers=3,
  num_heads=4,
  num_kv_heads=4,
  head_dim=6,
  mlp_width=40,
  rope_theta=10_000.0,
  norm_eps=1e-5,
  max_length=32,
)
CONFIGS = {'grouped': GROUPED, 'plain': PLAIN}
EVERY_LINEAR = (r'blocks/attn/to_(q|k|v|out)', r'blocks/mlp/(gate|up|down)')


def _model(config, **options):
  return functional(lambda rngs: Decoder(config, rngs=rngs, **options))


def _reference(config):
  torch.manual_seed(0)
  reference = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(**config.to_json(), attn_implementation='eager')
  ).eval()
  with torch.no_grad():
    for name, tensor in reference.named_parameters():
      # The usual initial values leave scales at one and attention even.
      if 'norm' in name:
        tensor.uniform_(0.5, 1.5)
      else:
        tensor.normal_(0, tensor.shape[1] ** -0.5 * 1.5)
  return reference


@functools.cache
def _pair(name):
  """Our model and parameters, and the torch model that they come from."""
  reference = _reference(CONFIGS[name])
  model = _model(CONFIGS[name])
  params = params_from_torch(
    convert.LLAMA_TABLE, model.abstract_params, reference
  )
  return model, jax.tree.map(jnp.asarray, params), reference


def _tokens(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 53, shape).astype(np.int32)


def _positions(batch, tokens):
  return jnp.broadcast_to(jnp.arange(tokens)[None], (batch, tokens))


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, params, tokens_bn, positions_bn, segment_ids_bn=None):
  """Hidden states [B, N, D] and logits [B, N, V]."""
  x_bnd = model(params, tokens_bn, method='embed')
  x_bnd = model(params, x_bnd, positions_bn, segment_ids_bn)
  return x_bnd, model(params, x_bnd, method='logits')


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _prefill(model, params, tokens_bn, lengths_b, max_length, num_branches=1):
  x_bnd = model(params, tokens_bn, method='embed')
  return model(
    params, x_bnd, lengths_b, max_length=max_length, num_branches=num_branches,
    method='prefill',
  )  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def _extend(model, params, tokens_rm, lengths_r, cache):
  x_rmd = model(params, tokens_rm, method='embed')
  return model(params, x_rmd, lengths_r, cache, method='extend')


class ParityTest(parameterized.TestCase):
  # Padding on the right, on both sides and in the midst, or none.
  @parameterized.product(
    name=('grouped', 'plain'),
    mask=(
      ('11111111', '11111111'),
      ('11111000', '11111110'),
      ('00111100', '01101111'),
    ),
  )
  def test_forward(self, name, mask):
    model, params, reference = _pair(name)
    tokens_bn = _tokens(2, 8)
    mask_bn = np.array([[int(x) for x in row] for row in mask])
    positions_bn = np.maximum(np.cumsum(mask_bn, axis=1) - 1, 0)
    with torch.no_grad():
      expected = reference(
        input_ids=torch.tensor(tokens_bn),
        attention_mask=torch.tensor(mask_bn),
        position_ids=torch.tensor(positions_bn),
        output_hidden_states=True,
      )
    segment_ids_bn = None if mask_bn.all() else mask_bn
    hidden, logits = _forward(
      model, params, tokens_bn, positions_bn, segment_ids_bn
    )
    self.assertTrue(np.isfinite(logits).all())
    is_token = mask_bn == 1
    for ours, theirs in (
      (hidden, expected.hidden_states[-1]),
      (logits, expected.logits),
    ):
      self.assertLess(
        scaled_error(ours[is_token], theirs.numpy()[is_token]), 1e-5
      )

  def test_padding_on_the_right_needs_no_segments(self):
    model, params, _ = _pair('grouped')
    inputs = _tokens(1, 9), _positions(1, 9)
    mask_bn = np.array([[1] * 6 + [0] * 3])
    with_mask, _ = _forward(model, params, *inputs, mask_bn)
    without, _ = _forward(model, params, *inputs)
    np.testing.assert_allclose(
      without[:, :6], with_mask[:, :6], rtol=1e-5, atol=1e-5
    )

  @parameterized.parameters(
    ('grouped', 'none'),
    ('plain', 'none'),
    ('grouped', 'full'),
    ('grouped', 'save_attention'),
  )
  def test_gradients(self, name, remat):
    _, params, reference = _pair(name)
    model = _model(CONFIGS[name], remat=remat)
    tokens_bn = _tokens(2, 8)
    mask_bn = np.array([[1] * 8, [1] * 5 + [0] * 3])

    def loss(params):
      _, logits = _forward(model, params, tokens_bn, _positions(2, 8), mask_bn)
      log_probs = jax.nn.log_softmax(logits[:, :-1])
      taken = jnp.take_along_axis(log_probs, tokens_bn[:, 1:, None], axis=-1)
      return -jnp.sum(taken[..., 0] * mask_bn[:, 1:])

    ours, grads = jax.jit(jax.value_and_grad(loss))(params)
    reference.zero_grad()
    labels = torch.tensor(np.where(mask_bn, tokens_bn, -100)).long()
    logits = reference(
      input_ids=torch.tensor(tokens_bn), attention_mask=torch.tensor(mask_bn)
    ).logits
    theirs = torch.nn.functional.cross_entropy(
      logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction='sum'
    )
    theirs.backward()
    np.testing.assert_allclose(ours, theirs.item(), rtol=1e-5)
    grads = to_torch_names(convert.LLAMA_TABLE, grads)
    parameters = dict(reference.named_parameters())
    self.assertEqual(grads.keys(), parameters.keys())
    for published, grad in grads.items():
      self.assertLess(
        scaled_error(grad, parameters[published].grad.numpy()), 1e-4, published
      )

  def test_bf16(self):
    _, params, _ = _pair('grouped')
    inputs = _tokens(2, 8), _positions(2, 8)
    expected_hidden, expected = _forward(_model(GROUPED), params, *inputs)
    half = _model(GROUPED, dtype=jnp.bfloat16)
    hidden, logits = _forward(half, params, *inputs)
    self.assertEqual(hidden.dtype, jnp.bfloat16)
    self.assertEqual(logits.dtype, jnp.float32)
    # Not rounded to bf16: of a float32 product.
    self.assertFalse(np.array_equal(logits, logits.astype(jnp.bfloat16)))
    for ours, exact in ((hidden, expected_hidden), (logits, expected)):
      difference = jnp.linalg.norm(ours.astype(jnp.float32) - exact)
      # Eight bits of mantissa through three layers.
      self.assertLess(float(difference / jnp.linalg.norm(exact)), 3e-2)

  def test_initial_scales(self):
    config = config_lib.LlamaConfig(
      vocab_size=512, width=64, num_layers=2, num_heads=4, num_kv_heads=2,
      head_dim=16, mlp_width=128,
    )  # fmt: skip
    params = jax.jit(_model(config).init)(jax.random.key(0))
    for name, leaf in param_paths.flatten(params).items():
      if name.endswith('scale'):
        np.testing.assert_array_equal(leaf, 1.0)
        continue
      # Kernels keep the size of what they are given, whatever their width.
      is_kernel = name.endswith('kernel')
      stddev = leaf.shape[-2] ** -0.5 if is_kernel else 0.02
      np.testing.assert_allclose(np.std(leaf), stddev, rtol=0.1, err_msg=name)
    up = params['blocks']['mlp']['up']['kernel']
    self.assertFalse(np.allclose(up[0], up[1]))

  # Of facts published about Vicuna 13B and Yi-34B; the 3b from its sizes.
  @parameterized.parameters(
    (VILA_3B, 2_701_560_320, 291),
    (config_lib.VILA_13B, 13_015_864_320, 363),
    (config_lib.VILA_40B, 34_388_917_248, 543),
  )
  def test_full_size(self, config, num_params, num_tensors):
    model = _model(config, param_dtype=jnp.bfloat16)
    leaves = jax.tree.leaves(model.abstract_params)
    self.assertEqual(sum(leaf.size for leaf in leaves), num_params)
    self.assertEqual({leaf.dtype for leaf in leaves}, {jnp.dtype('bfloat16')})
    sources = conversion.resolve(convert.LLAMA_TABLE, model.abstract_params)
    names = {name for source in sources.values() for name in source.names}
    self.assertLen(names, num_tensors)
    hidden, logits = jax.eval_shape(
      functools.partial(_forward, model),
      model.abstract_params,
      jax.ShapeDtypeStruct((2, 100), jnp.int32),
      jax.ShapeDtypeStruct((2, 100), jnp.int32),
    )
    self.assertEqual(hidden.shape, (2, 100, config.width))
    self.assertEqual(logits.shape, (2, 100, config.vocab_size))


class SequenceTest(parameterized.TestCase):
  @parameterized.parameters('grouped', 'plain')
  def test_packed_sequences_are_those_alone(self, name):
    model, params, _ = _pair(name)
    tokens_bn = _tokens(1, 12)
    segments = np.array([[0, 2, 2, 2, 2, 5, 5, 5, 1, 1, 1, 0]])
    positions = np.array([[0, 0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 0]])
    packed, _ = _forward(model, params, tokens_bn, positions, segments)
    for first, end in ((1, 5), (5, 8), (8, 11)):
      alone, _ = _forward(
        model, params, tokens_bn[:, first:end], _positions(1, end - first)
      )
      np.testing.assert_allclose(
        packed[:, first:end], alone, rtol=1e-5, atol=1e-5
      )

  @parameterized.parameters('grouped', 'plain')
  def test_prefill_and_extend_are_one_run(self, name):
    """Sequences of different lengths, read in four parts of different sizes."""
    model, params, _ = _pair(name)
    tokens_bn = _tokens(3, 20)
    # Tokens of each sequence in each part; zero where it waits.
    parts = [(5, [5, 2, 0]), (4, [4, 0, 3]), (1, [1, 1, 0]), (6, [2, 6, 1])]
    whole, _ = _forward(model, params, tokens_bn, _positions(3, 20))
    done = np.zeros(3, int)
    cache = None
    for size, lengths in parts:
      part = _tokens(3, size, seed=9)  # what is not overwritten is padding
      for b, length in enumerate(lengths):
        part[b, :length] = tokens_bn[b, done[b] : done[b] + length]
      lengths_b = jnp.array(lengths)
      if cache is None:
        hidden, cache = _prefill(model, params, part, lengths_b, 12)
      else:
        hidden, cache = _extend(model, params, part, lengths_b, cache)
      for b, length in enumerate(lengths):
        np.testing.assert_allclose(
          hidden[b, :length],
          whole[b, done[b] : done[b] + length],
          rtol=1e-5,
          atol=1e-5,
        )
        if length:
          np.testing.assert_array_equal(
            last_token(hidden, lengths_b)[b], hidden[b, length - 1]
          )
      done += lengths
    # Sequence 0 fills the cache, and its padding in the last part is beyond the
    # end: that must not have overwritten anything.
    np.testing.assert_array_equal(cache.prompt_lengths_b, [5, 2, 0])
    np.testing.assert_array_equal(cache.lengths_bq, [[7], [7], [4]])
    self.assertEqual(
      cache.keys_lbsgk.shape,
      (3, 3, 12, CONFIGS[name].num_kv_heads, CONFIGS[name].head_dim),
    )

  def test_questions_share_a_prefix(self):
    """Two prompts with three questions each, against six complete sequences.

    The shared prompt is stored once.
    """
    model, params, _ = _pair('grouped')
    prefix_lengths, lengths = np.array([9, 6]), np.array([4, 2, 5, 1, 3, 5])
    prefix, questions = _tokens(2, 9), _tokens(6, 5, seed=1)
    _, cache = _prefill(model, params, prefix, prefix_lengths, 14, 3)
    self.assertEqual(cache.keys_lbsgk.shape[1:3], (2, 9 + 3 * 5))
    hidden, cache = _extend(model, params, questions, lengths, cache)
    actual = model(params, last_token(hidden, lengths), method='logits')
    for row, length in enumerate(lengths):
      tokens = np.concatenate([
        prefix[row // 3, : prefix_lengths[row // 3]],
        questions[row, :length],
      ])  # fmt: skip
      _, logits = _forward(
        model, params, tokens[None], _positions(1, len(tokens))
      )
      np.testing.assert_allclose(
        actual[row], logits[0, -1], rtol=1e-5, atol=1e-5
      )
    np.testing.assert_array_equal(cache.lengths_bq, lengths.reshape(2, 3))

  @parameterized.parameters('grouped', 'plain')
  def test_greedy_decoding(self, name):
    model, params, _ = _pair(name)
    steps, lengths = 6, [7, 3, 1]
    prompts = _tokens(3, 7, seed=2)

    answers = []
    for row, length in enumerate(lengths):
      tokens = prompts[row : row + 1, :length]
      for _ in range(steps):
        # Padded on the right to one size, so that it is compiled once.
        padded = np.pad(tokens, ((0, 0), (0, 13 - tokens.shape[1])))
        _, logits = _forward(model, params, padded, _positions(1, 13))
        best = np.argmax(logits[:, tokens.shape[1] - 1], axis=-1)
        tokens = np.append(tokens, best[:, None], axis=1)
      answers.append(tokens[0, length:])

    @jax.jit
    def decode(params, prompts, lengths_b):
      def choose(hidden, lengths_b):
        logits = model(params, last_token(hidden, lengths_b), method='logits')
        return jnp.argmax(logits, axis=-1)

      ones_b = jnp.ones(3, jnp.int32)

      def step(carry, _):
        token_b, cache = carry
        hidden, cache = _extend(model, params, token_b[:, None], ones_b, cache)
        return (choose(hidden, ones_b), cache), token_b

      hidden, cache = _prefill(model, params, prompts, lengths_b, 13)
      first_b = choose(hidden, lengths_b)
      _, tokens_nb = jax.lax.scan(step, (first_b, cache), length=steps)
      return tokens_nb.T

    actual = decode(params, prompts, jnp.array(lengths))
    np.testing.assert_array_equal(actual, answers)
    self.assertGreater(len(set(np.ravel(answers))), 6)

  def test_misuse_shows(self):
    model, params, _ = _pair('grouped')
    tokens_bn = _tokens(2, 4)
    is_bad = [False, True]

    def check(hidden):
      np.testing.assert_array_equal(np.isnan(hidden).any((1, 2)), is_bad)
      np.testing.assert_array_equal(np.isnan(hidden).all((1, 2)), is_bad)

    # More tokens than there are; more tokens than slots. A sequence that is
    # invalid once stays so.
    for first, slots, more in (([4, 5], 8, [2, 2]), ([4, 4], 6, [2, 3])):
      hidden, cache = _prefill(
        model, params, tokens_bn, jnp.array(first), slots
      )
      if first[1] > 4:
        check(hidden)
      for lengths in (more, [0, 0]):
        hidden, cache = _extend(
          model, params, tokens_bn[:, :3], jnp.array(lengths), cache
        )
        check(hidden)
    with self.assertRaisesRegex(ValueError, 'a cache of length 3'):
      _prefill(model, params, tokens_bn, jnp.array([4, 4]), 3)
    with self.assertRaisesRegex(ValueError, 'the model supports up to 32'):
      _prefill(model, params, tokens_bn, jnp.array([4, 4]), 33)
    with self.assertRaisesRegex(ValueError, '6 sequences of new tokens, 2 seq'):
      _extend(model, params, _tokens(6, 1), jnp.ones(6, jnp.int32), cache)
    with self.assertRaisesRegex(ValueError, r'embeddings \[B, N, 24\]'):
      model(params, tokens_bn, _positions(2, 4))

  def test_misuse_of_one_branch_leaves_the_others_alone(self):
    """Both continue a prompt that fills its slots."""
    model, params, _ = _pair('grouped')

    def second_branch(first_length):
      lengths = jnp.array([4])
      _, cache = _prefill(model, params, _tokens(1, 4), lengths, 10, 2)
      for lengths in ([first_length, 1], [0, 2]):
        new = _tokens(2, 3, seed=1)
        hidden, cache = _extend(model, params, new, jnp.array(lengths), cache)
      return hidden[1, :2]

    np.testing.assert_array_equal(second_branch(9), second_branch(1))


class ConversionTest(parameterized.TestCase):
  def test_old_files_hold_rates_of_the_rotary_embedding(self):
    model, params, reference = _pair('plain')
    tensors = {
      f'model.layers.{layer}.self_attn.rotary_emb.inv_freq': torch.ones(3)
      for layer in range(PLAIN.num_layers)
    } | reference.state_dict()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    safetensors_torch.save_file(tensors, f'{folder}/model.safetensors')
    load = functools.partial(
      published_tensors.load,
      convert.LLAMA_TABLE,
      model.abstract_params,
      safetensors_files.open_tensors(folder, 'model'),
    )
    with self.assertRaisesRegex(ValueError, '3 unknown: .*inv_freq'):
      load()
    jax.tree.map(
      np.testing.assert_array_equal,
      load(ignored=convert.LLAMA_IGNORED),
      params,
    )

  def test_reference_reads_what_we_write(self):
    _, params, reference = _pair('grouped')
    folder = self.enterContext(tempfile.TemporaryDirectory())
    published_tensors.save(convert.LLAMA_TABLE, params, folder, 'model')
    with open(f'{folder}/config.json', 'w') as file:
      json.dump(GROUPED.to_json(), file)
    loaded, report = transformers.LlamaForCausalLM.from_pretrained(
      folder, output_loading_info=True
    )
    self.assertEmpty(report['missing_keys'])
    self.assertEmpty(report['unexpected_keys'])
    for name, tensor in reference.state_dict().items():
      self.assertTrue(torch.equal(loaded.state_dict()[name], tensor), name)
    self.assertEqual(loaded.config.rope_parameters['rope_theta'], 50.0)


class LoRATest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    torch.manual_seed(1)
    adapters = peft.LoraConfig(
      r=4,
      lora_alpha=8,
      target_modules=[
        'q_proj', 'k_proj', 'v_proj', 'o_proj',
        'gate_proj', 'up_proj', 'down_proj',
      ],
    )  # fmt: skip
    with warnings.catch_warnings():
      # PEFT asks transformers for a property by its old name.
      warnings.simplefilter('ignore', FutureWarning)
      cls.reference = peft.get_peft_model(_reference(GROUPED), adapters).eval()
    with torch.no_grad():
      for name, tensor in cls.reference.named_parameters():
        if 'lora_B' in name:  # zero until it is trained
          tensor.normal_(0, 0.1)

    def build(rngs):
      return Decoder(GROUPED, rngs=rngs)

    config = lora.LoRAConfig(rank=4, alpha=8.0, targets=EVERY_LINEAR)
    cls.model = functional(lora.adapted(build, config))
    abstract, _ = param_paths.partition(
      cls.model.abstract_params, lora.is_adapter
    )
    published = types.SimpleNamespace(
      state_dict=lambda: peft.get_peft_model_state_dict(cls.reference)
    )
    table = lora.adapter_table(convert.LLAMA_TABLE, prefix='base_model.model.')
    # Which also says that neither side has an adapter that the other lacks.
    adapters = params_from_torch(table, abstract, published)
    _, cls.base, _ = _pair('grouped')
    cls.params = param_paths.merge(
      cls.base, jax.tree.map(jnp.asarray, adapters)
    )

  def test_parity(self):
    tokens_bn = _tokens(2, 8)
    with torch.no_grad():
      expected = self.reference(input_ids=torch.tensor(tokens_bn)).logits
    _, logits = _forward(self.model, self.params, tokens_bn, _positions(2, 8))
    self.assertLess(scaled_error(logits, expected.numpy()), 1e-5)
    _, without = _forward(
      _model(GROUPED), self.base, tokens_bn, _positions(2, 8)
    )
    self.assertGreater(scaled_error(without, expected.numpy()), 0.1)

  def test_every_adapter_matters(self):
    flat = param_paths.flatten(self.params)
    adapters = [name for name in flat if lora.is_adapter(name)]
    self.assertLen(adapters, 14)

    def loss(params):
      _, logits = _forward(self.model, params, _tokens(2, 8), _positions(2, 8))
      return jnp.mean(jnp.square(logits))

    grads = param_paths.flatten(jax.jit(jax.grad(loss))(self.params))
    for name in adapters:
      for layer in range(GROUPED.num_layers):
        self.assertTrue(np.any(grads[name][layer]), f'{name} {layer}')

  def test_cache(self):
    """Adapters affect both what is cached and what attends to it."""
    tokens_bn = _tokens(2, 8)
    whole, _ = _forward(self.model, self.params, tokens_bn, _positions(2, 8))
    lengths_b = jnp.array([5, 5])
    _, cache = _prefill(self.model, self.params, tokens_bn[:, :5], lengths_b, 8)
    hidden, _ = _extend(
      self.model, self.params, tokens_bn[:, 5:], jnp.array([3, 3]), cache
    )
    np.testing.assert_allclose(hidden, whole[:, 5:], rtol=1e-5, atol=1e-5)
