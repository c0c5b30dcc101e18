"""A tiny VILA-1.5 in torch, and its folder as published."""

import functools
import json
import pathlib

import numpy as np

from lift_jax.models.vila import tiny_tokenizer
from lift_jax.models.vila.tokenizer import IMAGE_TOKEN
from tests.models.vila.critics import (
  CONFIG,
  PROJECTOR_JSON,
  TOKENS_PER_FRAME,
)
from tests.models.vila.torch_projector import Reference
from tests.optional import safetensors_torch, torch, transformers

# What stands in the root config.json of VILA-1.5 besides what we read.
ROOT = {
  'architectures': ['LlavaLlamaModel'],
  'hidden_size': 48,
  'image_aspect_ratio': 'resize',
  'interpolate_mode': 'linear',
  'llm_cfg': {'_name_or_path': './llm', 'model_type': 'llama'},
  'mm_projector_cfg': './mm_projector',
  'mm_vision_select_feature': 'cls_patch',
  'mm_vision_select_layer': -2,
  'model_dtype': 'torch.bfloat16',
  'model_type': 'llava_llama',
  'num_video_frames': 8,
  'resume_path': './somewhere',
  's2': False,
  'vision_tower_cfg': {'_name_or_path': './vision_tower'},
}


class Vila(torch.nn.Module):
  """The three networks; its module names are those of the published code."""

  def __init__(self):
    super().__init__()
    self.llm = transformers.LlamaForCausalLM(
      transformers.LlamaConfig(
        **CONFIG.llm.to_json(), attn_implementation='eager'
      )
    )
    # Two levels of one name, as in VILA.
    self.vision_tower = torch.nn.ModuleDict({
      'vision_tower': transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(
          **CONFIG.vision_tower.to_json(), attn_implementation='eager'
        )
      )
    })  # fmt: skip
    self.mm_projector = Reference(CONFIG.projector)

  @property
  def tower(self) -> transformers.SiglipVisionModel:
    return self.vision_tower['vision_tower']

  def forward(self, frames_bthw3, tokens_bn):
    """(hidden states [B, N, D], logits [B, N, V]), padded on the right."""
    batch, num_frames = frames_bthw3.shape[:2]
    pixels = torch.tensor(frames_bthw3).flatten(0, 1).permute(0, 3, 1, 2)
    patches = self.tower(
      (pixels / 255 - 0.5) / 0.5, output_hidden_states=True
    ).hidden_states[-2]
    image = self.mm_projector(patches)
    image = image.reshape(batch, num_frames * TOKENS_PER_FRAME, -1)
    tokens = torch.tensor(np.array(tokens_bn)).long()
    x = self.llm.get_input_embeddings()(tokens.clamp(min=0)).clone()
    for row in range(batch):
      is_image = tokens[row] == IMAGE_TOKEN
      x[row, is_image] = image[row, : int(is_image.sum())]
    out = self.llm(inputs_embeds=x, output_hidden_states=True, use_cache=False)
    return out.hidden_states[-1], out.logits

  def prepare_inputs_for_generation(self):
    """PEFT asks for it of anything that is a causal language model."""
    raise NotImplementedError


def make(seed: int = 0) -> Vila:
  """Random networks; no parameter keeps its default of one or zero."""
  torch.manual_seed(seed)
  vila = Vila().eval()
  with torch.no_grad():
    for name, tensor in vila.named_parameters():
      is_scale = 'norm' in name or name == 'mm_projector.layers.1.weight'
      if is_scale and name.endswith('weight'):
        tensor.uniform_(0.5, 1.5)
      elif tensor.ndim == 1:
        tensor.normal_(0, 0.3)
      else:
        tensor.normal_(0, 1.3 * tensor[0].numel() ** -0.5)
  return vila


@functools.cache
def shared() -> Vila:
  """One for all tests that do not change it."""
  return make()


def write(folder: pathlib.Path, vila: Vila) -> pathlib.Path:
  """Writes a VILA-1.5 folder, the language model in several files."""
  for name in ('llm', 'vision_tower', 'mm_projector'):
    (folder / name).mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps(ROOT))
  vila.llm.save_pretrained(folder / 'llm', max_shard_size='60KB')
  tiny_tokenizer.write(folder / 'llm')
  vila.tower.config.save_pretrained(folder / 'vision_tower')
  # Version 5 of transformers drops the prefix.
  tensors = {
    f'vision_model.{name}': tensor
    for name, tensor in vila.tower.state_dict().items()
  }
  safetensors_torch.save_file(
    tensors, folder / 'vision_tower' / 'model.safetensors'
  )
  preprocessor = {'image_processor_type': 'SiglipImageProcessor'}
  (folder / 'vision_tower' / 'preprocessor_config.json').write_text(
    json.dumps(preprocessor)
  )
  (folder / 'mm_projector' / 'config.json').write_text(
    json.dumps(PROJECTOR_JSON)
  )
  safetensors_torch.save_file(
    vila.mm_projector.state_dict(),
    folder / 'mm_projector' / 'model.safetensors',
  )
  return folder
