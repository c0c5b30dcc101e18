"""The VILA network compared with torch, and with itself."""

import dataclasses
import functools
import pathlib
import tempfile

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import critics
from lift_jax.models.functional import functional
from lift_jax.models.vila import sharding
from lift_jax.models.vila.model import Vila
from lift_jax.models.vila.projector import ProjectorConfig
from lift_jax.models.vila.tokenizer import IMAGE_TOKEN
from tests.models.vila import tiny_vila
from tests.models.vila.critics import (
  CONFIG,
  TOKENS_PER_FRAME,
  VILA_1_5_13B,
  VILA_1_5_40B,
  make_frames,
  make_tokens,
)
from tests.optional import torch
from tests.torch_weights import scaled_error


def _model(config=CONFIG, **options):
  return functional(lambda rngs: Vila(config, rngs=rngs, **options))


@functools.cache
def _pair():
  """Our model, and the parameters of the torch one through its folder."""
  with tempfile.TemporaryDirectory() as path:
    folder = critics.open_critic(
      tiny_vila.write(pathlib.Path(path) / 'vila', tiny_vila.shared())
    )
    model = functional(folder.build())
    mesh = partitioning.make_mesh(partitioning.MeshConfig(), jax.devices()[:1])
    shardings = partitioning.param_shardings(
      folder.rules, model.abstract_params, mesh
    )
    params = folder.load(model, shardings, jnp.float32)
  # As in a script without a mesh.
  return model, jax.device_put(params, jax.devices()[0])


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, params, frames, tokens):
  hidden_bnd = model(params, frames, tokens)
  return hidden_bnd, model(params, hidden_bnd, method='logits')


@functools.partial(jax.jit, static_argnums=(0, 5))
def _prefill(model, params, frames, tokens, lengths, max_length):
  return model(
    params, frames, tokens, lengths, max_length=max_length, num_branches=3,
    method='prefill',
  )  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def _extend(model, params, tokens, lengths, cache):
  return model(params, tokens, lengths, cache, method='extend')


class ParityTest(parameterized.TestCase):
  """The published folder, loaded as jobs do, against torch."""

  # All frames used; fewer frames than the clip has; none.
  @parameterized.parameters(([3, 3, 3],), ([3, 2, 1],), ([0, 3, 2],))
  def test_forward(self, frames_b):
    model, params = _pair()
    frames = make_frames(3, 3)
    tokens, lengths = make_tokens(frames_b, 36)
    with torch.no_grad():
      expected = tiny_vila.shared()(frames, tokens)
    actual = _forward(model, params, frames, tokens)
    is_token = np.arange(36) < lengths[:, None]
    for ours, theirs in zip(actual, expected, strict=True):
      self.assertTrue(np.isfinite(ours).all())
      # Observed 2e-6; 0.4 if tokens of a frame were row-major.
      self.assertLess(
        scaled_error(np.asarray(ours)[is_token], theirs.numpy()[is_token]), 1e-5
      )

  def test_bfloat16(self):
    _, params = _pair()
    inputs = make_frames(2, 3), make_tokens([3, 2], 32)[0]
    expected, _ = _forward(_model(), params, *inputs)
    half = _model(dtype=jnp.bfloat16)
    hidden, logits = _forward(half, params, *inputs)
    self.assertEqual(hidden.dtype, jnp.bfloat16)
    self.assertEqual(logits.dtype, jnp.float32)
    difference = jnp.linalg.norm(hidden.astype(jnp.float32) - expected)
    # Eight bits of mantissa through tower, projector and decoder.
    self.assertLess(float(difference / jnp.linalg.norm(expected)), 5e-2)


