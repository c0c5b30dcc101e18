"""A tiny critic that answers with labels, made without training.

Its language model is random but for the head, which mostly looks at the last
token: the end of a prompt asks for a label, and each label for what follows it.

  Good -> . -> stop        Normal -> stop        Bad -> , -> some words

Which label it is, and which words, the frames and the text before decide.
"""

import math
import pathlib

import jax
import numpy as np

from lift_jax.models.critic_tokens import label_ids
from lift_jax.models.functional import functional
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.models.vila import folder, tiny_tokenizer
from lift_jax.models.vila.config import VilaConfig
from lift_jax.models.vila.model import Vila
from lift_jax.models.vila.projector import ProjectorConfig
from lift_jax.models.vila.tokenizer import PromptTokenizer
from tests.models.selections import first_frames

CONFIG = VilaConfig(
  vision_tower=SiglipConfig(
    image_size=28,
    patch_size=14,
    width=16,
    num_layers=2,
    num_heads=2,
    mlp_width=32,
  ),
  projector=ProjectorConfig(vision_width=16, width=32),
  llm=LlamaConfig(
    vocab_size=512,
    width=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_width=48,
    max_length=512,
  ),
)

# How strongly a token asks for the next one, in logits.
_FOR_LABEL, _FOR_NEXT = 14.0, 20.0
# How much more than that of other tokens the logit of a label depends on the
# rest, and how choosy attention is: a few frames among many words count.
_LABEL_GAIN, _ATTENTION_GAIN = 3.0, 2.0
# One for which the labels of most videos differ.
_SEED = 8


def write(target: pathlib.Path, seed: int = _SEED) -> pathlib.Path:
  """Writes the folder of a critic, in the published form."""
  tiny_tokenizer.write(target / folder.LLM)
  folder.write_configs(target, CONFIG, {})
  params = _random(seed)
  params['llm']['head']['kernel'] = _head(params, tokenizer_of(target), seed)
  folder.save_weights(target, CONFIG, params, None)
  return target


def tokenizer_of(target: pathlib.Path) -> PromptTokenizer:
  return PromptTokenizer(
    target / folder.LLM,
    'vicuna_v1',
    CONFIG.tokens_per_frame,
    max_length=CONFIG.llm.max_length,
  )


def chain(tokenizer: PromptTokenizer) -> dict[int, int]:
  """The token that is asked for, by the one before it; labels not included."""
  labels = label_ids(tokenizer)
  marks = {
    mark: tokenizer.training('x', ' y', first_frames(0), f'Good{mark}')[0][-2]
    for mark in '.,'
  }
  return {
    labels['Good']: marks['.'],
    labels['Bad']: marks[','],
    labels['Normal']: tokenizer.stop_ids[0],
    marks['.']: tokenizer.stop_ids[0],
  }


def _random(seed: int):
  """Parameters that keep the scale of what goes through them."""
  rng = np.random.default_rng(seed)
  model = functional(lambda rngs: Vila(CONFIG, rngs=rngs))

  def draw(path, leaf):
    name = jax.tree_util.keystr(path)
    if 'scale' in name:
      return rng.uniform(0.8, 1.2, leaf.shape).astype(np.float32)
    if 'bias' in name:
      return rng.normal(0, 0.1, leaf.shape).astype(np.float32)
    fan_in = 1  # of what is looked up or added
    if 'kernel' in name:
      is_patch = 'patch' in name
      fan_in = math.prod(leaf.shape[:-1]) if is_patch else leaf.shape[-2]
    gain = _ATTENTION_GAIN if 'to_q' in name or 'to_k' in name else 1
    return rng.normal(0, gain * fan_in**-0.5, leaf.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, model.abstract_params)


def _head(params, tokenizer: PromptTokenizer, seed: int) -> np.ndarray:
  """[D, V], of random columns; some ask for what follows a token."""
  rng = np.random.default_rng((seed, 1))
  shape = params['llm']['head']['kernel'].shape
  kernel_dv = rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32)
  embed_vd = params['llm']['token_embedding']['embedding']

  def ask(before: int, after: int, strength: float):
    direction_d = embed_vd[before] / np.sum(embed_vd[before] ** 2)
    kernel_dv[:, after] += strength * direction_d

  for before, after in chain(tokenizer).items():
    ask(before, after, _FOR_NEXT)
  for label in label_ids(tokenizer).values():
    kernel_dv[:, label] *= _LABEL_GAIN
    ask(tokenizer.inference('x', ' y', first_frames(0))[-1], label, _FOR_LABEL)
  return kernel_dv
