"""The choice of learning rate and beta of each method.

Every candidate is trained and evaluated like an arm, on seeds and prompts that
are not reported. A method keeps the settings of its first candidate unless
clips of another are Good in every dimension more often, beyond chance: the
paired interval of the difference is above zero. The file of choices has, for
each method, what was chosen and what was tried.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from evidence_parts import measures
from evidence_parts.arms import METHODS, Settings
from evidence_parts.measures import ALL, Values

from lift_jax.errors import UserError
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.runtime.files import read_json, write_json

# As shipped, for the reported arms.
CHOICES = pathlib.Path(__file__).with_name('choices.json')


def candidate_name(method: str, settings: Mapping[str, float]) -> str:
  """As 'dpo-learning_rate=0.0003-beta=500'."""
  parts = [f'{key.split(".")[-1]}={value:g}' for key, value in settings.items()]
  return '-'.join([method, *parts])


def read_choices(path: pathlib.Path) -> dict[str, Settings]:
  """The chosen settings by method.

  Raises:
    UserError: there is no such file.
  """
  if not path.is_file():
    raise UserError(f'{path} does not exist; run the search with --search')
  methods = read_json(path)['methods']
  return {name: method['chosen'] for name, method in methods.items()}


def write_choices(
  path: pathlib.Path,
  found: Mapping[str, Mapping[int, Values]],
  conditions: Mapping[str, Any],
  config: BootstrapConfig,
) -> dict[str, Any]:
  """Chooses and writes the settings of every method.

  Methods of the file that were not searched this time are kept.

  Args:
    path: of the file.
    found: what was measured, by candidate and seed.
    conditions: of the search, for the reader.
    config: of the intervals.

  Returns:
    All methods of the file: what was chosen, and what was tried.
  """
  methods = read_json(path)['methods'] if path.is_file() else {}
  for name, method in METHODS.items():
    candidates = {candidate_name(name, c): c for c in method.candidates()}
    tried = {key: found[key] for key in candidates if key in found}
    if tried:
      first, *_ = tried
      rows = [
        {
          'settings': candidates[key],
          'all': {
            str(seed): round(measures.mean(values, ALL), 4)
            for seed, values in by_seed.items()
          },
          'gain': _gain(by_seed, tried[first], config),
        }
        for key, by_seed in tried.items()
      ]
      methods[name] = {'chosen': best(rows), 'tried': rows}
  write_json(path, {'conditions': dict(conditions), 'methods': methods})
  return methods


def _gain(
  one: Mapping[int, Values], first: Mapping[int, Values], config
) -> list[float]:
  """Difference to the first candidate, over the prompts of all seeds."""
  values, others = (
    [value for seed in first for value in by_seed[seed][ALL]]
    for by_seed in (one, first)
  )
  gain = measures.difference(values, others, config)
  return [round(x, 4) for x in (gain.value, gain.low, gain.high)]


def best(tried: Sequence[Mapping[str, Any]]) -> Settings:
  """The settings with the most gain beyond chance, or the first ones."""
  first, *others = tried
  better = [one for one in others if one['gain'][1] > 0]
  return max(better, key=lambda one: one['gain'][0], default=first)['settings']
