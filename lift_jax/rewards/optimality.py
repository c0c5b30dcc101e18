"""How good a clip is among those of its prompt.

As in DiffusionNFT (arXiv 2509.16117),

  A = (r - mean of r over the clips of the prompt) / (std of r over all clips)
  p = clip(A / 5 / 2 + 1/2, 0, 1)

so p is 1/2 for a clip like the mean of its prompt, and 0 or 1 from five
standard deviations on.
"""

from collections.abc import Sequence

import numpy as np

# Standard deviations from the mean to an end of [0, 1].
_REACH = 5.0
_MIN_DEVIATION = 1e-4


def optimality(rewards: Sequence[float], captions: Sequence[str]) -> np.ndarray:
  """p of each clip, float64 [N].

  Args:
    rewards: of the clips [N].
    captions: their prompts [N].
  """
  reward_n = np.asarray(rewards, np.float64)
  _, group_n = np.unique(np.asarray(captions), return_inverse=True)
  mean_g = np.bincount(group_n, reward_n) / np.bincount(group_n)
  advantage_n = reward_n - mean_g[group_n]
  advantage_n /= np.std(reward_n) + _MIN_DEVIATION
  return np.clip(advantage_n / _REACH / 2 + 0.5, 0, 1)
