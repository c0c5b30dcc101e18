"""A small CLIP in the layout of the published folders."""

import json
import pathlib

from lift_jax.models.clip.config import (
  ClipConfig,
  ClipTextConfig,
  ClipVisionConfig,
)
from lift_jax.models.clip.convert import CLIP_TABLE
from lift_jax.models.clip.model import Clip
from lift_jax.models.functional import functional
from lift_jax.weights import published_tensors
from tests.random_weights import random_params

# Sizes that other sizes do not suggest, a rest of 2 pixels at the edges, and
# large epsilons, so that a wrong one shows.
TINY = ClipConfig(
  vision=ClipVisionConfig(
    image_size=30,
    patch_size=7,
    width=24,
    num_layers=3,
    num_heads=3,
    mlp_width=40,
    norm_eps=1e-2,
  ),
  text=ClipTextConfig(
    vocab_size=514,
    max_length=12,
    width=16,
    num_layers=2,
    num_heads=2,
    mlp_width=36,
    norm_eps=2e-2,
  ),
  projection_dim=20,
)


def _byte_tokens() -> list[str]:
  """The printable characters that stand for the 256 bytes."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [byte for byte in range(256) if byte not in printable]
  return [chr(byte) for byte in printable] + [
    chr(256 + index) for index in range(len(others))
  ]


def write_tokenizer(folder: pathlib.Path) -> None:
  """Writes CLIP's tokenizer without merges: every byte is a token."""
  tokens = _byte_tokens()
  vocabulary = [
    *tokens,
    *(f'{token}</w>' for token in tokens),
    '<|startoftext|>',
    '<|endoftext|>',
  ]
  ids = {token: index for index, token in enumerate(vocabulary)}
  (folder / 'vocab.json').write_text(json.dumps(ids), encoding='utf-8')
  (folder / 'merges.txt').write_text('#version: 0.2\n', encoding='utf-8')
  (folder / 'tokenizer_config.json').write_text(
    json.dumps({
      'tokenizer_class': 'CLIPTokenizer',
      'bos_token': '<|startoftext|>',
      'eos_token': '<|endoftext|>',
      'unk_token': '<|endoftext|>',
      'pad_token': '<|endoftext|>',
      'model_max_length': 77,
    }),
    encoding='utf-8',
  )  # fmt: skip


def write_clip(
  folder: pathlib.Path, config: ClipConfig = TINY, seed: int = 0
) -> pathlib.Path:
  """Writes random weights, their config and a tokenizer; returns the folder."""
  model = functional(lambda rngs: Clip(config, rngs=rngs))
  params = random_params(model.abstract_params, seed)
  published_tensors.save(CLIP_TABLE, params, folder, 'model')
  values = config.to_json()
  # The default is beyond a small vocabulary, of which transformers warns.
  values['text_config']['bos_token_id'] = 0
  (folder / 'config.json').write_text(json.dumps(values))
  write_tokenizer(folder)
  return folder