class ImageTokensTest(parameterized.TestCase):
  def test_positions(self):
    """Against a loop; prompts have all image tokens, some, one or none."""
    model, params = _pair()
    num_image, num_tokens = 6, 12
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 512, (5, num_tokens))
    positions = [[0, 1, 2, 5, 10, 11], [3, 4, 9], [7], [], [1, 2, 3, 4, 5, 6]]
    for index, columns in enumerate(positions):
      tokens[index, columns] = IMAGE_TOKEN
    image = rng.normal(size=(5, num_image, CONFIG.llm.width))
    image = image.astype(np.float32)
    actual = jax.jit(functools.partial(model, method='embed'))(
      params, tokens, image
    )
    table = np.asarray(params['llm']['token_embedding']['embedding'])
    for index in range(5):
      unused = iter(image[index])
      for column in range(num_tokens):
        token = tokens[index, column]
        expected = next(unused) if token == IMAGE_TOKEN else table[token]
        np.testing.assert_array_equal(actual[index, column], expected)

  def test_frames_in_order(self):
    model, params = _pair()
    frames = make_frames(2, 3)
    look = jax.jit(functools.partial(model, method='encode_frames'))
    together = look(params, frames)
    self.assertEqual(
      together.shape, (2, 3 * TOKENS_PER_FRAME, CONFIG.llm.width)
    )
    for frame in range(3):
      alone = look(params, frames[:, frame : frame + 1])
      first = frame * TOKENS_PER_FRAME
      np.testing.assert_allclose(
        together[:, first : first + TOKENS_PER_FRAME], alone, atol=1e-5
      )

  @parameterized.parameters(0, 1, 2)
  def test_a_frame_changes_what_follows_it(self, frame):
    model, params = _pair()
    frames = make_frames(2, 3)
    tokens, lengths = make_tokens([3, 3], 36)
    before, _ = _forward(model, params, frames, tokens)
    changed = frames.copy()
    changed[0, frame] = make_frames(1, 1, seed=7)[0, 0]
    after, _ = _forward(model, params, changed, tokens)
    first = np.flatnonzero(tokens[0] == IMAGE_TOKEN)[frame * TOKENS_PER_FRAME]
    np.testing.assert_array_equal(after[0, :first], before[0, :first])
    differs = np.abs(after[0] - before[0]).max(axis=-1)[first : lengths[0]]
    self.assertGreater(differs.min(), 1e-4)
    np.testing.assert_array_equal(after[1], before[1])

  def test_padding_frames(self):
    """They may have any content."""
    model, params = _pair()
    frames = make_frames(2, 3)
    tokens, _ = make_tokens([1, 2], 32)
    before = _forward(model, params, frames, tokens)
    other = make_frames(2, 3, seed=7)
    other[0, :1], other[1, :2] = frames[0, :1], frames[1, :2]
    after = _forward(model, params, other, tokens)
    jax.tree.map(np.testing.assert_array_equal, after, before)

  def test_padding_on_the_right(self):
    model, params = _pair()
    frames = make_frames(2, 3)
    tokens, lengths = make_tokens([3, 2], 32)
    short, _ = _forward(model, params, frames, tokens)
    wide = np.pad(tokens, ((0, 0), (0, 9)), constant_values=77)
    for index, length in enumerate(lengths):
      wide[index, length:] = 77
    padded, _ = _forward(model, params, frames, wide)
    for index, length in enumerate(lengths):
      np.testing.assert_allclose(
        padded[index, :length], short[index, :length], rtol=1e-5, atol=1e-5
      )

  def test_batch(self):
    """Each prompt gives the same as alone."""
    model, params = _pair()
    frames = make_frames(3, 3)
    tokens, lengths = make_tokens([3, 2, 1], 36)
    together, _ = _forward(model, params, frames, tokens)
    for index, length in enumerate(lengths):
      alone, _ = _forward(
        model, params, frames[index : index + 1], tokens[index : index + 1]
      )
      self.assertLess(
        scaled_error(together[index, :length], alone[0, :length]), 1e-5
      )


def _questions(num_rows, seed=3):
  """Different ends of prompts: ids [B, M], padded, and lengths [B]."""
  rng = np.random.default_rng(seed)
  lengths = np.resize([5, 2, 7], num_rows)
  tokens = rng.integers(3, 500, (num_rows, 7))
  return tokens.astype(np.int32), lengths.astype(np.int32)


