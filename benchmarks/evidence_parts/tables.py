"""The tables of docs/evidence.md, in Markdown."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from evidence_parts import measures
from evidence_parts.arms import CHECKERS, CRITIC, IN_ROUNDS
from evidence_parts.measures import ALL, Values
from evidence_parts.study import BASE

from lift_jax.data.hra import DIMENSIONS
from lift_jax.evaluation.bootstrap import BootstrapConfig

PLAIN = 'sft'
WEIGHTED = f'weighted-{CHECKERS}'

# Of one seed, by the name of an arm.
Measured = Mapping[str, Values]


def markdown(
  found: Mapping[int, Mapping[str, Values | None]],
  accuracies: Mapping[int, Mapping[str, float] | None],
  config: BootstrapConfig,
) -> list[str]:
  """All tables.

  Args:
    found: by seed and arm; None for one that was not run.
    accuracies: of the critic that labels clips, by seed and dimension.
    config: of the intervals.
  """
  lines: list[str] = []
  seeds: dict[int | str, Measured] = {}
  for seed, by_arm in found.items():
    measured = {name: v for name, v in by_arm.items() if v is not None}
    if BASE not in measured:
      lines += ['', f'Seed {seed} was not run.']
      continue
    missing = [name for name in by_arm if name not in measured]
    lines += ['', f'## Seed {seed}', '', *_goods(measured, config)]
    lines += ['', *_others(measured)]
    if right := accuracies[seed]:
      shares = [f'{name} {_percent(share)}%' for name, share in right.items()]
      lines += ['', f'Right labels of the critic: {", ".join(shares)}.']
    lines += ['', f'Not run: {", ".join(missing) or "none"}.']
    seeds[seed] = measured
  if len(seeds) > 1:
    pooled = _pool(list(seeds.values()))
    lines += ['', '## All seeds', '', *_goods(pooled, config)]
    lines += ['', *_others(pooled)]
    seeds['all'] = pooled
  return [*lines, '', '## Differences', '', *_differences(seeds, config)]


def _pool(seeds: Sequence[Measured]) -> dict[str, Values]:
  """The prompts of all seeds as those of one, for arms that every seed ran.

  The bootstrap resamples prompts, so that its intervals are for these seeds.
  """
  first, *others = seeds
  return {
    arm: {
      name: [value for measured in seeds for value in measured[arm][name]]
      for name in first[arm]
      if all(name in measured[arm] for measured in others)
    }
    for arm in first
    if all(arm in measured for measured in others)
  }


def tried(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """What a search tried, and chose.

  Args:
    methods: of the file of choices.
  """
  rows = []
  for name, method in methods.items():
    for one in method['tried']:
      values = [f'{key}={x:g}' for key, x in one['settings'].items()]
      rows.append(
        [
          name,
          ', '.join(value.split('.', 1)[1] for value in values),
          ', '.join(_percent(share) for share in one['all'].values()),
          '' if one is method['tried'][0] else _points(*one['gain']),
          'chosen' if one['settings'] == method['chosen'] else '',
        ]
      )
  header = ('method', 'settings', 'all three Good, %', 'against the first', '')
  return _table(header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  return [
    f'| {" | ".join(cells)} |'
    for cells in (header, ['---'] * len(header), *rows)
  ]


def _goods(measured: Measured, config: BootstrapConfig) -> list[str]:
  """What the checkers call Good, with differences to three other arms."""
  others = {'base': BASE, 'plain': PLAIN, 'weighted': WEIGHTED}
  rows = []
  for name, values in measured.items():
    row = [name, _percent(measures.mean(values, ALL))]
    for other in others.values():
      is_other = other in measured and name not in (BASE, other)
      row.append(_gain(values, measured[other], config) if is_other else '')
    row += [_percent(measures.mean(values, name)) for name in DIMENSIONS]
    rows.append(row)
  against = [f'against {title}' for title in others]
  return _table(('arm', 'all three Good, %', *against, *DIMENSIONS), rows)


# Title, measure, and how to print its mean, given that of the base model.
_Format = Callable[[float, float], str]
_OTHERS: tuple[tuple[str, str, _Format], ...] = (
  ('reward', 'reward', lambda value, _: f'{value:.3f}'),
  *(
    (name.replace('_', ' '), name, lambda value, _: f'{value:.3f}')
    for name in measures.REWARDS
  ),
  ('motion, % of base', 'motion_size', lambda v, base: _percent(v / base)),
  ('static, %', 'static', lambda value, _: _percent(value)),
  ('diversity, % of base', 'diversity', lambda v, base: _percent(v / base)),
  ('distance to base', 'distance', lambda value, _: f'{value:.4f}'),
)


def _others(measured: Measured) -> list[str]:
  """Rewards, motion, diversity and the distance to the base model."""
  rows = []
  for arm, values in measured.items():
    row = [arm]
    for _, name, text in _OTHERS:
      value = measures.mean(values, name)
      base = measures.mean(measured[BASE], name)
      row.append('' if value is None or base is None else text(value, base))
    rows.append(row)
  return _table(('arm', *(title for title, _, _ in _OTHERS)), rows)


def _differences(
  measured: Mapping[int | str, Measured], config: BootstrapConfig
) -> list[str]:
  """Between arms, by seed and over all; the numbered ones decide the aims."""
  rows = []
  for seed, values in measured.items():
    for title, one, other in _comparisons(values):
      if one in values and other in values:
        gain = _gain(values[one], values[other], config)
        rows.append([str(seed), title, one, other, gain])
  return _table(
    ('seed', 'difference', 'arm', 'against', 'all three Good'), rows
  )


def _comparisons(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
  """(title, arm, other arm), given the names of those that were run."""
  best, with_critic = IN_ROUNDS
  yield '1: best against base', best, BASE
  yield '2: best against weighted', best, WEIGHTED
  yield '2: best against plain', best, PLAIN
  yield '2: best against rejection', best, f'rejection-{CHECKERS}'
  yield "2: the critic's labels", with_critic, BASE
  yield '3: three rounds against one', f'{best}-rounds_3', best
  yield '5: weighted against plain', WEIGHTED, PLAIN
  yield "5: the same, critic's labels", f'weighted-{CRITIC}', PLAIN
  for name in names:
    if name.endswith('-real'):
      yield 'real clips', name, name.removesuffix('-real')
    stem, _, number = name.rpartition('-rounds_')
    if stem:
      yield 'another round', name, f'{stem}-rounds_{int(number) - 1}'


def _gain(values: Values, other: Values, config: BootstrapConfig) -> str:
  gain = measures.difference(values[ALL], other[ALL], config)
  return _points(gain.value, gain.low, gain.high)


def _points(*shares: float) -> str:
  """A difference of shares with its interval, in points."""
  value, low, high = (f'{100 * x:+.1f}' for x in shares)
  return f'{value} [{low}, {high}]'


def _percent(value: float) -> str:
  return f'{100 * value:.1f}'
