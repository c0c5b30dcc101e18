"""Results of a demo as its page takes them, and a small page."""

import numpy as np

from lift_jax.data.rubric import Scale
from lift_jax.report import demo_page
from lift_jax.report.demo_page import (
  MODELS,
  DemoContent,
  ShownClip,
  ShownPrompt,
)
from lift_jax.rewards.weights import video_reward
from lift_jax.toyworld import checkers, flaws, scenes

EVIL = '</p><script>alert(1)</script><img src=x onerror=alert(2)> "\'&'


def estimate(value, half=None):
  if half is None:
    return {'value': value, 'low': None, 'high': None}
  return {'value': value, 'low': value - half, 'high': value + half}


def change(before, after, half=0.05):
  return {
    'before': estimate(before, half),
    'after': estimate(after, half),
    'difference': estimate(after - before, half),
  }


def comparison():
  return {
    'num_videos': 364,
    'num_prompts': 182,
    'bootstrap': {'draws': 100, 'coverage': 0.95, 'seed': 0},
    'rates': {
      'semantic': change(0.512, 0.653), 'motion': change(0.481, 0.702),
      'fidelity': change(0.624, 0.63), 'all': change(0.213, 0.371),
    },
    'labels': {
      'before': {
        'semantic': {'Good': 0.512, 'Normal': 0.2, 'Bad': 0.288},
        'motion': {'Good': 0.481, 'Normal': 0.469, 'Bad': 0.05},
        'fidelity': {'Good': 0.624, 'Normal': 0.376, 'Bad': 0.0},
      },
      'after': {
        'semantic': {'Good': 0.653, 'Normal': 0.2, 'Bad': 0.147},
        'motion': {'Good': 0.702, 'Normal': 0.248, 'Bad': 0.05},
        'fidelity': {'Good': 0.63, 'Normal': 0.3, 'Bad': 0.07},
      },
    },
    'flaws': {
      'before': {
        'jitter': 0.14, 'teleport': 0.12, 'freeze': 0.09, 'drop': 0.11,
        'noise': 0.13, 'blur': 0.12, 'hole': 0.04, 'deformation': 0.08,
        'background': 0.06,
      },
      'after': {'jitter': 0.05, 'freeze': 0.02, 'noise': 0.1,
                'vanishing': 0.03},
    },
    'reward': change(0.507, 0.634, 0.02),
    'speed': change(0.051, 0.048, 0.004),
    'static_share': change(0.043, 0.044, 0.02),
  }  # fmt: skip


def from_base():
  """Of the base model with that of feedback."""
  compared = comparison()
  compared['rates']['all'] = change(0.099, 0.371)
  compared['rates']['motion'] = change(0.404, 0.702)
  compared['reward'] = change(0.459, 0.634, 0.02)
  return compared


def results():
  return {
    'seed': 0,
    'versions': {'python': '3.11.2', 'jax': '0.10.2'},
    'comparison': comparison(),
    'from_base': from_base(),
    'critic': {
      name: {'accuracy': estimate(accuracy, 0.03),
             'macro_f1': estimate(accuracy - 0.04, 0.04),
             'ece': estimate(0.043, 0.02)}
      for name, accuracy in (('semantic', 0.871), ('motion', 0.803),
                             ('fidelity', 0.912), ('all', 0.862))
    },
    'counts': {'scored_prompts': 160, 'real_kind': 'filmed'},
    'seconds': {'sample': 61.2, 'train_critic': 125.0, 'align': 183.9},
    'peak_memory_gib': 2.14,
  }  # fmt: skip


def shown(asked, rng):
  frames_thw3 = flaws.draw_clip(asked, rng).frames_thw3
  verdicts = checkers.check(asked.caption, frames_thw3)
  labels = {name: verdict.label for name, verdict in verdicts.items()}
  rationales = {name: verdict.rationale for name, verdict in verdicts.items()}
  reward = video_reward(labels, Scale())
  return ShownClip(frames_thw3, labels, rationales, reward)


def content(num_prompts=2, **changes):
  rng = np.random.default_rng(0)
  prompts = [
    ShownPrompt(asked.caption, {model: shown(asked, rng) for model in MODELS})
    for asked in scenes.held_out_scenes()[: 7 * num_prompts : 7]
  ]
  step = np.arange(200)
  loss = np.exp(-step / 60) + 0.1 * rng.normal(size=200)
  curves = {
    'train_critic': {'loss': [(8 * i, 1.0 / (i + 1)) for i in range(20)]},
    'align': {
      'loss': list(zip(step.tolist(), loss.tolist(), strict=True)),
      'learning_rate': [(i, 1e-4) for i in range(200)],
      'grad_norm': [(0, 1.0), (1, float('nan')), (2, 1.5)],
    },
  }
  configs = {'align': {'seed': 0, 'run': {'steps': 200}}}
  return DemoContent(
    **{
      'results': results(), 'prompts': prompts, 'curves': curves,
      'configs': configs,
    } | changes
  )  # fmt: skip


def small_page(**changes):
  return demo_page.demo_page(content(1, **changes))
