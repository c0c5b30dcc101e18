"""Inference of a critic on the devices of one host: prompts in, ratings out.

The rating is the first token of an answer, so no generation is needed: the
logits at the last token of the prompt give the probability of each label. The
prefix (system text, frames, caption) is computed once for the three questions
of a video.

Legend: B videos, Q questions, N tokens of a prefix, M tokens of a question, R
sequences of the cache (videos x questions), A tokens of an answer, K stop
tokens, V vocabulary, L labels.
"""

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from lift_jax import partitioning
from lift_jax.models import quantization
from lift_jax.models.critic_protocols import Frames
from lift_jax.models.critic_tokens import last_token
from lift_jax.models.critics import Critic
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.partitioning import BATCH_AXES
from lift_jax.rewards.soft import label_distribution


class Prompts(NamedTuple):
  """Prompts of a batch, in two parts.

  Attributes:
    prefix_bn: token ids int32 [B, N] that the prompts of a video share, padded
      on the right.
    prefix_length_b: int32 [B].
    question_bqm: token ids int32 [B, Q, M] of the rest, padded on the right.
    question_length_bq: int32 [B, Q], each at least 1.
  """

  prefix_bn: np.ndarray
  prefix_length_b: np.ndarray
  question_bqm: np.ndarray
  question_length_bq: np.ndarray


class Ratings(NamedTuple):
  """Ratings of a batch.

  Attributes:
    probabilities_bql: fp32 [B, Q, L], normalised over the labels.
    mass_bq: fp32 [B, Q], the probability that an answer begins with a label.
    first_bq: int32 [B, Q], the most probable first token.
    answer_bqa: int32 [B, Q, A], the greedy answer, padded after its stop token;
      None if none was generated.
  """

  probabilities_bql: np.ndarray
  mass_bq: np.ndarray
  first_bq: np.ndarray
  answer_bqa: np.ndarray | None


@functools.partial(
  jax.jit, static_argnames=('model', 'label_ids', 'max_length')
)
def rate(
  model: FunctionalModel,
  params: Params,
  frames: Frames,
  prompts: Prompts,
  *,
  label_ids: tuple[tuple[str, int], ...],
  max_length: int,
):
  """((probabilities, mass, first token), cache after the prompts).

  Args:
    model: the critic; pass the same object for the same program.
    params: its parameters.
    frames: arrays of the clips, as the critic's `FrameProcessor` makes them.
    prompts: of the batch.
    label_ids: (label, first token of its answer) of each label.
    max_length: of prefix, question and answer together, in tokens.
  """
  num_questions = prompts.question_bqm.shape[1]
  _, cache = model(
    params,
    frames,
    prompts.prefix_bn,
    prompts.prefix_length_b,
    max_length=max_length,
    num_branches=num_questions,
    method='prefill',
  )
  length_r = prompts.question_length_bq.reshape(-1)
  hidden_rmd, cache = model(
    params,
    prompts.question_bqm.reshape(length_r.shape[0], -1),
    length_r,
    cache,
    method='extend',
  )
  logits_rv = model(params, last_token(hidden_rmd, length_r), method='logits')
  distribution = label_distribution(logits_rv, dict(label_ids))
  first_r = jnp.argmax(logits_rv, axis=-1).astype(jnp.int32)
  return (*distribution, first_r), cache


