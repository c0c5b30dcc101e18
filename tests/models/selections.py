"""Frame selections for tokenizers that only count frames."""

from lift_jax.models.critic_protocols import FrameSelection


def first_frames(count: int) -> FrameSelection:
  """The first frames of a clip, without reserved token positions."""
  return FrameSelection(tuple(range(count)), num_positions=0, is_short=False)
