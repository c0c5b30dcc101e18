"""Keys and values that a decoder keeps of what it has read.

A text can go on in several ways, such as three questions about one video. Each
of these branches sees the text and itself, and the text is kept once:

  places  0 ...   room 0 ...   room 1 ...   ...
  hold    text    branch 0     branch 1     ...

Rows of new tokens are texts x branches, those of a text side by side.

Legend: B texts, Q branches of each, R = B Q rows, M new tokens of a row, N = QM
those of a text, S places, L layers, G key heads, K width of a head.
"""

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

from lift_jax.models.llama.sharding import CACHE
from lift_jax.partitioning import constrain

# In place of the length of a row that cannot be: it goes on as NaN.
_UNSOUND = -1


class NewPlaces(NamedTuple):
  """Where new tokens go.

  Attributes:
    positions_rm: int32 [R, M], of each in what its row has read, from 0.
    places_bn: int32 [B, N], of each in the cache; beyond the last place what is
      to be dropped.
    seen_bns: bool [B, N, S], what each sees, itself among them.
  """

  positions_rm: jax.Array
  places_bn: jax.Array
  seen_bns: jax.Array


class Cache(NamedTuple):
  """What has been read of B texts and their branches.

  Places beyond a length mean nothing, and are overwritten.

  Attributes:
    keys_lbsgk: rotated keys [L, B, S, G, K], in the compute type.
    values_lbsgk: values [L, B, S, G, K].
    text_lengths_b: int32 [B], tokens of each text.
    starts_q: int32 [Q], first place of each branch.
    lengths_bq: int32 [B, Q], tokens of each branch.
  """

  keys_lbsgk: jax.Array
  values_lbsgk: jax.Array
  text_lengths_b: jax.Array
  starts_q: jax.Array
  lengths_bq: jax.Array

  @classmethod
  def of_texts(
    cls,
    keys_lbsgk: jax.Array,
    values_lbsgk: jax.Array,
    lengths_b: jax.Array,
    num_places: int,
    num_branches: int,
  ) -> tuple[Self, jax.Array]:
    """The cache of texts whose branches are empty, and what of it is sound.

    Args:
      keys_lbsgk: the texts' at their places.
      values_lbsgk: likewise.
      lengths_b: int [B], 0 to `num_places`.
      num_places: that texts may take; the rest is the branches'.
      num_branches: Q.

    Returns:
      The cache, and bool [B]; False for a length out of its range.
    """
    batch, places = keys_lbsgk.shape[1:3]
    room = (places - num_places) // num_branches
    is_sound_b = (0 <= lengths_b) & (lengths_b <= num_places)
    cache = cls(
      keys_lbsgk,
      values_lbsgk,
      jnp.where(is_sound_b, lengths_b.astype(jnp.int32), _UNSOUND),
      num_places + room * jnp.arange(num_branches, dtype=jnp.int32),
      jnp.zeros((batch, num_branches), jnp.int32),
    )
    return cache, is_sound_b

  @property
  def num_rows(self) -> int:
    """R."""
    return self.lengths_bq.size

  def new_places(self, num_new: int) -> NewPlaces:
    """Of the next `num_new` tokens M of each row."""
    batch, num_branches = self.lengths_bq.shape
    steps_m = jnp.arange(num_new, dtype=jnp.int32)
    in_branch_bqm = self.lengths_bq[:, :, None] + steps_m[None, None, :]
    positions_bqm = self.text_lengths_b[:, None, None] + in_branch_bqm
    places_bqm = self.starts_q[None, :, None] + in_branch_bqm
    # What a branch has no room for must not get into the next, nor what an
    # unsound one reads before its first place into the text.
    fits_bqm = (0 <= in_branch_bqm) & (
      in_branch_bqm < self._rooms_q[None, :, None]
    )
    places_bqm = jnp.where(fits_bqm, places_bqm, self._num_places)
    seen_bqms = self._seen(places_bqm)
    return NewPlaces(
      positions_bqm.reshape(-1, num_new),
      places_bqm.reshape(batch, -1),
      seen_bqms.reshape(batch, num_branches * num_new, -1),
    )

  def extended(
    self,
    keys_lbsgk: jax.Array,
    values_lbsgk: jax.Array,
    lengths_r: jax.Array,
    num_new: int,
  ) -> tuple[Self, jax.Array]:
    """With `lengths_r` of `num_new` new tokens written, and what is sound.

    A row is not, and stays so, if its length is not from 0 to `num_new`, if its
    branch has no room for it, or if its text was not.

    Args:
      keys_lbsgk: all keys, the new ones at their places.
      values_lbsgk: likewise.
      lengths_r: int [R].
      num_new: M.

    Returns:
      The cache, and bool [R].
    """
    lengths_bq = lengths_r.reshape(self.lengths_bq.shape).astype(jnp.int32)
    total_bq = self.lengths_bq + lengths_bq
    is_sound_bq = (0 <= lengths_bq) & (lengths_bq <= num_new)
    is_sound_bq &= (total_bq <= self._rooms_q[None]) & (self.lengths_bq >= 0)
    is_sound_bq &= self.text_lengths_b[:, None] >= 0
    cache = self._replace(
      keys_lbsgk=keys_lbsgk,
      values_lbsgk=values_lbsgk,
      lengths_bq=jnp.where(is_sound_bq, total_bq, _UNSOUND),
    )
    return cache, is_sound_bq.reshape(-1)

  @property
  def _num_places(self) -> int:
    return self.keys_lbsgk.shape[2]

  @property
  def _rooms_q(self) -> jax.Array:
    return jnp.diff(self.starts_q, append=self._num_places)

  def _seen(self, places_bqm: jax.Array) -> jax.Array:
    """The text, and of the own branch what does not come later."""
    places_s = jnp.arange(self._num_places, dtype=jnp.int32)
    is_past_bqms = places_s[None, None, None] <= places_bqm[..., None]
    is_own_qs = places_s[None] >= self.starts_q[:, None]
    is_text_bs = places_s[None] < self.text_lengths_b[:, None]
    own_bqms = is_past_bqms & is_own_qs[None, :, None, :]
    return own_bqms | is_text_bs[:, None, None, :]


def write(
  cached_lbsgk: jax.Array,
  new_bngk: jax.Array,
  layer: jax.Array,
  places_bn: jax.Array,
) -> jax.Array:
  """With new keys or values [B, N, G, K] of one layer at their places.

  Those beyond the last place are dropped. Texts are mapped, so that on a mesh
  each device writes its own.
  """

  def write_text(cached_lsgk, new_ngk, places_n):
    return cached_lsgk.at[layer, places_n].set(new_ngk, mode='drop')

  return constrain(
    jax.vmap(write_text, in_axes=(1, 0, 0), out_axes=1)(
      cached_lbsgk, new_bngk, places_bn
    ),
    CACHE,
  )