def _whole(prefix, prefix_lengths, questions, lengths, num_tokens):
  """Prompts as one row each, padded, of prefixes that share `len / len`."""
  times = len(questions) // len(prefix)
  tokens = np.zeros((len(questions), num_tokens), np.int32)
  for row, length in enumerate(lengths):
    first = prefix_lengths[row // times]
    tokens[row, :first] = prefix[row // times, :first]
    tokens[row, first : first + length] = questions[row, :length]
  return tokens


class QuestionsTest(parameterized.TestCase):
  def test_three_questions_about_each_video(self):
    model, params = _pair()
    frames = make_frames(2, 3)
    prefix, prefix_lengths = make_tokens([3, 2], 32)
    questions, lengths = _questions(6)
    first, cache = _prefill(model, params, frames, prefix, prefix_lengths, 40)
    second, cache = _extend(model, params, questions, lengths, cache)
    whole = _whole(prefix, prefix_lengths, questions, lengths, 40)
    expected, _ = _forward(model, params, np.repeat(frames, 3, axis=0), whole)
    for row, length in enumerate(lengths):
      begin = prefix_lengths[row // 3]
      end = begin + length
      self.assertEqual(cache.lengths_bq[row // 3, row % 3], length)
      for ours, theirs in (
        (first[row // 3, :begin], expected[row, :begin]),
        (second[row, :length], expected[row, begin:end]),
      ):
        self.assertLess(scaled_error(ours, theirs), 1e-5)


class MeshTest(parameterized.TestCase):
  @parameterized.parameters(
    {'fsdp': 8},
    {'data': 2, 'fsdp': 2, 'tensor': 2},
    {'data': 4, 'tensor': 2},
    {'fsdp': 2, 'context': 2, 'tensor': 2},
    # Divides neither the tokens of a frame nor those of a prompt.
    {'fsdp': 1, 'context': 8},
  )
  def test_same_result(self, **axes):
    model, params = _pair()
    frames = make_frames(8, 2)
    prefix, prefix_lengths = make_tokens([2, 1, 2, 2, 0, 1, 2, 2], 26)
    questions, lengths = _questions(24)

    def run(params, frames, prefix, prefix_lengths, questions, lengths):
      hidden, logits = _forward(model, params, frames, prefix)
      first, cache = _prefill(model, params, frames, prefix, prefix_lengths, 33)
      second, _ = _extend(model, params, questions, lengths, cache)
      return [hidden, logits, first, second]

    inputs = frames, prefix, prefix_lengths, questions, lengths
    expected = run(params, *inputs)
    mesh = partitioning.make_mesh(partitioning.MeshConfig(**{'fsdp': 1} | axes))
    sharding.check_mesh(CONFIG, mesh)
    shardings = partitioning.param_shardings(
      sharding.rules(CONFIG), model.abstract_params, mesh
    )
    batch_sharding = jax.NamedSharding(mesh, jax.P(partitioning.BATCH_AXES))
    with jax.set_mesh(mesh):
      actual = jax.jit(run)(
        jax.device_put(params, shardings),
        *jax.device_put(inputs, batch_sharding),
      )
    of_prefix = np.arange(26) < prefix_lengths[:, None]
    of_question = np.arange(7) < lengths[:, None]
    masks = [of_prefix, of_prefix, of_prefix, of_question]
    for ours, theirs, mask in zip(actual, expected, masks, strict=True):
      self.assertLess(
        scaled_error(np.asarray(ours)[mask], np.asarray(theirs)[mask]), 1e-5
      )


class FullSizeTest(parameterized.TestCase):
  # Language model, projector, and the vision tower up to the feature: of
  # SigLIP's 428,225,600 all but a layer, the last norm and the pooling head.
  @parameterized.parameters(
    (VILA_1_5_13B, 196, 13_015_864_320 + 49_826_816 + 397_745_440),
    (VILA_1_5_40B, 256, 34_388_917_248 + 143_170_560 + 5_536_496_000),
  )
  def test_full_size(self, config, tokens_per_frame, num_params):
    self.assertEqual(config.tokens_per_frame, tokens_per_frame)
    model = _model(config, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    leaves = jax.tree.leaves(model.abstract_params)
    self.assertEqual(sum(leaf.size for leaf in leaves), num_params)
    size = config.vision_tower.image_size
    num_tokens = 8 * tokens_per_frame + 384
    hidden, logits = jax.eval_shape(
      functools.partial(_forward, model),
      model.abstract_params,
      jax.ShapeDtypeStruct((2, 8, size, size, 3), jnp.uint8),
      jax.ShapeDtypeStruct((2, num_tokens), jnp.int32),
    )
    self.assertEqual(hidden.shape, (2, num_tokens, config.llm.width))
    self.assertEqual(logits.shape, (2, num_tokens, config.llm.vocab_size))


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    {'vision_width': 40, 'width': 48}, {'vision_width': 32, 'width': 40}
  )
  def test_parts_that_do_not_fit(self, **widths):
    with self.assertRaisesRegex(UserError, 'the vision tower has 32'):
      dataclasses.replace(CONFIG, projector=ProjectorConfig(**widths))
