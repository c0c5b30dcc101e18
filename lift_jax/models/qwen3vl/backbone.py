"""Qwen3-VL as a critic backbone."""

from collections.abc import Callable
import dataclasses
import pathlib
from typing import Any, Self

from flax import nnx
import jax

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import critics
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.models.llama.critic import LlamaCritic, check_vocabulary
from lift_jax.models.llama.sharding import check_heads
from lift_jax.models.qwen3vl import flops, folder, prompt, sharding
from lift_jax.models.qwen3vl.config import (
  MODEL_TYPE,
  PUBLISHED,
  Qwen3VLConfig,
  QwenVideoConfig,
  RandomQwen3VLConfig,
)
from lift_jax.models.qwen3vl.convert import ADAPTER_TABLE
from lift_jax.models.qwen3vl.model import Qwen3VL
from lift_jax.models.qwen3vl.tokenizer import QwenTokenizer
from lift_jax.models.qwen3vl.video import QwenFrames
from lift_jax.weights import conversion


@dataclasses.dataclass(frozen=True)
class Qwen3VLCritic(LlamaCritic):
  """Qwen3-VL; adapters are those of the language model and of the tower."""

  config: Qwen3VLConfig

  tower_targets = ('vision_tower/blocks/(attn|mlp)/[^/]+',)
  projector = ('vision_tower/merger/', 'vision_tower/deepstack_mergers/')

  @property
  def adapter_table(self) -> conversion.Table:
    return ADAPTER_TABLE

  def build(self, **options: Any) -> Callable[[nnx.Rngs], Qwen3VL]:
    return lambda rngs: Qwen3VL(self.config, rngs=rngs, **options)

  def with_frames(self, **settings: Any) -> Self:
    values: dict[str, Any] = {**dataclasses.asdict(self.config.video)}
    if 'num_frames' in settings or 'fps' in settings:
      values.update(num_frames=None, fps=None)
    values.update(settings)
    video = QwenVideoConfig(**values)
    return dataclasses.replace(
      self, config=dataclasses.replace(self.config, video=video)
    )

  @property
  def rules(self) -> partitioning.Rules:
    return sharding.rules(tied_head=self.config.tied_head)

  def check_mesh(self, mesh: jax.sharding.Mesh) -> None:
    check_heads(self.config.llm, mesh)

  @property
  def frames(self) -> QwenFrames:
    return QwenFrames(self.config.video)

  def open_tokenizer(self, template: str) -> QwenTokenizer:
    llm = self.config.llm
    tokenizer = QwenTokenizer(
      self.path, prompt.TEMPLATES[template], llm.max_length
    )
    check_vocabulary(self.path, tokenizer, llm)
    if tokenizer.video_id != self.config.video_token_id:
      raise UserError(
        f'{self.path}: {prompt.VIDEO} is token {tokenizer.video_id}, and '
        f'video_token_id of config.json {self.config.video_token_id}; use both '
        'from the same model'
      )
    return tokenizer

  def vision_flops(self, frames: Any) -> float:
    clips, pairs, num_patches, _ = frames['patches'].shape
    return flops.tower_flops(
      self.config.vision_tower, clips * pairs, num_patches
    )

  def file_hashes(self) -> list[str]:
    return folder.file_hashes(self.path)

  def vision_attention_flops(self, frames: Any) -> float:
    clips, pairs, num_patches, _ = frames['patches'].shape
    return flops.tower_attention_flops(
      self.config.vision_tower, clips * pairs, num_patches
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
  name='qwen3vl',
  model_types=(MODEL_TYPE,),
  templates=tuple(prompt.TEMPLATES),
  random_config=RandomQwen3VLConfig,
  published=PUBLISHED,
  open=lambda path: Qwen3VLCritic(path, folder.read_config(path)),
  declare=lambda config: Qwen3VLCritic(pathlib.Path(), config),
  write_draft=folder.write_draft,
)
