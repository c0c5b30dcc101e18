"""What each way to fine-tune makes of the same clips, in the toy world.

  python benchmarks/objectives.py --workdir=DIR [--seeds=0,1,2] \
    [--only=hard,plain] [--config.SECTION.FIELD=VALUE ...]

For every seed it runs `lift demo` as far as the scores (a folder of a demo will
do) and then fine-tunes the same model with each objective, for the same number
of steps on batches of the same size:

  base       not at all
  plain      every clip counts alike, generated ones and clean ones
  real       clean clips alone
  rejection  generated clips that the critic calls Good in all, and clean ones
  hard       weights by the labels of the critic: LiFT, and `lift demo`
  soft       weights by its expected rewards
  true       weights by the labels of the checkers, who know the truth
  no_real    as `hard`, without clean clips

Prints a table for docs/evidence.md: share of clips of held-out prompts that the
checkers call Good, and the difference to `base` with its paired 95% interval.
Then how far critics are right that learn ratings with their reasons, as in the
demo, and without. Both start from the critic that comes with the package, which
gives reasons. Everything is kept in DIR; the same command again goes on. With
--only of plain, real and true no critic is trained: these need none.
"""

import argparse
import pathlib
from typing import Any

from lift_jax.cli import job_flags
from lift_jax.data import video
from lift_jax.data.hra import DIMENSIONS
from lift_jax.jobs import demo as demo_job
from lift_jax.jobs import demo_config
from lift_jax.jobs.demo_config import DemoConfig
from lift_jax.jobs.demo_stages import Demo
from lift_jax.rewards.weights import RewardMap, video_reward
from lift_jax.runtime import distributed
from lift_jax.runtime.files import write_json
from lift_jax.toyworld import checkers, judge, weights

# Ends of the names of stages, and settings of `lift train_critic`.
_CRITICS = {
  'with reasons': ('', {}),
  'without': ('_labels', {'data.with_rationale': False}),
}
# The record's score, and settings that differ from those of the demo.
_OBJECTIVES = ('plain', 'real', 'rejection', 'hard', 'soft', 'true', 'no_real')
_WITHOUT_CRITIC = ('plain', 'real', 'true')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--only', default=','.join(_OBJECTIVES))
  parser.add_argument('--config', default=demo_config.__file__)
  flags, overrides = parser.parse_known_args()
  names = [name for name in _OBJECTIVES if name in flags.only.split(',')]
  logger = distributed.start_logging()
  job_flags.use_compilation_cache()
  results = {}
  for seed in map(int, flags.seeds.split(',')):
    call = job_flags.parse(
      [
        f'--config={flags.config}',
        f'--workdir={flags.workdir / f"seed_{seed}"}',
        f'--config.seed={seed}',
        *overrides,
      ],
      DemoConfig,
      'demo',
    )
    results[seed] = _compare(call, names, logger)
    write_json(flags.workdir / 'objectives.json', results)
  print('\n'.join(markdown(results)))


def _compare(call, names, logger) -> dict[str, Any]:
  """All objectives for one seed."""
  asked = {} if set(names) <= set(_WITHOUT_CRITIC) else _CRITICS
  stages = (
    'sample',
    'annotate',
    *(
      f'{stage}{variant}'
      for variant, _ in asked.values()
      for stage in ('train_critic', 'score', 'evaluate')
    ),
    'before',
    *(stage for name in names for stage in _stages_of(name)),
  )
  demo = Demo(call, stages, logger)
  model = weights.T2V
  demo.sample_training(model)
  demo.annotate()
  critics = {}
  for name, (variant, settings) in asked.items():
    demo.train_critic(weights.CRITIC, variant, settings)
    demo.score(variant)
    critics[name] = demo_job.critic_numbers(demo.evaluate_critic(variant))
  demo.sample_held_out(model, 'before')
  before = demo.judge('before')
  compared = {}
  for name in names:
    align, after = _stages_of(name)
    records, settings = _objective(demo, name)
    aligned = demo.align(model, records, align, settings)
    demo.sample_held_out(aligned, after)
    compared[name] = judge.compare(
      before, demo.judge(after), call.config.bootstrap
    )
  return {
    'versions': demo_job.versions(),
    'critics': critics,
    'objectives': compared,
    'seconds': demo.seconds(),
  }


