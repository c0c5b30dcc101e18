"""Guards against reward hacking: numbers of a model that must not get worse.

A model that is trained on a critic's rewards learns to please the critic. Signs
that it does nothing else: another critic disagrees, clips stand still, the
clips of a prompt become alike, the network is far from where it began.

Clips of all models have the same prompts and noise, so differences are paired:
the bootstrap resamples prompts for both models at once.

P prompts, D resamples.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib

import numpy as np

from lift_jax.errors import UserError
from lift_jax.evaluation import bootstrap as bootstrap_lib
from lift_jax.evaluation.bootstrap import BootstrapConfig, Estimate
from lift_jax.runtime import storage
from lift_jax.runtime.files import parse_json

REWARD, HELD_OUT = 'reward', 'held_out_reward'
DIFFERENCE, STATIC = 'frame_difference', 'static_share'
DIVERSITY, ANCHOR = 'diversity', 'anchor_distance'
ACCURACY, WINNER = 'implicit_accuracy', 'winner_change'

# By metric and prompt, the mean over the clips of the prompt.
Measured = Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class StopRules:
  """When a round has failed; None switches a rule off.

  A loss counts as one only if its interval excludes zero, too.

  Attributes:
    held_out_falls: whether it has failed if the reward of the held-out critic
      falls, its interval below zero, while that of the training critic rises;
      both since the last good round.
    max_motion_loss: of the mean frame difference, relative to base.
    max_motion_rise: likewise; clips that flicker or jump please a critic, too.
    max_static_rise: of the share of static clips, since base.
    max_diversity_loss: of the distance of clips of a prompt, relative to base.
    max_anchor_distance: mean squared distance of velocities to those of base.
    max_implicit_accuracy: on held-out pairs, at the end of training.
    max_winner_change: error of winners minus that of the reference; it has
      failed if all of the last `winner_window` logged values are above this.
    winner_window: see `max_winner_change`.
    bootstrap: of the intervals.
  """

  held_out_falls: bool
  max_motion_loss: float | None
  max_motion_rise: float | None
  max_static_rise: float | None
  max_diversity_loss: float | None
  max_anchor_distance: float | None
  max_implicit_accuracy: float | None
  max_winner_change: float | None
  winner_window: int
  bootstrap: BootstrapConfig

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, int | float) and not isinstance(value, bool):
        if value <= 0:
          raise UserError(
            f'guards.rules.{field.name} is {value}; give a number above 0, or '
            'None for no such rule'
          )


@dataclasses.dataclass(frozen=True)
class Training:
  """What the metrics of a training run say.

  Attributes:
    implicit_accuracy: on held-out pairs, the last one; None if there is none.
    winner_change: error of winners minus that of the reference, all logged
      values; empty for objectives without pairs.
  """

  implicit_accuracy: float | None
  winner_change: Sequence[float]


def read_training(path: pathlib.Path) -> Training:
  """Reads the metrics.jsonl of a run of `lift align`."""
  lines = [parse_json(line) for line in storage.read_text(path).splitlines()]

  def values(name: str) -> list[float]:
    return [line[name] for line in lines if line.get(name) is not None]

  accuracy = values(f'held_out/{ACCURACY}')
  return Training(accuracy[-1] if accuracy else None, values(WINNER))


@dataclasses.dataclass(frozen=True)
class Guard:
  """A guarded number.

  Attributes:
    name: of the number.
    value: with its interval, where it has one.
    since: what it is compared with: 'base', 'last good round' or ''.
    lowest: what it may be at least, or None.
    highest: what it may be at most, or None.
    broken: why the round has failed, in a sentence; '' if it has not.
  """

  name: str
  value: Estimate
  since: str
  lowest: float | None
  highest: float | None
  broken: str


def check(
  base: Measured,
  good: Measured,
  now: Measured,
  training: Training,
  rules: StopRules,
) -> list[Guard]:
  """The guards of a round.

  Args:
    base: of the model that all rounds began with.
    good: of the model that this round began with.
    now: of the model of this round.
    training: of this round.
    rules: when a guard is broken.
  """
  config = rules.bootstrap
  motion = _change(DIFFERENCE, base, now, config, relative=True)
  static = _change(STATIC, base, now, config)
  diversity = _change(DIVERSITY, base, now, config, relative=True)
  # Base is at distance 0 from itself.
  origin = {ANCHOR: dict.fromkeys(now.get(ANCHOR, {}), 0.0)}
  distance = _change(ANCHOR, origin, now, config)
  accuracy = Estimate(training.implicit_accuracy, None, None)
  guards = [
    *_rewards(good, now, rules),
    _bounded(
      DIFFERENCE,
      motion,
      'base',
      '+.1%',
      lowest=_negative(rules.max_motion_loss),
      highest=rules.max_motion_rise,
    ),
    _bounded(STATIC, static, 'base', '+.3f', highest=rules.max_static_rise),
    _bounded(
      DIVERSITY,
      diversity,
      'base',
      '+.1%',
      lowest=_negative(rules.max_diversity_loss),
    ),
    _bounded(
      ANCHOR, distance, 'base', '.2g', highest=rules.max_anchor_distance
    ),
    _bounded(
      ACCURACY, accuracy, '', '.3f', highest=rules.max_implicit_accuracy
    ),
    _winners(training.winner_change, rules),
  ]
  return [guard for guard in guards if guard.value.value is not None]


def _rewards(good: Measured, now: Measured, rules: StopRules) -> list[Guard]:
  since, config = 'last good round', rules.bootstrap
  own = _change(REWARD, good, now, config)
  other = _change(HELD_OUT, good, now, config)
  broken = ''
  if (
    rules.held_out_falls
    and own.value is not None
    and own.value > 0
    and _is_below_zero(other)
  ):
    broken = (
      f'the reward of the held-out critic changed by {_text(other, "+.3f")} '
      f'since the {since}, while that of the training critic changed by '
      f'{_text(own, "+.3f")}'
    )
  return [
    Guard(REWARD, own, since, None, None, ''),
    Guard(HELD_OUT, other, since, None, None, broken),
  ]


def _bounded(
  name: str,
  value: Estimate,
  since: str,
  form: str,
  lowest: float | None = None,
  highest: float | None = None,
) -> Guard:
  """A number that is broken beyond a limit, if its interval excludes zero.

  Args:
    name: of the number.
    value: the number.
    since: what it is compared with.
    form: of the number in a sentence; with a sign if it is a change.
    lowest: limit below, or None.
    highest: limit above, or None.
  """
  x, broken = value.value, ''
  if x is not None and not _reaches_zero(value):
    verb, after = 'is', ''
    if form.startswith('+'):
      verb, after = 'changed by', f' since {since}'
    found = f'{name} {verb} {_text(value, form)}{after}'
    if lowest is not None and x < lowest:
      broken = f'{found}, below {lowest:{form}}'
    elif highest is not None and x > highest:
      broken = f'{found}, above {highest:{form}}'
  return Guard(name, value, since, lowest, highest, broken)


def _winners(changes: Sequence[float], rules: StopRules) -> Guard:
  """The error of winners, which must not stay far above the reference's."""
  window, limit = rules.winner_window, rules.max_winner_change
  last = changes[-window:]
  mean = Estimate(float(np.mean(last)) if len(last) else None, None, None)
  broken = ''
  if limit is not None and len(last) == window and min(last) > limit:
    broken = (
      f'the error of winners was more than {limit:g} above that of the '
      f'reference in the last {window} logged values, by {mean.value:.2g} on '
      'average'
    )
  return Guard(WINNER, mean, '', None, limit, broken)


