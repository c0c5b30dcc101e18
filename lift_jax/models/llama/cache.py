"""Key-value cache of a decoder, with branches that share a prompt.

A prompt can have several continuations, such as three questions about one
video. Each of these branches attends to the prompt and to itself, and the
prompt is stored once:

  | prompt | capacity of branch 0 | capacity of branch 1 | ...

Sequences of new tokens are prompts x branches, those of a prompt adjacent.

Legend: B prompts, Q branches of each, R = B Q sequences, M new tokens of a
sequence, N = QM those of a prompt, S slots, L layers, G key heads, K width of a
head.
"""

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

from lift_jax.models.llama.sharding import CACHE
from lift_jax.partitioning import constrain

# Replaces an invalid length, whose sequence is NaN from then on.
_INVALID = -1


class NewSlots(NamedTuple):
  """Where new tokens are written, and what they attend to.

  Attributes:
    positions_rm: int32 [R, M], of each token in its sequence.
    slots_bn: int32 [B, N], of each token in the cache; S for tokens that are to
      be dropped.
    visible_bns: bool [B, N, S], what each token attends to, itself included.
  """

  positions_rm: jax.Array
  slots_bn: jax.Array
  visible_bns: jax.Array


class KVCache(NamedTuple):
  """Keys and values of B prompts and their branches.

  Slots beyond a length hold no meaningful values, and are overwritten.

  Attributes:
    keys_lbsgk: rotated keys [L, B, S, G, K], in the compute dtype.
    values_lbsgk: values [L, B, S, G, K].
    prompt_lengths_b: int32 [B], tokens of each prompt.
    next_position_b: int32 [B], of the first token after each prompt. It is the
      length of the prompt, unless images in it take more tokens than positions.
    starts_q: int32 [Q], first slot of each branch.
    lengths_bq: int32 [B, Q], tokens of each branch.
  """

  keys_lbsgk: jax.Array
  values_lbsgk: jax.Array
  prompt_lengths_b: jax.Array
  next_position_b: jax.Array
  starts_q: jax.Array
  lengths_bq: jax.Array

  @classmethod
  def of_prompts(
    cls,
    keys_lbsgk: jax.Array,
    values_lbsgk: jax.Array,
    lengths_b: jax.Array,
    num_slots: int,
    num_branches: int,
    next_position_b: jax.Array | None = None,
  ) -> tuple[Self, jax.Array]:
    """The cache of prompts with empty branches, and which prompts are valid.

    Args:
      keys_lbsgk: keys of the prompts in their slots.
      values_lbsgk: likewise.
      lengths_b: int [B], 0 to `num_slots`.
      num_slots: of a prompt; the branches share the rest.
      num_branches: Q.
      next_position_b: int [B]; by default `lengths_b`.

    Returns:
      The cache, and bool [B]; False for a length out of its range.
    """
    batch, total_slots = keys_lbsgk.shape[1:3]
    capacity = (total_slots - num_slots) // num_branches
    is_valid_b = (0 <= lengths_b) & (lengths_b <= num_slots)
    if next_position_b is None:
      next_position_b = lengths_b
    cache = cls(
      keys_lbsgk,
      values_lbsgk,
      jnp.where(is_valid_b, lengths_b.astype(jnp.int32), _INVALID),
      next_position_b.astype(jnp.int32),
      num_slots + capacity * jnp.arange(num_branches, dtype=jnp.int32),
      jnp.zeros((batch, num_branches), jnp.int32),
    )
    return cache, is_valid_b

  @property
  def num_sequences(self) -> int:
    """R."""
    return self.lengths_bq.size

  def new_slots(self, num_new: int) -> NewSlots:
    """Slots of the next `num_new` tokens M of each sequence."""
    batch, num_branches = self.lengths_bq.shape
    steps_m = jnp.arange(num_new, dtype=jnp.int32)
    in_branch_bqm = self.lengths_bq[:, :, None] + steps_m[None, None, :]
    positions_bqm = self.next_position_b[:, None, None] + in_branch_bqm
    slots_bqm = self.starts_q[None, :, None] + in_branch_bqm
    # Tokens beyond a branch's capacity must not be written to the next branch,
    # nor tokens of an invalid branch, before its first slot, to the prompt.
    fits_bqm = (0 <= in_branch_bqm) & (
      in_branch_bqm < self._capacities_q[None, :, None]
    )
    slots_bqm = jnp.where(fits_bqm, slots_bqm, self._num_slots)
    visible_bqms = self._visible(slots_bqm)
    return NewSlots(
      positions_bqm.reshape(-1, num_new),
      slots_bqm.reshape(batch, -1),
      visible_bqms.reshape(batch, num_branches * num_new, -1),
    )

  def extended(
    self,
    keys_lbsgk: jax.Array,
    values_lbsgk: jax.Array,
    lengths_r: jax.Array,
    num_new: int,
  ) -> tuple[Self, jax.Array]:
    """The cache after new tokens, and which sequences are valid.

    A sequence becomes invalid permanently if its length is not from 0 to
    `num_new`, if it exceeds its branch's capacity, or if its prompt is invalid.

    Args:
      keys_lbsgk: all keys, the new ones in their slots.
      values_lbsgk: likewise.
      lengths_r: int [R], new tokens of each sequence.
      num_new: M.

    Returns:
      The cache, and bool [R].
    """
    lengths_bq = lengths_r.reshape(self.lengths_bq.shape).astype(jnp.int32)
    total_bq = self.lengths_bq + lengths_bq
    is_valid_bq = (0 <= lengths_bq) & (lengths_bq <= num_new)
    is_valid_bq &= (total_bq <= self._capacities_q[None]) & (
      self.lengths_bq >= 0
    )
    is_valid_bq &= self.prompt_lengths_b[:, None] >= 0
    cache = self._replace(
      keys_lbsgk=keys_lbsgk,
      values_lbsgk=values_lbsgk,
      lengths_bq=jnp.where(is_valid_bq, total_bq, _INVALID),
    )
    return cache, is_valid_bq.reshape(-1)

  @property
  def _num_slots(self) -> int:
    return self.keys_lbsgk.shape[2]

  @property
  def _capacities_q(self) -> jax.Array:
    return jnp.diff(self.starts_q, append=self._num_slots)

  def _visible(self, slots_bqm: jax.Array) -> jax.Array:
    """Bool [B, Q, M, S]: the prompt, and earlier tokens of the own branch."""
    slots_s = jnp.arange(self._num_slots, dtype=jnp.int32)
    is_past_bqms = slots_s[None, None, None] <= slots_bqm[..., None]
    is_own_qs = slots_s[None] >= self.starts_q[:, None]
    is_prompt_bs = slots_s[None] < self.prompt_lengths_b[:, None]
    own_bqms = is_past_bqms & is_own_qs[None, :, None, :]
    return own_bqms | is_prompt_bs[:, None, None, :]


def write(
  cached_lbsgk: jax.Array,
  new_bngk: jax.Array,
  layer: jax.Array,
  slots_bn: jax.Array,
) -> jax.Array:
  """The cache with new keys or values [B, N, G, K] of one layer written.

  Those beyond the last slot are dropped. Prompts are mapped, so that on a mesh
  each device writes its own.
  """

  def write_prompt(cached_lsgk, new_ngk, slots_n):
    return cached_lsgk.at[layer, slots_n].set(new_ngk, mode='drop')

  return constrain(
    jax.vmap(write_prompt, in_axes=(1, 0, 0), out_axes=1)(
      cached_lbsgk, new_bngk, slots_bn
    ),
    CACHE,
  )
