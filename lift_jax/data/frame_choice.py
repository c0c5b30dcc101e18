"""Which frames of a clip are used."""

from collections.abc import Sequence
import math

import numpy as np


def choose_frames(num_frames: int, max_frames: int = 49) -> list[int]:
  """Indices of the frames for training; their number is 4k + 1.

  As in the LiFT fine-tuning script (CogVideo/finetune/train.py): all frames if
  there are at most `max_frames`, else the first `max_frames` at a step of
  num_frames // max_frames, so clips of 50 to 97 frames are cut at the end.
  Surplus frames are dropped from the end to get 4k + 1, as the video
  autoencoder requires.

  Raises:
    ValueError: there is no frame.
  """
  if num_frames < 1 or max_frames < 1:
    raise ValueError(f'no choice of {max_frames} among {num_frames} frames')
  step = max(1, num_frames // max_frames)
  indices = list(range(0, num_frames, step)[:max_frames])
  num_dropped = (3 + len(indices) % 4) % 4
  return indices[: len(indices) - num_dropped]


def resample_indices(
  times: Sequence[float], fps: float, tick: float = 0.0
) -> list[int]:
  """Indices of the frame nearest to each time k / fps within the clip.

  Of two frames that are equally near, the later one is taken. Upsampling
  repeats frames.

  Args:
    times: when each frame is shown, in seconds; ascending.
    fps: frames per second of the result.
    tick: resolution of the times, in seconds. Two distances that differ by no
      more than that count as equal.

  Raises:
    ValueError: the rate is not finite and positive.
  """
  if not (math.isfinite(fps) and fps > 0):
    raise ValueError(f'frame rate {fps} is not a positive number')
  times_n = np.asarray(times) - times[0]
  # The margins keep the last frame, and ties, in spite of rounding errors.
  wanted_k = np.arange(math.floor((times_n[-1] + tick) * fps + 1e-6) + 1) / fps
  # The frame after the middle between two frames is the nearer one.
  middles = (times_n[1:] + times_n[:-1]) / 2 - tick / 2 - 1e-6 / fps
  return np.searchsorted(middles, wanted_k, side='right').tolist()


def is_variable(times: Sequence[float], tick: float) -> bool:
  """Whether frames are shown for different times.

  Differences of a tenth, or of the rounding of the times, do not count.

  Args:
    times: when each frame is shown, in seconds; ascending.
    tick: resolution of the times, in seconds.
  """
  if len(times) < 3:
    return False
  gaps = np.diff(times)
  return bool(np.ptp(gaps) > max(gaps.mean() / 10, 2.01 * tick))
