"""Sizes of Qwen3-VL critics, and their published config files.

config.json                        both networks
video_preprocessor_config.json     how clips are sampled and resized
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any, Self

from lift_jax.errors import UserError
from lift_jax.models.critic_config import RandomCriticConfig
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.qwen3vl import tiny_tokenizer
from lift_jax.weights.published_config import PublishedConfig, make_config

MODEL_TYPE = 'qwen3_vl'

# The same in all models of the family: pixels of a side of a patch, frames of
# a patch, and patches of a side of a token.
PATCH_SIZE, PATCH_FRAMES, MERGE_SIZE = 16, 2, 2

# `rope_theta` and `mrope_section` of files that lack them.
_ROPE_THETA = 500_000.0
_ROPE_SECTIONS = (24, 20, 20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QwenTowerConfig:
  """Sizes of the vision tower; the defaults are those of 2B.

  Attributes:
    width: of a patch.
    num_layers: number of blocks.
    num_heads: attention heads.
    mlp_width: hidden width of the MLP.
    out_width: of a token of the language model.
    num_positions: learned position embeddings, a square number.
    deepstack_layers: blocks after which features are also taken, ascending; the
      k-th are added after block k of the language model.
  """

  width: int = 1024
  num_layers: int = 24
  num_heads: int = 16
  mlp_width: int = 4096
  out_width: int = 2048
  num_positions: int = 2304
  deepstack_layers: tuple[int, ...] = (5, 11, 17)

  def __post_init__(self):
    if self.width % (4 * self.num_heads):
      raise UserError(
        f'hidden_size {self.width} of the vision tower: its {self.num_heads} '
        'heads turn pairs of rows and pairs of columns; give a multiple of '
        f'{4 * self.num_heads}'
      )
    if math.isqrt(self.num_positions) ** 2 != self.num_positions:
      raise UserError(
        f'num_position_embeddings {self.num_positions} of the vision tower are '
        'not a square grid; copy the config from the published model again'
      )
    layers = self.deepstack_layers
    if list(layers) != sorted({*layers}) or layers[-1] >= self.num_layers:
      raise UserError(
        f'deepstack_visual_indexes {list(layers)} of the vision tower: give '
        f'ascending numbers below its {self.num_layers} layers'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class QwenVideoConfig:
  """How clips are sampled and resized; the defaults are the published ones.

  Attributes:
    fps: frames per second that are taken; None if `num_frames` is given.
    num_frames: number of frames that are taken; None if `fps` is given.
    min_frames: with `fps`, frames at least, if the clip has as many.
    max_frames: with `fps`, frames at most.
    min_pixels: pixels of all frames of a clip together at least.
    max_pixels: likewise at most; larger frames are made smaller.
  """

  fps: float | None = 2.0
  num_frames: int | None = None
  min_frames: int = 4
  max_frames: int = 768
  min_pixels: int = 4096
  max_pixels: int = 25_165_824

  def __post_init__(self):
    if (self.fps is None) == (self.num_frames is None):
      raise UserError(
        f'fps is {self.fps} and num_frames {self.num_frames}; give one of them '
        'and null for the other'
      )
    for name in ('frames', 'pixels'):
      low, high = (getattr(self, f'{end}_{name}') for end in ('min', 'max'))
      if low > high:
        raise UserError(f'at least {low} and at most {high} {name}; swap them')

  @classmethod
  def from_json(cls, values: Mapping[str, Any], source: str) -> Self:
    """Reads the config of transformers' Qwen3VLVideoProcessor.

    Raises:
      UserError: a setting is missing or invalid, or of another processor.
    """
    values = {key: value for key, value in values.items() if value is not None}
    size = values.pop('size', None)
    if isinstance(size, Mapping):
      values |= {f'size.{key}': value for key, value in size.items()}
    fields = {'fps': None} | _VIDEO.read_fields(cls, values, source)
    return make_config(cls, fields, source)

  def to_json(self) -> dict[str, Any]:
    """A video_preprocessor_config.json that transformers loads."""
    values = _VIDEO.write(self)
    edges = ('longest_edge', 'shortest_edge')
    size = {edge: values.pop(f'size.{edge}') for edge in edges}
    return {
      **values,
      'size': size,
      'processor_class': 'Qwen3VLProcessor',
      'video_processor_type': 'Qwen3VLVideoProcessor',
    }


@dataclasses.dataclass(frozen=True)
class Qwen3VLConfig:
  """Sizes of both networks, and how clips are prepared.

  Attributes:
    vision_tower: encodes frames as tokens.
    llm: the language model.
    rope_sections: pairs of a head of the language model that turn by time, row
      and column.
    tied_head: whether its head is the token embedding.
    video_token_id: token of the prompt in place of a token of the frames.
    video: how clips are sampled and resized.
  """

  vision_tower: QwenTowerConfig
  llm: LlamaConfig
  rope_sections: tuple[int, ...] = _ROPE_SECTIONS
  tied_head: bool = False
  video_token_id: int = 151_656
  video: QwenVideoConfig = QwenVideoConfig()

  def __post_init__(self):
    if self.vision_tower.out_width != self.llm.width:
      raise UserError(
        f'the vision tower makes tokens of width {self.vision_tower.out_width},'
        f' and the language model has {self.llm.width}; copy the config from '
        'the published model again'
      )
    pairs, sections = self.llm.head_dim // 2, self.rope_sections
    if len(sections) != 3 or sum(sections) != pairs:
      raise UserError(
        f'mrope_section {list(sections)}: give the pairs of time, rows and '
        f'columns, {pairs} together'
      )
    num_added = len(self.vision_tower.deepstack_layers)
    if num_added > self.llm.num_layers:
      raise UserError(
        f'{num_added} deepstack_visual_indexes, but the language model has '
        f'{self.llm.num_layers} layers; give fewer'
      )
    if self.video_token_id >= self.llm.vocab_size:
      raise UserError(
        f'video_token_id {self.video_token_id} is not one of the '
        f'{self.llm.vocab_size} tokens; copy the config from the published '
        'model again'
      )

  @classmethod
  def from_json(
    cls,
    values: Mapping[str, Any],
    video: QwenVideoConfig,
    source: str = 'config.json',
  ) -> Self:
    """Reads the config.json of transformers' Qwen3VLForConditionalGeneration.

    Args:
      values: the parsed file, of any version of transformers.
      video: how clips are prepared.
      source: how errors name the file.

    Raises:
      UserError: a size is missing or invalid, or the file describes another
        network.
    """
    text, vision = (
      _section(values, f'{part}_config', source) for part in ('text', 'vision')
    )
    text = _merge_rope(text, f'text_config of {source}')
    # The first files had the type of the complete model here.
    if vision.get('model_type') == MODEL_TYPE:
      vision['model_type'] = _VISION.fixed['model_type']
    fields = {
      'vision_tower': _VISION.read(
        QwenTowerConfig, vision, f'vision_config of {source}'
      ),
      'llm': _TEXT.read(LlamaConfig, text, f'text_config of {source}'),
      'rope_sections': tuple(text['mrope_section']),
      'video': video,
    }
    fields |= _ROOT.read_fields(cls, values, source)
    return make_config(cls, fields, source)

  def to_json(self) -> dict[str, Any]:
    """A config.json that any version of transformers loads."""
    text = _TEXT.write(self.llm)
    rope_keys = ('mrope_interleaved', 'rope_type')
    rope = {key: text.pop(key) for key in rope_keys}
    rope['mrope_section'] = list(self.rope_sections)
    del text['type']  # an older name of rope_type
    vision = _VISION.write(self.vision_tower)
    del vision['rope_parameters']  # unknown to transformers 4
    return {
      'architectures': ['Qwen3VLForConditionalGeneration'],
      **_ROOT.write(self),
      'text_config': text | {'rope_scaling': rope},
      'vision_config': vision,
    }


def _section(
  values: Mapping[str, Any], key: str, source: str
) -> dict[str, Any]:
  """A section of config.json, without keys that have no value."""
  section = values.get(key)
  if not isinstance(section, Mapping):
    raise UserError(
      f'{source}: {key} is {section!r}; give the folder of a Qwen3-VL model'
    )
  return {name: value for name, value in section.items() if value is not None}


def _merge_rope(text: Mapping[str, Any], source: str) -> dict[str, Any]:
  """`text` with the settings of the rotary embedding as keys of its own.

  Up to transformers 4 they are `rope_theta` and `rope_scaling`; transformers 5
  writes both into `rope_parameters`.
  """
  merged = {'rope_theta': _ROPE_THETA, 'mrope_section': [*_ROPE_SECTIONS]}
  groups = ('rope_scaling', 'rope_parameters')
  found = [{key: value for key, value in text.items() if key not in groups}]
  found += [_section(text, key, source) for key in groups if key in text]
  thetas = {each['rope_theta'] for each in found if 'rope_theta' in each}
  if len(thetas) > 1:
    raise UserError(f'{source}: rope_theta is {thetas}; keep the right one')
  for each in found:
    merged |= each
  return merged


_ROOT = PublishedConfig(
  kind='a Qwen3-VL model',
  required={'video_token_id': 'video_token_id'},
  optional={'tie_word_embeddings': 'tied_head'},
  fixed={'model_type': MODEL_TYPE},
  ignored=(
    'image_token_id',
    'text_config',
    'vision_config',
    'vision_end_token_id',
    'vision_start_token_id',
  ),
)

_TEXT = PublishedConfig(
  kind='a Qwen3-VL language model',
  required={
    'vocab_size': 'vocab_size',
    'hidden_size': 'width',
    'num_hidden_layers': 'num_layers',
    'num_attention_heads': 'num_heads',
    'num_key_value_heads': 'num_kv_heads',
    'head_dim': 'head_dim',
    'intermediate_size': 'mlp_width',
    'rms_norm_eps': 'norm_eps',
    'max_position_embeddings': 'max_length',
    'rope_theta': 'rope_theta',
  },
  fixed={
    'model_type': 'qwen3_vl_text',
    'hidden_act': 'silu',
    'attention_bias': False,
    'attention_dropout': 0.0,
    # Of the rotary embedding, see `_merge_rope`.
    'type': 'default',
    'rope_type': 'default',
    'mrope_interleaved': True,
  },
  ignored=('mrope_section',),
)

_VISION = PublishedConfig(
  kind='the vision tower of a Qwen3-VL model',
  required={
    'hidden_size': 'width',
    'depth': 'num_layers',
    'num_heads': 'num_heads',
    'intermediate_size': 'mlp_width',
    'out_hidden_size': 'out_width',
    'num_position_embeddings': 'num_positions',
    'deepstack_visual_indexes': 'deepstack_layers',
  },
  fixed={
    'model_type': 'qwen3_vl_vision',
    'hidden_act': 'gelu_pytorch_tanh',
    'in_channels': 3,
    'patch_size': PATCH_SIZE,
    'temporal_patch_size': PATCH_FRAMES,
    'spatial_merge_size': MERGE_SIZE,
    'rope_parameters': {'rope_type': 'axial', 'rope_theta': 10_000.0},
  },
)

_VIDEO = PublishedConfig(
  kind='the video processor of a Qwen3-VL model',
  required={
    'size.shortest_edge': 'min_pixels',
    'size.longest_edge': 'max_pixels',
  },
  optional={
    'fps': 'fps',
    'num_frames': 'num_frames',
    'min_frames': 'min_frames',
    'max_frames': 'max_frames',
  },
  fixed={
    'patch_size': PATCH_SIZE,
    'temporal_patch_size': PATCH_FRAMES,
    'merge_size': MERGE_SIZE,
    'image_mean': [0.5, 0.5, 0.5],
    'image_std': [0.5, 0.5, 0.5],
    'resample': 3,  # bicubic
    'rescale_factor': 1 / 255,
    'do_resize': True,
    'do_rescale': True,
    'do_normalize': True,
    'do_sample_frames': True,
    'do_center_crop': False,
    'cap_pixels_per_frame': False,
  },
  # `video_processor_type` is that of Qwen2-VL in the first files.
  ignored=(
    'data_format',
    'default_to_square',
    'device',
    'do_convert_rgb',
    'do_pad',
    'image_processor_type',
    'input_data_format',
    'max_image_size',
    'max_video_tokens',
    'processor_class',
    'return_metadata',
    'return_tensors',
    'video_processor_type',
  ),
)


def _published(
  llm: LlamaConfig, tied_head: bool, **tower: Any
) -> Qwen3VLConfig:
  vision_tower = QwenTowerConfig(out_width=llm.width, **tower)
  return Qwen3VLConfig(vision_tower, llm, tied_head=tied_head)


def _llm(
  width: int, num_layers: int, num_heads: int, mlp_width: int
) -> LlamaConfig:
  return LlamaConfig(
    vocab_size=151_936,
    width=width,
    num_layers=num_layers,
    num_heads=num_heads,
    num_kv_heads=8,
    head_dim=128,
    mlp_width=mlp_width,
    rope_theta=5_000_000.0,
    norm_eps=1e-6,
    max_length=262_144,
  )


# As in the config files of Qwen/Qwen3-VL-2B-Instruct, -4B- and -8B-.
PUBLISHED = {
  'Qwen3-VL-2B': _published(_llm(2048, 28, 16, 6144), tied_head=True),
  'Qwen3-VL-4B': _published(_llm(2560, 36, 32, 9728), tied_head=True),
  'Qwen3-VL-8B': _published(
    _llm(4096, 36, 32, 12288),
    tied_head=False,
    width=1152,
    num_layers=27,
    mlp_width=4304,
    deepstack_layers=(8, 16, 24),
  ),
}


@dataclasses.dataclass(frozen=True)
class RandomQwen3VLConfig(RandomCriticConfig):
  """Sizes of a randomly initialised Qwen3-VL.

  Attributes:
    vision_tower: encodes frames as tokens.
    llm: the language model.
    rope_sections: see `Qwen3VLConfig`.
    tied_head: likewise.
    video: likewise.
  """

  vision_tower: QwenTowerConfig
  llm: LlamaConfig
  rope_sections: tuple[int, ...]
  tied_head: bool
  video: QwenVideoConfig

  @property
  def sizes(self) -> Qwen3VLConfig:
    return Qwen3VLConfig(
      self.vision_tower,
      self.llm,
      self.rope_sections,
      self.tied_head,
      tiny_tokenizer.VIDEO_ID,
      self.video,
    )