def _change(
  name: str,
  before: Measured,
  now: Measured,
  config: BootstrapConfig,
  relative: bool = False,
) -> Estimate:
  """The change of a mean over prompts, or of that relative to before."""
  then, there = before.get(name, {}), now.get(name, {})
  prompts = sorted(then.keys() & there.keys())
  if not prompts:
    return Estimate(None, None, None)
  values_p2 = np.array([(then[key], there[key]) for key in prompts])

  def metrics(weights_dp: np.ndarray) -> dict[str, np.ndarray]:
    before_d, now_d = (weights_dp @ values_p2 / weights_dp.sum(1)[:, None]).T
    change_d = now_d - before_d
    if relative:
      change_d = bootstrap_lib.ratio(change_d, before_d)
    return {name: change_d}

  return bootstrap_lib.estimates(metrics, len(prompts), 1, config)[name]


def _negative(limit: float | None) -> float | None:
  return None if limit is None else -limit


def _is_below_zero(change: Estimate) -> bool:
  return change.high is not None and change.high < 0


def _reaches_zero(change: Estimate) -> bool:
  """Whether there is an interval, and it contains zero."""
  if change.low is None or change.high is None:
    return False
  return change.low <= 0 <= change.high


def _text(value: Estimate, form: str) -> str:
  """'+0.02 [+0.01, +0.03]', or '0.02' without an interval."""
  assert value.value is not None and math.isfinite(value.value)
  text = f'{value.value:{form}}'
  if value.low is None or value.high is None:
    return text
  return f'{text} [{value.low:{form}}, {value.high:{form}}]'
