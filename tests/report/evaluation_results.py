"""Results of evaluating a critic as its page takes them, and a small page."""

import dataclasses

from lift_jax.data.rubric import Scale
from lift_jax.evaluation import critic_evaluation
from lift_jax.report import critic_page
from lift_jax.report.critic_page import PageConfig
from tests.evaluation.ratings import config, ratings

SHOWN = PageConfig(worst=3, frames=4, frame_width=48)


def result_of(evaluated, aside=(), **more):
  metrics = config()
  return {
    'synthetic': False,
    'critic': 'c',
    'settings': {'metrics': dataclasses.asdict(metrics)},
    'counts': {'ratings_aside': len(aside)},
    'preferences': None,
    'critics': None,
    **critic_evaluation.evaluate(evaluated, aside, Scale(), metrics),
    'left_out': {
      'rated_not_scored': [], 'scored_not_rated': [], 'errors': [],
      'skipped': [],
    },
  } | more  # fmt: skip


def small_page() -> str:
  return critic_page.critic_page(
    result_of(ratings(0, 6)), critic_evaluation.worst(ratings(0), 2), SHOWN
  )