@functools.partial(
  jax.jit,
  static_argnames=('model', 'stop_ids', 'pad_id', 'max_tokens'),
  donate_argnames='cache',
)
def answer(
  model: FunctionalModel,
  params: Params,
  first_r: jax.Array,
  cache: Any,
  *,
  stop_ids: tuple[int, ...],
  pad_id: int,
  max_tokens: int,
) -> tuple[jax.Array, Any]:
  """Greedy answers int32 [R, max_tokens], and the cache after them.

  Decoding ends as soon as every sequence has stopped.

  Args:
    first_r: first token of each answer.
    cache: after the prompts, with room for `max_tokens` more.
  """
  num_sequences = first_r.shape[0]
  answers_ra = jnp.full((num_sequences, max_tokens), pad_id, jnp.int32)

  def is_unfinished(carry):
    number, token_r, _, is_done_r, _ = carry
    del token_r
    return (number < max_tokens) & ~jnp.all(is_done_r)

  def next_token(carry):
    number, token_r, answers_ra, is_done_r, cache = carry
    token_r = jnp.where(is_done_r, pad_id, token_r)
    answers_ra = jax.lax.dynamic_update_index_in_dim(
      answers_ra, token_r, number, axis=1
    )
    is_stop_rk = token_r[:, None] == jnp.array(stop_ids)[None]
    is_done_r |= is_stop_rk.any(axis=1)
    hidden_r1d, cache = model(
      params,
      token_r[:, None],
      jnp.where(is_done_r, 0, 1),
      cache,
      method='extend',
    )
    logits_rv = model(params, hidden_r1d[:, 0], method='logits')
    next_r = jnp.argmax(logits_rv, axis=-1).astype(jnp.int32)
    return number + 1, next_r, answers_ra, is_done_r, cache

  start = (0, first_r, answers_ra, jnp.zeros(num_sequences, bool), cache)
  *_, answers_ra, _, cache = jax.lax.while_loop(
    is_unfinished, next_token, start
  )
  return answers_ra, cache  # an output, so that the donated one is reused


class Scorer:
  """A critic, loaded on the devices of this host.

  Args:
    critic: the folder of the critic.
    mesh: of the devices.
    dtype: of the computation and of the parameters.
    attention: see `models.attention`.
    quantize: see `scoring.config.ScoringRunConfig`.
    label_ids: first token of each label.
    stop_ids: tokens that end an answer.
    pad_id: token for padding.

  Raises:
    UserError: the mesh does not divide the critic, or its weights do not match
      its config.
  """

  def __init__(
    self,
    critic: Critic,
    mesh: jax.sharding.Mesh,
    dtype: str,
    attention: str,
    *,
    quantize: str = quantization.NONE,
    label_ids: Mapping[str, int],
    stop_ids: tuple[int, ...],
    pad_id: int,
  ):
    critic.check_mesh(mesh)
    self.mesh = mesh
    self.num_shards = partitioning.batch_shards(mesh)
    self._label_ids = tuple(label_ids.items())
    self._stop_ids, self._pad_id = stop_ids, pad_id
    self._model = functional(
      critic.build(dtype=jnp.dtype(dtype), attention_backend=attention)
    )
    shardings = partitioning.param_shardings(
      critic.rules, self._model.abstract_params, mesh
    )
    convert = None
    if quantize != quantization.NONE:
      convert = quantization.quantizer(critic.lora_targets)
    self._params = critic.load(
      self._model, shardings, jnp.dtype(dtype), convert=convert
    )
    self._batch_sharding = NamedSharding(mesh, P(BATCH_AXES))

  def __call__(
    self, frames: Frames, prompts: Prompts, max_answer_tokens: int
  ) -> Ratings:
    """Rates a batch of videos; for `frames` see `rate`."""
    batch, num_questions, length = prompts.question_bqm.shape
    put = functools.partial(jax.device_put, device=self._batch_sharding)
    with jax.set_mesh(self.mesh):
      (probabilities, mass, first), cache = rate(
        self._model,
        self._params,
        put(frames),
        Prompts(*map(put, prompts)),
        label_ids=self._label_ids,
        max_length=prompts.prefix_bn.shape[1] + length + max_answer_tokens,
      )
      answers = None
      if max_answer_tokens:
        answers, _ = answer(
          self._model,
          self._params,
          first,
          cache,
          stop_ids=self._stop_ids,
          pad_id=self._pad_id,
          max_tokens=max_answer_tokens,
        )
    ratings = jax.device_get((probabilities, mass, first, answers))
    return Ratings(
      *jax.tree.map(
        lambda x: x.reshape(batch, num_questions, *x.shape[1:]), ratings
      )
    )
