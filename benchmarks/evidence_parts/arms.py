"""What is compared: ways to train, whose labels, with or without real clips.

An arm is a row of the tables. Its name says what it is: 'dpo_mpo-critic-real'
is a method, whose labels it learns from, and 'real' if it trains on real clips
too.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from lift_jax.errors import UserError, listing

# Settings of `lift align` by dotted name.
Settings = Mapping[str, Any]

CHECKERS, CRITIC = 'checkers', 'critic'


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to train on scored clips.

  Attributes:
    settings: of `lift align`.
    grid: values to try, by setting, the most likely first; none for a method
      that takes the choice of another.
    like: name of that other method.
    with_real: further settings where there are real clips.
    needs_real: whether it is nothing without them.
    takes_real: whether it can train on them.
    is_labelled: whether it depends on labels.
    needs_critic: whether it is nothing without soft rewards, which checkers do
      not give.
    score: field of the critic's records that is the reward: 'score', from its
      labels, or 'soft_reward', which differs more often within a prompt.
  """

  settings: Settings
  grid: Mapping[str, tuple[float, ...]] = dataclasses.field(
    default_factory=dict
  )
  like: str = ''
  with_real: Settings = dataclasses.field(default_factory=dict)
  needs_real: bool = False
  takes_real: bool = True
  is_labelled: bool = True
  needs_critic: bool = False
  score: str = 'score'

  def candidates(self) -> list[dict[str, float]]:
    """The first values of all settings, then each other value by itself."""
    first = {name: values[0] for name, values in self.grid.items()}
    others = [
      first | {name: value}
      for name, values in self.grid.items()
      for value in values[1:]
    ]
    return [first, *others]


_RATES = {'optimizer.learning_rate': (3e-4, 1e-4, 1e-3)}
_BETAS = (500.0, 200.0, 2000.0)
# Of objectives with a reference: what the search chooses for `dual_ipo`.
_REAL_WEIGHT = 1.0


def _likelihood(objective: str, **options) -> Method:
  return Method({'objective.name': objective}, _RATES, **options)


def _dpo(every_dimension: bool, **options) -> Method:
  return Method(
    {'objective.name': 'dpo', 'pairs.every_dimension': every_dimension},
    with_real={'objective.dpo.real_weight': _REAL_WEIGHT},
    score='soft_reward',
    **options,
  )


METHODS = {
  'sft': _likelihood('sft', is_labelled=False),
  'real': Method(
    {'objective.name': 'sft', 'data.synthetic': ()},
    _RATES,
    needs_real=True,
    is_labelled=False,
  ),
  'rejection': Method(
    {'objective.name': 'rejection'},
    # 1e-3 is better than 3e-4, so the next one is tried too.
    {'optimizer.learning_rate': (3e-4, 1e-4, 1e-3, 3e-3)},
  ),
  'weighted': _likelihood('reward_weighted'),
  'weighted_soft': Method(
    {'objective.name': 'reward_weighted'},
    like='weighted',
    needs_critic=True,
    score='soft_reward',
  ),
  'dpo_mpo': _dpo(
    every_dimension=True, grid={**_RATES, 'objective.dpo.beta': _BETAS}
  ),
  'dpo': _dpo(every_dimension=False, like='dpo_mpo'),
  'dual_ipo': Method(
    {'objective.name': 'dpo', 'pairs.every_dimension': True},
    {
      **_RATES,
      'objective.dpo.sft_weight': (10.0, 50.0, 1.0),
      'objective.dpo.real_weight': (10.0, 50.0, 1.0),
    },
    needs_real=True,
    score='soft_reward',
  ),
  'kto': Method(
    {'objective.name': 'kto'},
    # At 3e-4 it ends below the base model, whatever the beta.
    {
      'optimizer.learning_rate': (1e-4, 3e-5, 3e-4, 1e-3),
      'objective.kto.beta': _BETAS,
    },
    with_real={'objective.kto.real_weight': _REAL_WEIGHT},
  ),
  'nft': Method(
    {'objective.name': 'nft'},
    {**_RATES, 'objective.nft.beta': (0.1, 1.0)},
    takes_real=False,
    score='soft_reward',
  ),
}


@dataclasses.dataclass(frozen=True)
class Arm:
  """A method, with whose labels, with or without real clips.

  Attributes:
    method: name in `METHODS`.
    labels: 'checkers' or 'critic'; '' for a method without labels.
    has_real: whether it trains on real clips too.
  """

  method: str
  labels: str = ''
  has_real: bool = False

  @property
  def name(self) -> str:
    parts = [self.method, self.labels]
    if self.has_real and self.method != 'real':
      parts.append('real')
    return '-'.join(filter(None, parts))

  def settings(self, choices: Mapping[str, Settings]) -> dict[str, Any]:
    """Settings of `lift align`, given those chosen for each method.

    Raises:
      UserError: none were chosen for this one.
    """
    method = METHODS[self.method]
    searched = method.like or self.method
    if searched not in choices:
      raise UserError(
        f'no settings were chosen for {searched!r}; run the search with '
        f'--search --only={searched}'
      )
    settings = {**method.settings, **choices[searched]}
    if not self.has_real:
      settings['data.real'] = ()
    return settings | (method.with_real if self.has_real else {})


def _arms() -> list[Arm]:
  """All arms, the most wanted first."""

  def is_hard(name: str) -> bool:
    return not METHODS[name].needs_critic

  labelled = [n for n, m in METHODS.items() if m.is_labelled]
  without_real = [n for n in labelled if not METHODS[n].needs_real]
  with_real = [name for name in labelled if METHODS[name].takes_real]
  return [
    Arm('sft'),
    *(Arm(name, CHECKERS) for name in filter(is_hard, without_real)),
    *(Arm(name, CRITIC) for name in without_real),
    Arm('real', has_real=True),
    Arm('sft', has_real=True),
    *(Arm(name, CRITIC, has_real=True) for name in with_real),
    *(
      Arm(name, CHECKERS, has_real=True) for name in filter(is_hard, with_real)
    ),
  ]


ARMS = {arm.name: arm for arm in _arms()}

# Arms that are run in rounds too, each on clips of the model of the last.
IN_ROUNDS = ('dpo_mpo-checkers', 'dpo_mpo-critic')


def search_arm(method: str) -> Arm:
  """The arm by which the settings of a method are chosen."""
  found = METHODS[method]
  labels = CHECKERS if found.is_labelled else ''
  return Arm(method, labels, found.needs_real)


def choose(names: str, known: Sequence[str]) -> list[str]:
  """The names in a list with commas, in the order of `known`.

  Raises:
    UserError: one is unknown.
  """
  asked = names.split(',') if names else list(known)
  if unknown := set(asked) - set(known):
    raise UserError(f'--only: {listing(unknown)}; known: {listing(known)}')
  return [name for name in known if name in asked]
