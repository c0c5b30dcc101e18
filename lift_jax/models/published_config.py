"""Sizes from a published config.json, read so that nothing goes unnoticed.

Each key is a size that we read, or has the one value that our code computes,
or is known to change nothing; any other key is an error, as it may describe
another network.
"""

from collections.abc import Collection, Mapping
from typing import Any

from lift_jax import errors


def read_sizes(
  values: Mapping[str, Any],
  source: str,
  *,
  kind: str,
  required: Mapping[str, str],
  optional: Mapping[str, str],
  fixed: Mapping[str, Any],
  ignored: Collection[str] = (),
) -> dict[str, Any]:
  """The sizes by the names of our fields; those left out stay out.

  Args:
    values: the parsed file. Keys that begin with '_' are notes.
    source: how errors name the file.
    kind: the network, as in 'a SigLIP vision tower'.
    required: published key: our field.
    optional: the same for keys that a file may leave out.
    fixed: published key: the value that this code computes, which is also
      what transformers takes where a file says nothing.
    ignored: keys that do not change what is computed, besides those that any
      file of transformers may hold.

  Raises:
    UserError: a size is missing or of no use, or the file describes another
      network.
  """
  sizes = required | optional
  known = sizes.keys() | fixed.keys() | set(ignored) | _OF_EVERY_FILE
  if unknown := {key for key in values if not key.startswith('_')} - known:
    raise errors.UserError(
      f'{source}: unknown keys {errors.listing(unknown)}; use the config of'
      f' {kind}'
    )
  for key, supported in fixed.items():
    if values.get(key, supported) != supported:
      raise errors.UserError(
        f'{source}: {key} = {values[key]!r} is not supported; use {kind} that'
        f' has {supported!r}'
      )
  if missing := required.keys() - values.keys():
    raise errors.UserError(
      f'{source}: no {errors.listing(missing)}; copy the file from the'
      ' published model again'
    )
  for key in sizes.keys() & values.keys():
    value, is_float = values[key], key.endswith('eps')
    if type(value) not in ((int, float) if is_float else (int,)) or value <= 0:
      raise errors.UserError(
        f'{source}: {key} = {value!r}; give a positive'
        f' {"number" if is_float else "integer"}'
      )
  return {sizes[key]: values[key] for key in sizes.keys() & values.keys()}


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
