"""Which critic a job works with."""

import dataclasses
import pathlib

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.models.attention import BACKENDS
from lift_jax.models.critic import folder, prompt
from lift_jax.models.critic.critic import CriticConfig
from lift_jax.models.critic.projector import ProjectorConfig
from lift_jax.models.critic.tokens import PromptTokenizer
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.siglip.config import SiglipConfig


@dataclasses.dataclass(frozen=True)
class RandomCriticConfig:
  """Sizes of a randomly initialised critic.

  Attributes:
    vision_tower: what looks at frames.
    llm: what reads and answers.
    seed: of its parameters.
  """

  vision_tower: SiglipConfig
  llm: LlamaConfig
  seed: int

  @property
  def sizes(self) -> CriticConfig:
    """Of the whole critic."""
    widths = {'vision_width': self.vision_tower.width, 'width': self.llm.width}
    projector = ProjectorConfig(**widths)
    return CriticConfig(self.vision_tower, projector, self.llm)


@dataclasses.dataclass(frozen=True)
class CriticModelConfig:
  """The critic of a job.

  Attributes:
    path: folder of a VILA-1.5 model, or of a critic that `lift train_critic`
      wrote; '' makes a random one in the workdir.
    adapter: folder of LoRA adapters for it, as LiFT publishes them or
      `lift train_critic` writes them; '' for none.
    random: its sizes; read only where `path` is ''.
    template: form of the prompts: 'vicuna_v1' for 13b and 3b, 'hermes-2' for
      40b.
    compute_dtype: of the computation.
    attention: see `models.attention`.
    published: which critic this is meant for, so that `lift plan` knows its
      sizes where `path` is ''; see `planning.sizes`.
  """

  path: str
  adapter: str
  random: RandomCriticConfig | None
  template: str
  compute_dtype: str
  attention: str
  published: str = ''

  def __post_init__(self):
    config_lib.check_choice(
      'model.compute_dtype', self.compute_dtype, ('float32', 'bfloat16')
    )
    config_lib.check_choice('model.attention', self.attention, BACKENDS)
    config_lib.check_choice('model.template', self.template, prompt.TEMPLATES)


def open_chosen(
  config: CriticModelConfig, workdir: pathlib.Path
) -> folder.CriticFolder:
  """Opens the critic; makes `workdir/model` first where none is named.

  Raises:
    UserError: no critic is named and there are no sizes to make one; or the
      folder holds none, or a random one of other sizes.
  """
  if config.path:
    return folder.open_critic(config.path, config.adapter)
  if config.random is None:
    raise UserError(
      'model.path is empty: give the folder of a VILA-1.5 model, '
      'as --config.model.path=FOLDER'
    )
  made = workdir / 'model'
  folder.make_random_critic(made, config.random.sizes, config.random.seed)
  return folder.open_critic(made, config.adapter)


def open_tokenizer(
  config: CriticModelConfig, critic: folder.CriticFolder
) -> PromptTokenizer:
  """The tokenizer of a critic, which must belong to its language model.

  Raises:
    UserError: see `PromptTokenizer`; or it has more tokens than the model.
  """
  sizes = critic.config
  tokenizer = PromptTokenizer(
    critic.path / folder.LLM,
    config.template,
    sizes.tokens_per_frame,
    max_length=sizes.llm.max_length,
  )
  if tokenizer.vocab_size > sizes.llm.vocab_size:
    raise UserError(
      f'{critic.path / folder.LLM}: the tokenizer has {tokenizer.vocab_size} '
      f'tokens, the language model {sizes.llm.vocab_size}; take both from one '
      'model'
    )
  return tokenizer
