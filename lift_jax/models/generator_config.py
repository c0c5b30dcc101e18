"""Which text-to-video model a job works on."""

import dataclasses
import pathlib

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.models import generator_folder, generators
from lift_jax.models.attention import BACKENDS
from lift_jax.models.generators import (
  CONFIG_FILES,
  RandomModelConfig,
  VideoModel,
)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The model of a job.

  Attributes:
    path: folder of a diffusers model, or of one that `lift convert` wrote; ''
      makes a random one in the workdir.
    adapter: folder of LoRA adapters for its transformer: what `lift align`
      exported, one of PEFT, or a file that diffusers loads; '' for none.
    random: its family and sizes; read only where `path` is ''.
    compute_dtype: of the transformer. What trains is fp32 all the same.
    attention: see `models.attention`.
    published: which model this is meant for, so that `lift plan` knows its
      sizes where `path` is ''; see `VideoModel.published`.
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


def open_chosen(config: ModelConfig, workdir: pathlib.Path) -> VideoModel:
  """Opens the model; makes `workdir/model` first where none is named.

  Raises:
    UserError: no model is named and there are no sizes to make one; or the
      folder holds no model of a known family, or a random one of other sizes;
      or there are no adapters for it where they should be.
  """
  if config.path:
    return generators.open_model(config.path, config.adapter)
  if config.random is None:
    raise UserError(
      'model.path is empty: give the folder of a text-to-video model, '
      'as --config.model.path=FOLDER'
    )
  made = workdir / 'model'
  generator_folder.make_random_model(made, config.random)
  model = generators.open_model(made, config.adapter)
  _check_sizes(model, config.random)
  return model


def declare_chosen(config: ModelConfig) -> VideoModel:
  """The model of a job, whose weights need not be there.

  Raises:
    UserError: the config does not say which it is.
  """
  if config.path:
    return generators.open_model(config.path, config.adapter)
  if config.random is not None:
    return generators.of_sizes(config.random)
  known = generators.published_sizes()
  if config.published not in known:
    raise UserError(
      f'model.published is {config.published!r}: name the model whose sizes to '
      f'plan for, one of {list(known)}, or give its folder as '
      '--config.model.path=FOLDER'
    )
  return generators.of_sizes(known[config.published])


def _check_sizes(model: VideoModel, wanted: RandomModelConfig) -> None:
  """A model made by an earlier run must be the one that is asked for."""
  seed = model.index.get(generator_folder.RANDOM_SEED)
  settings = [
    ('family', model.family, wanted.family),
    ('seed', seed, wanted.seed),
  ]
  if model.family == wanted.family:
    for part in CONFIG_FILES:
      there, here = getattr(model, part), getattr(wanted, part)
      settings += [
        (
          f'{part}.{field.name}',
          getattr(there, field.name),
          getattr(here, field.name),
        )
        for field in dataclasses.fields(here)
      ]
  for name, there, here in settings:
    if there != here:
      raise UserError(
        f'{model.path} was made with model.random.{name} = {there!r}, which is '
        f'now {here!r}; give another --workdir, or delete this model'
      )
