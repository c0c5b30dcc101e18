"""Small files of human feedback for tests."""

import pathlib

from lift_jax.data.critic_examples import CriticDataConfig
from lift_jax.data.critic_records import SplitConfig

QUESTIONS = {
  'semantic': ' Does this video show what the text says? Name what is missing '
  'or wrong, and judge the semantic match.',
  'motion': ' Does everything move as it would? Judge the motion.',
  'fidelity': ' Does this video look real? Judge the fidelity.',
}

# Three that end alike, as questions that say how to answer do.
ALIKE = [
  f' How good is the {what} of this video? Answer with Good, Normal or Bad, '
  'and then give your reason.'
  for what in ('motion', 'fidelity', 'semantic match')
]
CAPTIONS = (
  'A crane stands in a pond.',
  'A panda wipes a panel in a space suit.',
  'Slow motion: rain falls on a tin roof!',
  'Leaves drift over a pond.',
)


def entry(video: str, caption: str, dimension: str, answer: str):
  """One entry in the published schema."""
  question = QUESTIONS[dimension]
  return {
    'video': video,
    'conversations': [
      {'from': 'human', 'value': f'<video>\n {caption}{question}'},
      {'from': 'gpt', 'value': answer},
    ],
  }


def split(**changes) -> SplitConfig:
  """All records are for training, unless changed."""
  settings = {'validation': 0.0, 'test': 0.0, 'seed': 0, 'by_content': False}
  return SplitConfig(**(settings | changes))


def config(root: pathlib.Path, **changes) -> CriticDataConfig:
  """The settings of the reference for hra.json, with changes."""
  settings = {
    'root': str(root),
    'hra': ('hra.json',),
    'real': (),
    'held_out': (),
    'questions': '',
    'on_bad_record': 'error',
    'follow_links': 'hub',
    'split': split(),
    'real_share': None,
    'with_rationale': True,
    'label_weight': 'none',
    'text_buckets': (160, 320),
    'num_threads': 2,
  }
  return CriticDataConfig(**(settings | changes))
