"""Random ratings for tests."""

import numpy as np

from lift_jax.evaluation.comparison import Table


def random_table(
  seed: int = 0, num: int = 200, num_videos: int = 40, errors: float = 0.05
) -> Table:
  """Ratings by a critic that is often right and too sure of it."""
  rng = np.random.default_rng(seed)
  human_n = rng.choice(3, num, p=(0.2, 0.2, 0.6))
  logits_nk = rng.normal(0, 2, (num, 3)) + 2.5 * np.eye(3)[human_n]
  weights_nk = np.exp(logits_nk)
  probabilities_nk = weights_nk / weights_nk.sum(axis=1, keepdims=True)
  answer_n = probabilities_nk.argmax(axis=1)
  is_error_n = rng.random(num) < errors
  answer_n[is_error_n] = -1
  probabilities_nk[is_error_n] = np.nan
  video_n = rng.integers(num_videos, size=num)
  return Table(
    human_n=human_n,
    answer_n=answer_n,
    probabilities_nk=probabilities_nk,
    reward_n=probabilities_nk @ (0.05, 0.2, 0.9),
    video_n=video_n,
    caption_n=video_n // 2,
    dimension_n=rng.choice(('semantic', 'motion', 'fidelity'), num),
    num_videos=num_videos,
    num_classes=3,
  )