def _stages_of(name: str) -> tuple[str, str]:
  """That of the demo is not run twice."""
  return ('align', 'after') if name == 'hard' else (f'align_{name}', name)


def _objective(
  demo: Demo, name: str
) -> tuple[list[dict[str, Any]] | None, dict[str, Any]]:
  """Records with the scores of an objective, and settings of `lift align`."""
  if name == 'hard':
    return None, {}
  if name == 'no_real':
    return demo.scored_clips(), {'data.real': ()}
  if name == 'real':
    return [], {'data.synthetic': ()}
  records = (
    demo.unrated_clips() if name in _WITHOUT_CRITIC else demo.scored_clips()
  )
  if name == 'rejection':
    records = [r for r in records if set(r['labels'].values()) == {'Good'}]
  score = {
    'plain': lambda record: 1.0,
    'rejection': lambda record: 1.0,
    'soft': lambda record: record['soft_reward'],
    'true': lambda record: _true_reward(demo.clips, record),
  }[name]
  return [record | {'score': score(record)} for record in records], {}


def _true_reward(root: pathlib.Path, record: dict[str, Any]) -> float:
  path = root / record['video']
  frames = video.decode(path, where=record['video']).frames
  verdicts = checkers.check(record['caption'], frames)
  labels = {name: verdict.label for name, verdict in verdicts.items()}
  return video_reward(labels, RewardMap())


def markdown(results: dict[int, dict[str, Any]]) -> list[str]:
  """The tables, by seed."""
  lines = []
  for seed, result in results.items():
    compared = result['objectives']
    some = next(iter(compared.values()))
    lines += [
      '',
      f'Seed {seed}, {some["num_videos"]} clips of {some["num_prompts"]} '
      'prompts.',
      '',
      '| objective | all three Good, % | against base | semantic | motion '
      '| fidelity | reward | speed | static, % |',
      '|---|---|---|---|---|---|---|---|---|',
      _row('base', some, 'before'),
      *(_row(name, value, 'after') for name, value in compared.items()),
    ]
    if result['critics']:
      lines += [
        '',
        '| critic | dimension | accuracy, % | macro-F1, % | ECE, % |',
        '|---|---|---|---|---|',
      ]
    for name, numbers in result['critics'].items():
      for dimension in (*DIMENSIONS, 'all'):
        cells = [
          _percent(numbers[dimension][key], with_interval=True)
          for key in ('accuracy', 'macro_f1', 'ece')
        ]
        lines.append(f'| {name} | {dimension} | {" | ".join(cells)} |')
  return lines


def _row(name: str, compared: dict[str, Any], which: str) -> str:
  rates = compared['rates']
  difference = ''
  if which == 'after':
    difference = _percent(rates['all']['difference'], with_interval=True)
  cells = [
    name,
    _percent(rates['all'][which]),
    difference,
    *(_percent(rates[dimension][which]) for dimension in DIMENSIONS),
    f'{compared["reward"][which]["value"]:.3f}',
    f'{compared["speed"][which]["value"]:.4f}',
    _percent(compared['static_share'][which]),
  ]
  return f'| {" | ".join(cells)} |'


def _percent(estimate: dict[str, float], with_interval: bool = False) -> str:
  text = f'{100 * estimate["value"]:.1f}'
  if not with_interval:
    return text
  return f'{text} [{100 * estimate["low"]:.1f}, {100 * estimate["high"]:.1f}]'


if __name__ == '__main__':
  main()
