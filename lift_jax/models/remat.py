"""What the backward pass of a block finds stored; the rest it computes again.

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
