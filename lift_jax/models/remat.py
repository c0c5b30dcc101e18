"""Running stacked layers, and rematerialisation policies.

The policies by name:

  none            saves all activations for the backward pass
  full            saves the input of each layer, and recomputes the rest
  save_attention  saves the results of attention too, the most expensive part of
                  a layer at 17,776 tokens
  offload         as save_attention, but offloads them to host memory
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

# The checkpoint name of the results of `models.attention`.
ATTENTION = 'attention'

# JAX's primitive of cuDNN's forward pass. It returns the log-sum-exp of the
# scores too, which the backward pass needs and which no name can be given to.
_CUDNN_FORWARD = 'dot_product_attention_fwd_wrapper'


def _and_cudnn(policy: Callable[..., Any]) -> Callable[..., Any]:
  """`policy`, with cuDNN's results treated as those named `ATTENTION`."""

  def policy_of(primitive, *args, **params):
    if primitive.name == _CUDNN_FORWARD:
      name = jax.make_jaxpr(lambda x: checkpoint_name(x, ATTENTION))(0.0).eqns[
        0
      ]
      return policy(name.primitive, **name.params)
    return policy(primitive, *args, **params)

  return policy_of


REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'save_attention': _and_cudnn(
    jax.checkpoint_policies.save_only_these_names(ATTENTION)
  ),
  'offload': _and_cudnn(
    jax.checkpoint_policies.save_and_offload_only_these_names(
      names_which_can_be_saved=[],
      names_which_can_be_offloaded=[ATTENTION],
      offload_src='device',
      offload_dst='pinned_host',
    )
  ),
}

# Stacks of up to so many layers are unrolled, as CPUs run the body of a loop a
# quarter slower. Published networks have more layers, and compile one body.
_MAX_UNROLLED = 8


def scan_layers(
  body: Callable[[Any, Any], tuple[Any, None]],
  carry: Any,
  layers: Any,
  remat: str = 'none',
) -> Any:
  """Applies a stack of layers to `carry`.

  Args:
    body: `body(carry, layer) -> (carry, None)`.
    carry: input of the first layer.
    layers: tree of arrays with a leading layer axis.
    remat: name of one of `REMAT_POLICIES`.
  """
  policy = REMAT_POLICIES[remat]
  num_layers = jax.tree.leaves(layers)[0].shape[0]
  if policy is not None:
    # In a scan, CSE cannot undo the recomputation, so no barrier is needed.
    body = jax.checkpoint(body, policy=policy, prevent_cse=False)
  unroll = policy is None and num_layers <= _MAX_UNROLLED
  carry, _ = jax.lax.scan(body, carry, layers, unroll=unroll)
  return carry
