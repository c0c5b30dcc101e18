"""Frame selections for tokenizers that only count frames."""

from lift_jax.models.critics import FrameSelection


def first_frames(count: int) -> FrameSelection:
  """The first frames of a clip, for which no room is reserved."""
  return FrameSelection(tuple(range(count)), num_positions=0, is_short=False)
