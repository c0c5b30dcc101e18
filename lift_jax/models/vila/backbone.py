"""VILA-1.5 as a critic backbone."""

from collections.abc import Callable
import dataclasses
import math
import pathlib
from typing import Any, Self

from flax import nnx
import jax
import numpy as np

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import critics, lora
from lift_jax.models.adapter_names import PEFT_PREFIX
from lift_jax.models.critic_protocols import ClipMetadata, FrameSelection
from lift_jax.models.frames import evenly_spaced_frames, resize_bicubic
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.models.llama.convert import LLAMA_TABLE
from lift_jax.models.llama.critic import LlamaCritic, check_vocabulary
from lift_jax.models.vila import flops, folder, prompt, sharding
from lift_jax.models.vila.config import (
  PUBLISHED,
  RandomVilaConfig,
  VilaConfig,
)
from lift_jax.models.vila.model import Vila
from lift_jax.models.vila.tokenizer import PromptTokenizer, default_template
from lift_jax.weights import conversion
from lift_jax.weights.conversion import within

# Adapters of the language model, with our names within the full critic.
ADAPTER_TABLE = lora.adapter_table(
  within('llm', LLAMA_TABLE), prefix=f'{PEFT_PREFIX}llm.'
)
# The tower in VILA's code, a module within a module.
_TOWER_MODULE = 'vision_tower.vision_tower.'


@dataclasses.dataclass(frozen=True)
class VilaFrames:
  """Evenly spaced frames, resized to a square.

  The array of a clip is uint8 [num_frames, size, size, 3]; shorter clips are
  padded with zeros, for which the prompt has no tokens.

  Attributes:
    num_frames: frames that the critic reads, at most.
    size: height and width, in pixels.
    tokens_per_frame: tokens of a frame.
  """

  num_frames: int
  size: int
  tokens_per_frame: int

  def select(self, clip: ClipMetadata) -> FrameSelection:
    indices = evenly_spaced_frames(clip.num_frames, self.num_frames)
    return FrameSelection(
      tuple(indices),
      self.num_frames * self.tokens_per_frame,
      is_short=len(indices) < self.num_frames,
    )

  def preprocess(
    self, frames_thw3: np.ndarray, selection: FrameSelection
  ) -> np.ndarray:
    shape = self.shapes(selection)
    padded_thw3 = np.zeros(shape.shape, shape.dtype)
    padded_thw3[: len(frames_thw3)] = resize_bicubic(frames_thw3, self.size)
    return padded_thw3

  def shapes(self, selection: FrameSelection) -> jax.ShapeDtypeStruct:
    del selection  # the same for all clips
    shape = self.num_frames, self.size, self.size, 3
    return jax.ShapeDtypeStruct(shape, np.uint8)


@dataclasses.dataclass(frozen=True)
class VilaCritic(LlamaCritic):
  """VILA-1.5; adapters are those of the language model, as in LiFT, or of the
  vision tower.
  """

  config: VilaConfig

  tower_targets = ('vision_tower/blocks/(attn|mlp)/[^/]+',)
  projector = ('projector/',)

  @property
  def adapter_table(self) -> conversion.Table:
    tower = folder.tower_table(self.config.vision_tower)
    return (
      *ADAPTER_TABLE,
      *lora.adapter_table(
        within('vision_tower', tower), prefix=f'{PEFT_PREFIX}{_TOWER_MODULE}'
      ),
    )

  def build(self, **options: Any) -> Callable[[nnx.Rngs], Vila]:
    return lambda rngs: Vila(self.config, rngs=rngs, **options)

  def with_frames(self, **settings: Any) -> Self:
    if others := settings.keys() - {'num_frames'}:
      raise UserError(
        f'frames.{min(others)}: VILA takes evenly spaced frames of one size; '
        'only frames.num_frames can be set'
      )
    return dataclasses.replace(
      self, config=dataclasses.replace(self.config, **settings)
    )

  @property
  def rules(self) -> partitioning.Rules:
    return sharding.rules(self.config)

  def check_mesh(self, mesh: jax.sharding.Mesh) -> None:
    sharding.check_mesh(self.config, mesh)

  @property
  def frames(self) -> VilaFrames:
    return VilaFrames(
      self.config.num_frames,
      self.config.vision_tower.image_size,
      self.config.tokens_per_frame,
    )

  def open_tokenizer(self, template: str) -> PromptTokenizer:
    llm, path = self.config.llm, self.path / folder.LLM
    tokenizer = PromptTokenizer(
      path,
      template,
      self.config.tokens_per_frame,
      max_length=llm.max_length,
    )
    check_vocabulary(path, tokenizer, llm)
    return tokenizer

  def vision_flops(self, frames: Any) -> float:
    return flops.vision_flops(self.config, math.prod(frames.shape[:2]))

  def file_hashes(self) -> list[str]:
    return folder.file_hashes(self.path)

  def vision_attention_flops(self, frames: Any) -> float:
    return flops.vision_attention_flops(
      self.config, math.prod(frames.shape[:2])
    )

  def load_weights(
    self,
    model: FunctionalModel,
    shardings: Params,
    dtype: Any,
    update: Callable[[str, jax.Array], jax.Array] | None,
  ) -> Params:
    return folder.load_weights(
      self.path, self.config, model, shardings, dtype, update
    )

  def save_weights(
    self, target: pathlib.Path, params: Params, dtype: str | None
  ) -> None:
    folder.save_weights(target, self.config, params, dtype)

  def copy_configs(self, target: pathlib.Path, dtype: str) -> None:
    folder.copy_configs(self.path, target, dtype)


BACKBONE = critics.Backbone(
  name='vila',
  model_types=(folder.MODEL_TYPE,),
  templates=tuple(prompt.TEMPLATES),
  random_config=RandomVilaConfig,
  published=PUBLISHED,
  open=lambda path: VilaCritic(path, folder.read_config(path)),
  declare=lambda config: VilaCritic(pathlib.Path(), config),
  write_draft=folder.write_draft,
  folders=tuple(folder.PARTS),
  default_template=lambda path: default_template(path / folder.LLM),
)
