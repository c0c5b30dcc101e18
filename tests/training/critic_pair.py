"""A tiny critic in torch, the same in ours, and a batch to teach it with."""

import copy
import functools
import re
import types

import numpy as np

from lift_jax.models import lora
from lift_jax.models.functional import functional
from lift_jax.models.llama.convert import LLAMA_TABLE
from lift_jax.models.siglip.convert import SIGLIP_TABLE, siglip_ignored
from lift_jax.models.vila.backbone import ADAPTER_TABLE
from lift_jax.models.vila.model import Vila
from lift_jax.models.vila.projector import PROJECTOR_TABLE
from lift_jax.training.critic_step import CriticBatch
from lift_jax.weights import param_paths
from tests.models.vila import tiny_vila
from tests.models.vila.critics import (
  CONFIG,
  PEFT_TARGETS,
  make_frames,
  make_tokens,
)
from tests.optional import peft, torch
from tests.torch_weights import params_from_torch

ADAPTERS = lora.LoRAConfig(
  rank=4,
  alpha=8.0,
  targets=('llm/blocks/attn/to_(q|k|v|out)', 'llm/blocks/mlp/(gate|up|down)'),
)
# Answer tokens of each row; one has none.
NUM_TARGETS = (5, 1, 0, 6, 2, 4, 6, 3)
NUM_TOKENS = 40


def make_batch():
  """Rows of different lengths and numbers of frames, with different weights.

  Half of the answer tokens are what the critic would say, the others are not.
  """
  rng = np.random.default_rng(4)
  size = len(NUM_TARGETS)
  prompts, lengths = make_tokens([3, 2, 3, 1, 3, 0, 2, 3], NUM_TOKENS)
  is_target = np.zeros(prompts.shape, bool)
  for row, (begin, count) in enumerate(zip(lengths, NUM_TARGETS, strict=True)):
    prompts[row, begin : begin + count] = rng.integers(3, 500, count)
    is_target[row, begin : begin + count] = True
  ends = lengths + np.array(NUM_TARGETS)
  assert ends.max() <= NUM_TOKENS
  frames = make_frames(size, 3)
  for place in range(max(NUM_TARGETS)):
    with torch.no_grad():
      _, logits = tiny_vila.shared()(frames, prompts)
    for row, count in enumerate(NUM_TARGETS):
      if place < count and (row + place) % 2:
        here = lengths[row] + place
        prompts[row, here] = logits[row, here - 1].argmax()
  return CriticBatch(
    frames=frames,
    tokens=prompts,
    is_target=is_target,
    segment_ids=(np.arange(NUM_TOKENS) < ends[:, None]).astype(np.int32),
    weight=rng.uniform(0.2, 3, size).astype(np.float32),
  )


BATCH = make_batch()


def declare(trainable, **options):
  def build(rngs):
    return Vila(CONFIG, rngs=rngs, **options)

  if trainable == 'lora':
    build = lora.adapted(build, ADAPTERS)
  return functional(build)


@functools.cache
def torch_critic(trainable):
  """The torch critic; with adapters none of which is at zero."""
  vila = copy.deepcopy(tiny_vila.shared())
  if trainable == 'all':
    return vila
  torch.manual_seed(1)
  adapted = peft.get_peft_model(
    vila,
    peft.LoraConfig(r=4, lora_alpha=8, target_modules=PEFT_TARGETS),
  )
  with torch.no_grad():
    for name, tensor in adapted.named_parameters():
      if 'lora_B' in name:
        tensor.normal_(0, 0.1)
  return adapted


@functools.cache
def params_of(trainable):
  """Our parameters, from torch by the shipped tables."""
  abstract, base = param_paths.partition(
    declare(trainable).abstract_params, lora.is_adapter
  )
  vila = tiny_vila.shared()
  ignored = siglip_ignored(CONFIG.vision_tower)
  tower = {
    f'vision_model.{name}': tensor
    for name, tensor in vila.tower.state_dict().items()
  }
  params = {
    'llm': params_from_torch(LLAMA_TABLE, base['llm'], vila.llm),
    'vision_tower': params_from_torch(
      SIGLIP_TABLE,
      base['vision_tower'],
      types.SimpleNamespace(state_dict=lambda: tower),
      skip=[n for n in tower if any(re.fullmatch(x, n) for x in ignored)],
    ),
    'projector': params_from_torch(
      PROJECTOR_TABLE, base['projector'], vila.mm_projector
    ),
  }
  if trainable == 'all':
    return params
  added = types.SimpleNamespace(
    state_dict=lambda: peft.get_peft_model_state_dict(torch_critic('lora'))
  )
  return param_paths.merge(
    params, params_from_torch(ADAPTER_TABLE, abstract, added)
  )
