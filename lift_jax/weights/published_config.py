"""Strict reading of published config.json files.

Each key is a field that we read, or must have the one value that our code
implements, or is known to be harmless; any other key is an error, as it may
describe another network. One line names all that is wrong with a file.
"""

from collections.abc import Callable, Collection, Mapping
import dataclasses
import sys
from typing import Any, TypeVar

from lift_jax.errors import UserError, listing

Config = TypeVar('Config')


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedConfig:
  """The schema of the config.json of one kind of network.

  Attributes:
    kind: the network, as in 'a SigLIP vision tower'.
    required: published key to our field. The field's type decides which values
      are valid; numbers must be positive and finite.
    optional: the same for keys that a file may omit; the field's default must
      be that of the publishing library.
    fixed: published key to the only value that our code implements.
    stated: fixed keys that a file must not omit, as the publishing library has
      another default.
    or_zero: keys of integers that may also be 0.
    ignored: keys that do not change the computation, in addition to those that
      begin with '_' and those that any file of transformers may have.
  """

  kind: str
  required: Mapping[str, str] = dataclasses.field(default_factory=dict)
  optional: Mapping[str, str] = dataclasses.field(default_factory=dict)
  fixed: Mapping[str, Any]
  stated: Collection[str] = ()
  or_zero: Collection[str] = ()
  ignored: Collection[str] = ()

  def read(
    self, config: type[Config], values: Mapping[str, Any], source: str, **more
  ) -> Config:
    """Our config from the parsed file.

    Args:
      config: its dataclass.
      values: the parsed file.
      source: how errors name the file.
      **more: fields that are not in the file.

    Raises:
      UserError: the file lacks a key, has an invalid value, or describes
        another network.
    """
    fields = more | self.read_fields(config, values, source)
    return make_config(config, fields, source)

  def read_fields(
    self, config: type, values: Mapping[str, Any], source: str
  ) -> dict[str, Any]:
    """The fields that are in the file; see `read`."""
    names = {**self.required, **self.optional}
    types = {field.name: field.type for field in dataclasses.fields(config)}
    fixed = {**_INERT_VALUES, **self.fixed}
    fields, problems = {}, []
    for key, value in values.items():
      if key in names:
        is_good, wanted = _CHECKS[types[names[key]]]
        if key in self.or_zero:
          is_good, wanted = _is_count, 'an integer of at least 0'
        if not is_good(value):
          problems.append(f'{key}={value!r} (give {wanted})')
        fields[names[key]] = tuple(value) if isinstance(value, list) else value
      elif key in fixed:
        if not _is_same(value, fixed[key]):
          problems.append(f'{key}={value!r} (only {fixed[key]!r})')
      elif not (
        key.startswith('_') or key in self.ignored or key in _COMMON_KEYS
      ):
        problems.append(f'{key} (unknown)')
    missing = {*self.required, *self.stated} - values.keys()
    problems += [f'no {key}' for key in missing]
    if problems:
      raise UserError(
        f'{source}: {listing(problems)}; use the config of {self.kind}, as it '
        'is published'
      )
    return fields

  def write(self, config: Any) -> dict[str, Any]:
    """The inverse of `read`: our config as published keys."""
    names = {**self.required, **self.optional}
    values = {key: getattr(config, field) for key, field in names.items()}
    return {**values, **self.fixed}


def make_config(
  config: type[Config], fields: Mapping[str, Any], source: str
) -> Config:
  """`config(**fields)`, with the file named in its errors."""
  try:
    return config(**fields)
  except UserError as error:
    raise UserError(f'{source}: {error}') from None


def _is_positive(value: Any, *types: type) -> bool:
  # Not isinstance, which bool would pass. JSON may have numbers of any size.
  return type(value) in types and 0 < value <= sys.float_info.max


def _is_count(value: Any) -> bool:
  return type(value) is int and value >= 0


def _is_same(value: Any, expected: Any) -> bool:
  """Whether they are equal; to Python, True and False are numbers too."""
  same_kind = isinstance(value, bool) == isinstance(expected, bool)
  return same_kind and value == expected


# By the type of our field: which values are valid, and what to give instead.
_CHECKS: Mapping[Any, tuple[Callable[[Any], bool], str]] = {
  int: (lambda value: _is_positive(value, int), 'a positive integer'),
  float: (lambda value: _is_positive(value, int, float), 'a positive number'),
  int | None: (lambda value: _is_positive(value, int), 'a positive integer'),
  float | None: (
    lambda value: _is_positive(value, int, float),
    'a positive number',
  ),
  bool: (lambda value: isinstance(value, bool), 'true or false'),
  str: (lambda value: isinstance(value, str), 'a string'),
  tuple[int, ...]: (
    lambda value: (
      isinstance(value, list | tuple)
      and len(value) > 0
      and all(_is_positive(item, int) for item in value)
    ),
    'a list of positive integers',
  ),
}


# Keys that any file may have. Of these, one value leaves the network as it is.
_INERT_VALUES: Mapping[str, Any] = {
  'add_cross_attention': False,
  'pruned_heads': {},
  'quantization_config': None,
}

# The others are of the base config of transformers, in some version: metadata,
# initialisation, form of the outputs, memory, and settings of generation,
# classification and other kinds of networks.
_COMMON_KEYS = frozenset({
  'architectures', 'attn_implementation', 'auto_map', 'dtype',
  'initializer_factor', 'initializer_range', 'torch_dtype',
  'transformers_version',

  'bad_words_ids', 'begin_suppress_tokens', 'bos_token_id',
  'chunk_size_feed_forward', 'cross_attention_hidden_size',
  'decoder_start_token_id', 'diversity_penalty', 'do_sample',
  'early_stopping', 'encoder_no_repeat_ngram_size', 'eos_token_id',
  'exponential_decay_length_penalty', 'finetuning_task',
  'forced_bos_token_id', 'forced_eos_token_id', 'gradient_checkpointing',
  'id2label', 'is_decoder', 'is_encoder_decoder', 'label2id',
  'length_penalty', 'max_length', 'min_length', 'no_repeat_ngram_size',
  'num_beam_groups', 'num_beams', 'num_return_sequences',
  'output_attentions', 'output_hidden_states', 'output_past',
  'output_scores', 'pad_token_id', 'prefix', 'problem_type',
  'remove_invalid_values', 'repetition_penalty', 'return_dict',
  'return_dict_in_generate', 'sep_token_id', 'suppress_tokens',
  'task_specific_params', 'temperature', 'tf_legacy_loss',
  'tie_encoder_decoder', 'tie_word_embeddings', 'tokenizer_class', 'top_k',
  'top_p', 'torchscript', 'typical_p', 'use_bfloat16', 'use_cache',
})  # fmt: skip
