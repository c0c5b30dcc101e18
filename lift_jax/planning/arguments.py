"""Arguments of programs: shapes in the place of arrays."""

from collections.abc import Callable
from typing import Any

import jax

from lift_jax.data.video import ClipInfo
from lift_jax.models.critic_protocols import Frames
from lift_jax.models.critics import Critic

# Clips that critics see: those of CogVideoX.
CLIP = ClipInfo(num_frames=49, fps=8.0, height=480, width=720)


def array(shape, dtype, sharding) -> Any:
  """A `jax.ShapeDtypeStruct`, for use where a program takes an array."""
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def arrays(tree, shardings, dtype=None):
  """Shapes of a tree of parameters, in `dtype` or their own type."""
  return jax.tree.map(
    lambda leaf, place: array(leaf.shape, dtype or leaf.dtype, place),
    tree,
    shardings,
  )


def frames_of(
  critic: Critic,
  selection: Any,
  batch_size: int,
  sharding: jax.sharding.Sharding,
) -> Frames:
  """Frames of a batch of clips."""
  return jax.tree.map(
    lambda leaf: array((batch_size, *leaf.shape), leaf.dtype, sharding),
    critic.frames.shapes(selection),
  )


def lowering(mesh, jitted, *args, **kwargs) -> Callable[[], Any]:
  """What lowers a program for these arguments, on a mesh."""

  def lower():
    with jax.set_mesh(mesh):
      return jitted.lower(*args, **kwargs)

  return lower
