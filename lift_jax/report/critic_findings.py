"""Findings of a critic's evaluation, in sentences."""

from lift_jax.evaluation.calibration import TEMPERATURES
from lift_jax.evaluation.critic_evaluation import Tree
from lift_jax.report import critic_table
from lift_jax.report.formatting import (
  by_interval,
  decimal,
  percentage,
  with_interval,
)


def findings(result: Tree) -> list[str]:
  """Sentences with the numbers and intervals that support them."""
  overall = result['all']
  agreement = overall['agreement']
  gain = agreement['gain']
  lines = [
    f'The critic agrees with the annotators in '
    f'{with_interval(agreement["accuracy"])} of ratings. The majority-label '
    f'baseline, which always predicts {overall["majority"]}, agrees in '
    f'{with_interval(agreement["baseline_accuracy"])}'
    + by_interval(
      gain,
      '; the critic is better.',
      '; the critic is worse.',
      '; the difference is not significant.',
    )
  ]
  by_accuracy = sorted(
    result['dimensions'],
    key=lambda name: result['dimensions'][name]['agreement']['accuracy'][
      'value'
    ],
  )
  if len(by_accuracy) > 1:
    low, high = (
      result['dimensions'][name]['agreement']['accuracy']
      for name in (by_accuracy[0], by_accuracy[-1])
    )
    lines.append(
      f'Its accuracy is lowest in {by_accuracy[0]} ({percentage(low)}) and '
      f'highest in {by_accuracy[-1]} ({percentage(high)}).'
    )
  lines += _about_confidence(overall['calibration'])
  lines += [
    f'The temperature of {name} is {decimal(temperature)}, a limit of the '
    'search range: there are too few calibration ratings, or the confidence is '
    'uninformative.'
    for name, temperature in result['temperatures'].items()
    if temperature in TEMPERATURES
  ]
  ranking = critic_table.main_reward(result)
  if ranking:
    lines += _about_ranking(ranking)
  if overall['errors']:
    lines.append(
      f'It gave no answer for {overall["errors"]:,} of {overall["ratings"]:,} '
      'ratings; these count as wrong.'
    )
  return lines


def _about_confidence(calibration: Tree | None) -> list[str]:
  if calibration is None:
    return ['It gives no probabilities, so its calibration cannot be measured.']
  before, after = calibration['before'], calibration['after']
  excess = before['overconfidence']
  amount = f'{abs(100 * excess["value"]):.1f} points'
  line = by_interval(
    excess,
    f'It is overconfident: its mean confidence is {amount} above its accuracy',
    f'It is underconfident: its mean confidence is {amount} below its accuracy',
    'Its mean confidence is about equal to its accuracy',
  )
  if after is not None:
    line += (
      '. Temperature scaling changes the expected calibration error (ECE) from '
      f'{percentage(before["ece"])} to {percentage(after["ece"])}'
    )
  return [line + '.']


def _about_ranking(ranking: Tree) -> list[str]:
  pairs = ranking['pairs']
  correct = pairs['without_ties']
  if correct['value'] is None:
    return []
  prompts = 'the same prompt' if pairs['same_prompt'] else 'any two prompts'
  chance = by_interval(
    {key: value and value - 0.5 for key, value in correct.items()},
    '', ' (worse than chance)', ' (not significantly different from chance)',
  )  # fmt: skip
  return [
    f'Among pairs of videos of {prompts} that annotators rate differently, its '
    f'reward is higher for the better video in {with_interval(correct)}'
    f'{chance}.'
  ]
