"""The config of adapters: adapter_config.json of PEFT.

diffusers writes the same keys into the header of its files. A key is read, or
has no effect on trained adapters, or must have its default value: the others
stand for methods that are not a low-rank sum.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import math
import re
from typing import Any

from lift_jax.errors import UserError, listing

# Fields of peft.LoraConfig, which a test compares with this file.
READ = frozenset({
  'alpha_pattern', 'lora_alpha', 'peft_type', 'r', 'rank_pattern',
  'use_rslora',
})  # fmt: skip
NO_EFFECT = frozenset({
  # Where the adapters come from and where they go: the tensors decide.
  'auto_mapping', 'base_model_name_or_path', 'exclude_modules',
  'inference_mode', 'layers_pattern', 'layers_to_transform', 'peft_version',
  'revision', 'runtime_config', 'target_modules', 'task_type',
  # How they were initialised and trained.
  'ensure_weight_tying', 'eva_config', 'lora_dropout', 'velora_config',
  # Details of what other keys choose.
  'loftq_config', 'megatron_core', 'qalora_group_size',
})  # fmt: skip
DEFAULTS: Mapping[str, Any] = {
  'alora_invocation_tokens': None,
  'arrow_config': None,
  'bias': 'none',
  'corda_config': None,
  'fan_in_fan_out': False,
  'init_lora_weights': True,
  'kasa_config': None,
  'layer_replication': None,
  'lora_bias': False,
  'lora_ga_config': None,
  'megatron_config': None,
  'modules_to_save': None,
  'monteclora_config': None,
  'target_parameters': None,
  'trainable_token_indices': None,
  'use_bdlora': None,
  'use_dora': False,
  'use_qalora': False,
}
# Other ways of initialisation change the weights that are adapted.
_INITIALISATIONS = (True, False, 'gaussian', 'eva', 'orthogonal', 'mica')


@dataclasses.dataclass(frozen=True)
class AdapterSettings:
  """What the config of adapters says about their scale.

  Attributes:
    where: how errors name the config.
    rank: of the layers that `rank_pattern` does not match; None if unstated.
    alpha: the same for `alpha_pattern`.
    rank_pattern: rank by regular expression, matched with the end of a layer's
      name; the first that matches counts.
    alpha_pattern: alpha likewise.
    is_rank_stabilized: whether the scale is alpha / sqrt(rank).
  """

  where: str
  rank: int | None
  alpha: float | None
  rank_pattern: Mapping[str, int]
  alpha_pattern: Mapping[str, float]
  is_rank_stabilized: bool

  def rank_of(self, names: Iterable[str]) -> int | None:
    """The rank of a layer, given the names that patterns may refer to."""
    return _first_match(self.rank_pattern, names, self.rank)

  def alpha_of(self, names: Iterable[str]) -> float | None:
    """The alpha of a layer, likewise."""
    return _first_match(self.alpha_pattern, names, self.alpha)


def _first_match(patterns: Mapping[str, Any], names: Iterable[str], other: Any):
  names = list(names)
  for pattern, value in patterns.items():
    if any(re.match(rf'(.*\.)?({pattern})$', name) for name in names):
      return value
  return other


def read_settings(config: Mapping[str, Any], where: str) -> AdapterSettings:
  """Reads a config of adapters.

  Args:
    config: PEFT's config; null stands for a key's default.
    where: how errors name it.

  Raises:
    UserError: a bad value, or adapters that cannot be merged.
  """
  stated = {key: value for key, value in config.items() if value is not None}
  kind = stated.pop('peft_type', 'LORA')
  if kind != 'LORA':
    raise UserError(
      f'{where}: peft_type is {kind!r}; only adapters of LORA can be merged'
    )
  if unsupported := [
    f'{key} = {value!r}'
    for key, value in stated.items()
    if not _is_harmless(key, value)
  ]:
    raise UserError(
      f'{where}: {listing(unsupported)} cannot be merged into the weights; '
      'give adapters trained without it'
    )
  rslora = stated.get('use_rslora')
  if rslora not in (None, True, False):
    raise UserError(f'{where}: use_rslora is {rslora!r}; give true or false')
  return AdapterSettings(
    where,
    _number(stated.get('r'), 'r', int, where),
    _number(stated.get('lora_alpha'), 'lora_alpha', float, where),
    _pattern(stated.get('rank_pattern'), 'rank_pattern', int, where),
    _pattern(stated.get('alpha_pattern'), 'alpha_pattern', float, where),
    bool(rslora),
  )


def _is_harmless(key: str, value: Any) -> bool:
  """Whether a key with this value leaves the sum W + scale B A as it is."""
  if key in READ or key in NO_EFFECT or key.startswith('_'):
    return True
  if key == 'init_lora_weights':
    return value in _INITIALISATIONS
  # An empty list or dict is no setting either, whatever the key.
  return not value or value == DEFAULTS.get(key)


def _number(value: Any, key: str, kind: type, where: str) -> Any:
  """`value` as a finite number, an int as a positive one; None stays None."""
  if value is None:
    return None
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if not is_number or not math.isfinite(value):
    raise UserError(f'{where}: {key} is {value!r}, not a number; correct it')
  if kind is int and (value != int(value) or value < 1):
    raise UserError(f'{where}: {key} is {value!r}; give a positive integer')
  return kind(value)


def _pattern(value: Any, key: str, kind: type, where: str) -> dict[str, Any]:
  if value is None:
    return {}
  if not isinstance(value, dict):
    raise UserError(
      f'{where}: {key} is {value!r}; give an object of numbers by layer'
    )
  for pattern in value:
    try:
      re.compile(pattern)
    except re.error as error:
      raise UserError(
        f'{where}: {key}: {pattern!r} is not a regular expression ({error}); '
        'correct it'
      ) from None
  return {
    pattern: _number(number, f'{key}[{pattern!r}]', kind, where)
    for pattern, number in value.items()
    if number is not None
  }
