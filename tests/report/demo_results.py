"""Results of a demo as its page takes them, and a small page."""

import pathlib

import numpy as np

from lift_jax.data.rubric import Scale
from lift_jax.report import compare_page, demo_page
from lift_jax.report.compare_page import CompareContent, ComparePageConfig
from lift_jax.report.demo_page import (
  MODELS,
  DemoContent,
  ShownClip,
  ShownPrompt,
)
from lift_jax.rewards.weights import video_reward
from lift_jax.toyworld import checkers, flaws, scenes
from tests.report import comparison_results

EVIL = '</p><script>alert(1)</script><img src=x onerror=alert(2)> "\'&'


def estimate(value, half=None):
  if half is None:
    return {'value': value, 'low': None, 'high': None}
  return {'value': value, 'low': value - half, 'high': value + half}


def compared(base, model, before, after, half=0.05):
  """A comparison by the share of clips that are Good in all dimensions."""
  return comparison_results.comparison(
    comparison_results.row(
      'checkers_all',
      before,
      after,
      'better',
      half,
      title='all three Good',
      num_clips=364,
      num_prompts=182,
    ),
    base=base,
    model=model,
    decisive='checkers_all',
  )


def results():
  return {
    'seed': 0,
    'versions': {'python': '3.11.2', 'jax': '0.10.2'},
    'comparisons': [
      compared('plain', 'feedback', 0.213, 0.371),
      compared('base', 'feedback', 0.099, 0.371),
    ],
    'labels': {
      model: {
        name: {'Good': good, 'Normal': 0.9 - good, 'Bad': 0.1}
        for name in ('semantic', 'motion', 'fidelity')
      }
      for model, good in zip(MODELS, (0.4, 0.5, 0.7), strict=True)
    },
    'flaws': {
      'base': {'jitter': 0.15, 'noise': 0.1},
      'plain': {'jitter': 0.14, 'teleport': 0.12, 'background': 0.06},
      'feedback': {'jitter': 0.05, 'noise': 0.1, 'vanishing': 0.03},
    },
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
  values = {
    'results': results(), 'prompts': prompts, 'curves': curves,
    'configs': configs,
  } | changes  # fmt: skip
  page = compare_page.sections(
    CompareContent(
      comparison_results.result(*values['results']['comparisons']), [], []
    ),
    pathlib.Path('/nowhere'),
    ComparePageConfig(pairs=0, frames=1, frame_width=16, max_bytes=0, seed=0),
  )
  return DemoContent(**{'compared': page} | values)


def small_page(**changes):
  return demo_page.demo_page(content(1, **changes))
