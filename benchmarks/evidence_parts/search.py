"""The choice of learning rate and beta of each method.

Every candidate is trained and evaluated like an arm, on seeds and prompts that
are not reported. The file of choices has, for each method, the settings whose
clips the checkers call Good most often, and what was tried.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from evidence_parts.arms import METHODS, Settings
import numpy as np

from lift_jax.errors import UserError
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
  shares: Mapping[str, Mapping[int, float]],
  conditions: Mapping[str, Any],
) -> dict[str, Any]:
  """Chooses and writes the settings of every method.

  Methods of the file that were not searched this time are kept.

  Args:
    path: of the file.
    shares: by candidate and seed, the share of clips that are Good in every
      dimension.
    conditions: of the search, for the reader.

  Returns:
    All methods of the file: what was chosen, and what was tried.
  """
  found = read_json(path)['methods'] if path.is_file() else {}
  for name, method in METHODS.items():
    tried = [
      {
        'settings': settings,
        'all': {str(seed): round(x, 4) for seed, x in by_seed.items()},
      }
      for settings in method.candidates()
      if (by_seed := shares.get(candidate_name(name, settings)))
    ]
    if tried:
      found[name] = {'chosen': best(tried), 'tried': tried}
  write_json(path, {'conditions': dict(conditions), 'methods': found})
  return found


def best(tried: Sequence[Mapping[str, Any]]) -> Settings:
  """The settings with the best mean; the first of equals.

  Only those are compared that were tried with as many seeds as any.
  """
  most = max(len(one['all']) for one in tried)
  complete = [one for one in tried if len(one['all']) == most]
  means = [np.mean(list(one['all'].values())) for one in complete]
  return complete[int(np.argmax(means))]['settings']
