"""What the evaluation of a critic comes to, in sentences."""

from lift_jax.evaluation.calibration import TEMPERATURES
from lift_jax.evaluation.critic_evaluation import Tree
from lift_jax.report import critic_table
from lift_jax.report.formatting import (
  decimal,
  percentage,
  verdict,
  with_interval,
)


def findings(result: Tree) -> list[str]:
  """Sentences, each with the numbers and intervals that it rests on."""
  whole = result['all']
  agreement = whole['agreement']
  gain = agreement['gain']
  lines = [
    f'It agrees with people in {with_interval(agreement["accuracy"])} of '
    f'ratings. Always saying {whole["majority"]} would agree in '
    f'{with_interval(agreement["baseline_accuracy"])}'
    + verdict(gain, '; it is better than that', '; it is worse than that',
               '; whether it is better than that is open') + '.'
  ]  # fmt: skip
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
      f'It is weakest on {by_accuracy[0]} ({percentage(low)}) and best on '
      f'{by_accuracy[-1]} ({percentage(high)}).'
    )
  lines += _about_confidence(whole['calibration'])
  lines += [
    f'The temperature of {name} is {decimal(temperature)}, an end of the range '
    'that is searched: too little is set aside, or the confidence means '
    'nothing.'
    for name, temperature in result['temperatures'].items()
    if temperature in TEMPERATURES
  ]
  ranking = critic_table.main_reward(result)
  if ranking:
    lines += _about_order(ranking)
  if whole['errors']:
    lines.append(
      f'It gave no answer to {whole["errors"]:,} of {whole["ratings"]:,} '
      'ratings; they count as wrong.'
    )
  return lines


def _about_confidence(calibration: Tree | None) -> list[str]:
  if calibration is None:
    return ['It gives no probabilities, so its confidence cannot be judged.']
  before, after = calibration['before'], calibration['after']
  excess = before['overconfidence']
  amount = f'{abs(100 * excess["value"]):.1f} points'
  line = 'Its confidence ' + verdict(
    excess,
    f'is {amount} higher than the share that is right',
    f'is {amount} lower than the share that is right',
    'is on average about the share that is right',
  )
  if after is not None:
    line += (
      f'. A temperature takes the calibration error (ECE) from '
      f'{percentage(before["ece"])} to {percentage(after["ece"])}'
    )
  return [line + '.']


def _about_order(ranking: Tree) -> list[str]:
  pairs = ranking['pairs']
  right = pairs['without_ties']
  if right['value'] is None:
    return []
  of = 'the same prompt' if pairs['same_prompt'] else 'any two prompts'
  chance = verdict(
    {key: value and value - 0.5 for key, value in right.items()},
    '', ' (worse than a coin)', ' (a coin would do as well)',
  )  # fmt: skip
  return [
    f'Of two videos of {of} that people rate differently, its reward is '
    f'higher for the better one in {with_interval(right)} of pairs{chance}.'
  ]
