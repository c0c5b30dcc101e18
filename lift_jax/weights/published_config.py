"""Published config.json files, read so that nothing goes unnoticed.

Each key is a field that we read, or has the one value that our code computes,
or is known to change nothing; any other key is an error, as it may describe
another network. All that is wrong with a file is named in one line.
"""

from collections.abc import Collection, Mapping
import dataclasses
from typing import Any, TypeVar

from lift_jax.errors import UserError, listing

Config = TypeVar('Config')


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedConfig:
  """What the config.json of one kind of network holds.

  Attributes:
    kind: the network, as in 'a SigLIP vision tower'.
    required: published key: our field. Its type says what values are good;
      numbers must be positive.
    optional: the same for keys that a file may leave out; the default of the
      field must be what the publishing library takes then.
    fixed: published key: the value that this code computes.
    stated: fixed keys that a file must have, as the publishing library takes
      another value where it says nothing.
    ignored: keys that do not change what is computed, besides those that begin
      with '_' and those that any file of transformers may hold.
  """

  kind: str
  required: Mapping[str, str] = dataclasses.field(default_factory=dict)
  optional: Mapping[str, str] = dataclasses.field(default_factory=dict)
  fixed: Mapping[str, Any]
  stated: Collection[str] = ()
  ignored: Collection[str] = ()

  def read(
    self, config: type[Config], values: Mapping[str, Any], source: str, **more
  ) -> Config:
    """Our config from the parsed file.

    Args:
      config: its dataclass.
      values: the parsed file.
      source: how errors name the file.
      **more: fields that the file does not hold.

    Raises:
      UserError: the file lacks a key, has a value of no use, or describes
        another network.
    """
    fields = more | self.read_fields(config, values, source)
    return make_config(config, fields, source)

  def read_fields(
    self, config: type, values: Mapping[str, Any], source: str
  ) -> dict[str, Any]:
    """The fields that the file has; see `read`."""
    names = {**self.required, **self.optional}
    types = {field.name: field.type for field in dataclasses.fields(config)}
    fields, problems = {}, []
    for key, value in values.items():
      if key in names:
        is_good, wanted = _CHECKS[types[names[key]]]
        if not is_good(value):
          problems.append(f'{key}={value!r} (give {wanted})')
        fields[names[key]] = tuple(value) if isinstance(value, list) else value
      elif key in self.fixed:
        if value != self.fixed[key]:
          problems.append(f'{key}={value!r} (only {self.fixed[key]!r})')
      elif not (
        key.startswith('_') or key in self.ignored or key in _OF_EVERY_FILE
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
    """The published keys that `read` takes, from our config."""
    names = {**self.required, **self.optional}
    values = {key: getattr(config, field) for key, field in names.items()}
    return {**values, **self.fixed}


def make_config(
  config: type[Config], fields: Mapping[str, Any], source: str
) -> Config:
  """`config(**fields)`, whose errors name the file."""
  try:
    return config(**fields)
  except UserError as error:
    raise UserError(f'{source}: {error}') from None


def _is_positive(value: Any, *types: type) -> bool:
  return type(value) in types and value > 0  # not isinstance: no bool


# By the type of our field: what values are good, and what to give instead.
_CHECKS = {
  int: (lambda value: _is_positive(value, int), 'a positive integer'),
  float: (lambda value: _is_positive(value, int, float), 'a positive number'),
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


# Notes on the file, initial values, and settings of generation, classification
# and other kinds of networks, which transformers 4 keeps in every config.
_OF_EVERY_FILE = frozenset({
  'architectures', 'auto_map', 'dtype', 'initializer_factor',
  'initializer_range', 'torch_dtype', 'transformers_version',

  'add_cross_attention', 'bad_words_ids', 'begin_suppress_tokens',
  'bos_token_id', 'chunk_size_feed_forward', 'cross_attention_hidden_size',
  'decoder_start_token_id', 'diversity_penalty', 'do_sample',
  'early_stopping', 'encoder_no_repeat_ngram_size', 'eos_token_id',
  'exponential_decay_length_penalty', 'finetuning_task',
  'forced_bos_token_id', 'forced_eos_token_id', 'id2label', 'is_decoder',
  'is_encoder_decoder', 'label2id', 'length_penalty', 'max_length',
  'min_length', 'no_repeat_ngram_size', 'num_beam_groups', 'num_beams',
  'num_return_sequences', 'output_attentions', 'output_hidden_states',
  'output_scores', 'pad_token_id', 'prefix', 'problem_type', 'pruned_heads',
  'remove_invalid_values', 'repetition_penalty', 'return_dict',
  'return_dict_in_generate', 'sep_token_id', 'suppress_tokens',
  'task_specific_params', 'temperature', 'tf_legacy_loss',
  'tie_encoder_decoder', 'tie_word_embeddings', 'tokenizer_class', 'top_k',
  'top_p', 'torchscript', 'typical_p', 'use_bfloat16',
})  # fmt: skip
