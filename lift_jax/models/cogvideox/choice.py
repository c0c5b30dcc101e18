"""Which CogVideoX a job works on."""

import dataclasses
import pathlib

from lift_jax import config_lib
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.errors import UserError
from lift_jax.models.attention import BACKENDS
from lift_jax.models.cogvideox import folder
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.t5.config import T5Config


@dataclasses.dataclass(frozen=True)
class RandomModelConfig:
  """Sizes of a randomly initialised model.

  Attributes:
    seed: of its parameters.
  """

  transformer: TransformerConfig
  vae: VAEConfig
  text_encoder: T5Config
  schedule: ScheduleConfig
  seed: int


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The model of a job.

  Attributes:
    path: folder of a diffusers model, or of one that `lift convert` wrote; ''
      makes a random one in the workdir.
    adapter: folder of LoRA adapters for its transformer: what `lift align`
      exported, one of PEFT, or a file that diffusers loads; '' for none.
    random: its sizes; read only where `path` is ''.
    compute_dtype: of the transformer. What trains is fp32 all the same.
    attention: see `models.attention`.
    published: which model this is meant for, so that `lift plan` knows its
      sizes where `path` is ''; see `planning.sizes`.
  """

  path: str
  adapter: str
  random: RandomModelConfig | None
  compute_dtype: str
  attention: str
  published: str = ''

  def __post_init__(self):
    config_lib.check_choice(
      'model.compute_dtype', self.compute_dtype, ('float32', 'bfloat16')
    )
    config_lib.check_choice('model.attention', self.attention, BACKENDS)


def open_chosen(
  config: ModelConfig, workdir: pathlib.Path
) -> folder.ModelFolder:
  """Opens the model; makes `workdir/model` first where none is named.

  Raises:
    UserError: no model is named and there are no sizes to make one; or the
      folder holds no CogVideoX, or a random one of other sizes; or there are
      no adapters for it where they should be.
  """
  if config.path:
    return folder.open_model(config.path, config.adapter)
  if config.random is None:
    raise UserError(
      'model.path is empty: give the folder of a CogVideoX model, '
      'as --config.model.path=FOLDER'
    )
  made = workdir / 'model'
  folder.make_random_model(made, **vars(config.random))
  model = folder.open_model(made, config.adapter)
  _check_sizes(model, config.random)
  return model


def _check_sizes(model: folder.ModelFolder, wanted: RandomModelConfig) -> None:
  """A model made by an earlier run must be the one that is asked for."""
  seed = model.index.get(folder.RANDOM_SEED)
  if seed != wanted.seed:
    raise UserError(
      f'{model.path} was made with model.random.seed = {seed}, which is now '
      f'{wanted.seed}; give another --workdir, or delete this model'
    )
  for section in ('transformer', 'vae', 'text_encoder', 'schedule'):
    there, here = getattr(model, section), getattr(wanted, section)
    for field in dataclasses.fields(here):
      values = getattr(there, field.name), getattr(here, field.name)
      if values[0] != values[1]:
        raise UserError(
          f'{model.path} was made with model.random.{section}.{field.name} = '
          f'{values[0]!r}, which is now {values[1]!r}; give another --workdir, '
          'or delete this model'
        )
