"""Soft rewards: how sure the critic is, from the first token of its answer.

An answer begins with its label, and the labels begin with different tokens. So
the logits of that one token hold the distribution over labels, of which the
text shows one draw. Its mean score tells apart videos that have the same label
and does not change from one draw to the next.
"""

# B any leading axes  V vocabulary  L labels  D dimensions

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lift_jax.data.hra import LABELS


class LabelBelief(NamedTuple):
  """What a critic is about to answer.

  Attributes:
    probabilities: float32 [B, L], of each label in the order of `LABELS`, if
      the answer begins with one; their sum is 1.
    mass: float32 [B], the probability that it does. If it is small, the model
      wants to write something else, and `probabilities` say little.
  """

  probabilities: jax.Array
  mass: jax.Array


def label_belief(
  logits_bv: jax.Array, label_ids: Mapping[str, int]
) -> LabelBelief:
  """The belief in each label: p(label) / sum of p over labels.

  Args:
    logits_bv: [B, V], of the first token of answers, in any float type.
    label_ids: the token of each label, all different, as from
      `tokens.label_ids`.
  """
  logits_bv = logits_bv.astype(jnp.float32)
  ids = jnp.array([label_ids[label] for label in LABELS])
  logits_bl = logits_bv[..., ids]
  # Two normalisations: by way of the vocabulary, labels that are all unlikely
  # would be 0 / 0.
  total_b = jax.nn.logsumexp(logits_bv, axis=-1)
  mass_b = jnp.exp(jax.nn.logsumexp(logits_bl, axis=-1) - total_b)
  return LabelBelief(jax.nn.softmax(logits_bl, axis=-1), mass_b)
