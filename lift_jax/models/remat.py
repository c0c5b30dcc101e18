"""Stacked blocks, and what their backward pass finds stored.

The rest it computes again.

A block names the output of its attention 'attention' (`checkpoint_name`).
"""

from collections.abc import Callable
from typing import Any

import jax

REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'save_attention': jax.checkpoint_policies.save_only_these_names('attention'),
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
