"""Qwen3-VL against the implementation of transformers, on tiny random weights.

They are saved as transformers publishes them, and loaded by the critic.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.models.functional import functional
from lift_jax.models.qwen3vl.model import Qwen3VL
from lift_jax.models.qwen3vl.positions import token_positions
from tests.models.qwen3vl import tiny_qwen
from tests.models.qwen3vl.tiny_qwen import (
  GRID,
  LENGTH,
  MIXED,
  NUM_PAIRS,
  VIDEO,
  make_frames,
  padded,
  reference_grid,
  reference_inputs,
  reference_pixels,
  stacked,
  text,
  video_tokens,
)
from tests.optional import torch
from tests.torch_weights import scaled_error

TOLERANCE = 5e-6


class Pair(NamedTuple):
  """Our network, its parameters, its logits as a program, the reference."""

  model: Any
  params: Any
  logits: Any
  theirs: Any


def load_pair(path, *, tied_head: bool) -> Pair:
  critic = tiny_qwen.write_published(path, tied_head=tied_head)
  model = functional(critic.build())
  params = critic.load(model, None, jnp.float32)
  return Pair(
    model,
    params,
    jax.jit(lambda *args: model(params, model(params, *args), method='logits')),
    tiny_qwen.reference(tied_head),
  )


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  return load_pair(tmp_path_factory.mktemp('untied'), tied_head=False)


def error_of(pair, frames, tokens_n, num_videos=1) -> float:
  """Largest difference of the logits on a prompt with all frames."""
  with torch.no_grad():
    inputs = reference_inputs(frames, tokens_n, num_videos)
    expected = pair.theirs(**inputs).logits[0]
  ours = pair.logits(stacked(frames), padded(tokens_n))
  return scaled_error(ours[0, : len(tokens_n)], expected)


def test_tower_and_deepstack(pair):
  """Of two clips of one shape and different grids."""
  clips = [make_frames(0), make_frames(1, GRID[::-1])]
  encode = jax.jit(
    lambda frames: pair.model(pair.params, frames, method='encode_frames')
  )
  tokens, features = encode(stacked(*clips))
  for number, clip in enumerate(clips):
    with torch.no_grad():
      expected = pair.theirs.model.visual(
        reference_pixels(clip), reference_grid(clip)
      )
    assert scaled_error(tokens[number], expected.pooler_output) < TOLERANCE
    assert len(features) == len(expected.deepstack_features) == 2
    for ours, feature in zip(
      features[:, number], expected.deepstack_features, strict=True
    ):
      assert scaled_error(ours, feature) < TOLERANCE


def test_logits_on_text(pair):
  tokens = text(0, 12)
  with torch.no_grad():
    expected = pair.theirs(torch.tensor([tokens])).logits[0]
  ours = pair.logits(stacked(make_frames(0)), padded(tokens))[0, :12]
  assert scaled_error(ours, expected) < TOLERANCE


@pytest.mark.parametrize(
  'tokens', [video_tokens(), MIXED], ids=['video', 'mixed']
)
def test_logits_on_video(pair, tokens):
  assert error_of(pair, make_frames(2), tokens) < TOLERANCE


def test_logits_on_two_videos_and_text_between(pair):
  half = video_tokens(NUM_PAIRS // 2)
  tokens = text(7, 2) + half + text(8, 7) + half + text(9, 3)
  assert error_of(pair, make_frames(3), tokens, num_videos=2) < TOLERANCE


def test_tied_head(tmp_path):
  pair = load_pair(tmp_path, tied_head=True)
  assert 'head' not in pair.params['llm']
  assert error_of(pair, make_frames(2), MIXED) < TOLERANCE


def test_positions_of_two_videos_and_text_between():
  """Of different grids: tall, then wide."""
  theirs = tiny_qwen.reference(True).model
  grids = [(2, 8, 4), (3, 4, 10)]
  tokens, per_pair = text(0, 5), []
  for pairs, rows, columns in grids:
    for number in range(pairs):
      tokens += text(number, 4) + [VIDEO] * (rows * columns // 4)
      per_pair.append((rows // 2, columns // 2))
    tokens += text(pairs, 6)
  tokens_bn = np.array([tokens])
  expected, delta = theirs.get_rope_index(
    torch.tensor(tokens_bn),
    2 * torch.tensor(tokens_bn == VIDEO).int(),
    video_grid_thw=torch.tensor(grids),
  )
  ours = token_positions(
    jnp.asarray(tokens_bn == VIDEO), jnp.array([per_pair], jnp.int32)
  )
  np.testing.assert_array_equal(ours.transpose(2, 0, 1), expected)
  assert int(ours.max()) + 1 == len(tokens) + int(delta[0, 0])


def test_branches_equal_full_prompts(pair):
  """Questions behind the frames of two clips, one of them padded."""
  model, params = pair.model, pair.params
  clips = [make_frames(0), make_frames(1, GRID[::-1])]
  prefixes = [text(1, 5) + video_tokens() + text(2, 4), video_tokens()]
  lengths_b = np.array([len(ids) for ids in prefixes])
  prefix_bn = np.concatenate([padded(ids) for ids in prefixes])
  question_rm = np.array([text(seed, 6) for seed in range(4)])

  @jax.jit
  def in_branches(frames, prefix_bn):
    _, cache = model(
      params,
      frames,
      prefix_bn,
      lengths_b,
      max_length=LENGTH + 6,
      num_branches=2,
      method='prefill',
    )
    # In two parts, as an answer is appended to its question.
    parts = []
    for new_rm in (question_rm[:, :4], question_rm[:, 4:]):
      lengths_r = np.full(4, new_rm.shape[1])
      hidden, cache = model(params, new_rm, lengths_r, cache, method='extend')
      parts.append(hidden)
    return model(params, jnp.concatenate(parts, axis=1), method='logits')

  logits_rmv = in_branches(stacked(*clips), prefix_bn)
  for sequence in range(4):
    slot = sequence // 2
    full = prefixes[slot] + question_rm[sequence].tolist()
    expected_1nv = pair.logits(stacked(clips[slot]), padded(full))
    expected_mv = expected_1nv[0, lengths_b[slot] : len(full)]
    assert scaled_error(logits_rmv[sequence], expected_mv) < TOLERANCE


def test_greedy_answers(pair):
  """Generated token by token, with the key-value caches of both."""
  model, params = pair.model, pair.params
  frames, num_new = make_frames(6), 6
  with torch.no_grad():
    answer = pair.theirs.generate(
      **reference_inputs(frames, MIXED),
      max_new_tokens=num_new,
      do_sample=False,
      eos_token_id=None,
    )[0, len(MIXED) :].tolist()
  assert len({*answer}) > 1

  @jax.jit
  def prefill(frames, tokens_bn):
    length_b = np.array([len(MIXED)])
    return model(
      params,
      frames,
      tokens_bn,
      length_b,
      max_length=LENGTH + num_new,
      method='prefill',
    )

  @jax.jit
  def step(token_11, cache):
    one = np.array([1])
    hidden, cache = model(params, token_11, one, cache, method='extend')
    return jnp.argmax(model(params, hidden, method='logits'), -1), cache

  _, cache = prefill(stacked(frames), padded(MIXED))
  first = pair.logits(stacked(frames), padded(MIXED))[:, len(MIXED) - 1]
  tokens = [jnp.argmax(first, axis=-1)[:, None]]
  for _ in range(num_new - 1):
    token, cache = step(tokens[-1], cache)
    tokens.append(token)
  assert [int(token[0, 0]) for token in tokens] == answer


def test_types_of_a_computation_in_bf16():
  config = tiny_qwen.tiny_config()
  rounded = functional(
    lambda rngs: Qwen3VL(config, dtype=jnp.bfloat16, rngs=rngs)
  )
  params = rounded.abstract_params
  frames = stacked(make_frames(0))
  hidden = jax.eval_shape(rounded, params, frames, padded(MIXED))
  assert hidden.dtype == jnp.bfloat16
  logits = jax.eval_shape(
    lambda *args: rounded(*args, method='logits'), params, hidden
  )
  assert logits.dtype == jnp.float32
