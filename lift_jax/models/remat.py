"""Stacked blocks, and what their backward pass finds stored.

The rest it computes again.

  none            keeps everything
  full            keeps what goes into a layer, and computes the layer again
  save_attention  keeps the results of attention too, the dearest part of a
                  layer at 17,776 tokens. cuDNN's kernel runs again all the
                  same: its backward pass needs more than the result
  offload         as save_attention, but they wait in the memory of the host
"""

from collections.abc import Callable
from typing import Any

import jax

# The name that `models.attention` gives its results.
ATTENTION = 'attention'

REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'save_attention': jax.checkpoint_policies.save_only_these_names(ATTENTION),
  'offload': jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=[ATTENTION],
    offload_src='device',
    offload_dst='pinned_host',
  ),
}

# Of stacks up to here every layer is compiled by itself: CPUs run the body of a
# loop a quarter slower. Published networks have more, and compile one body.
_MAX_UNROLLED = 8


def scan_layers(
  body: Callable[[Any, Any], tuple[Any, None]],
  carry: Any,
  layers: Any,
  remat: str = 'none',
) -> Any:
  """What a stack of layers makes of `carry`.

  Args:
    body: `body(carry, layer) -> (carry, None)`.
    carry: what goes through all layers.
    layers: tree of arrays with a leading layer axis.
    remat: name of one of `REMAT_POLICIES`.
  """
  policy = REMAT_POLICIES[remat]
  num_layers = jax.tree.leaves(layers)[0].shape[0]
  if policy is not None:
    # Inside a loop nothing can be merged back, so the barrier is not needed.
    body = jax.checkpoint(body, policy=policy, prevent_cse=False)
  unroll = policy is None and num_layers <= _MAX_UNROLLED
  carry, _ = jax.lax.scan(body, carry, layers, unroll=unroll)
  return carry
