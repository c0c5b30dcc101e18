"""Soft rewards: expected scores under the critic's distribution over labels.

An answer begins with its label, and the labels begin with different tokens. So
the logits of the first token give the distribution over labels, of which the
text is one sample. The expected score distinguishes videos with the same label
and has no sampling noise.
"""

# B any leading axes  V vocabulary  L labels  D dimensions

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp


class LabelDistribution(NamedTuple):
  """A critic's distribution over the labels.

  Attributes:
    probabilities: float32 [B, L], of each label in the order given, given
      that the answer begins with a label; they sum to 1.
    mass: float32 [B], the probability that the answer begins with a label. If
      it is small, `probabilities` say little.
  """

  probabilities: jax.Array
  mass: jax.Array


def label_distribution(
  logits_bv: jax.Array, label_ids: Mapping[str, int]
) -> LabelDistribution:
  """The distribution over labels: p(label) / sum of p over labels.

  Args:
    logits_bv: [B, V], of the first token of answers, in any float type.
    label_ids: the first token of each label, all different; in the order of
      the probabilities.
  """
  logits_bv = logits_bv.astype(jnp.float32)
  ids = jnp.array(list(label_ids.values()))
  logits_bl = logits_bv[..., ids]
  # Normalised twice: from probabilities over the vocabulary, labels that are
  # all unlikely would give 0 / 0.
  total_b = jax.nn.logsumexp(logits_bv, axis=-1)
  mass_b = jnp.exp(jax.nn.logsumexp(logits_bl, axis=-1) - total_b)
  return LabelDistribution(jax.nn.softmax(logits_bl, axis=-1), mass_b)
