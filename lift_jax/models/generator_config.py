"""The `model` config section of jobs that use a text-to-video model."""

import dataclasses
import pathlib

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.models import generator_folder, generators
from lift_jax.models.adapter_config import AdaptersConfig
from lift_jax.models.attention import BACKENDS
from lift_jax.models.generators import (
  CONFIG_FILES,
  RandomModelConfig,
  VideoModel,
)


@dataclasses.dataclass(frozen=True)
class ModelConfig(AdaptersConfig):
  """The model of a job, and adapters for its transformer.

  Attributes:
    path: folder of a diffusers model, or one that `lift convert` wrote, or the
      id of a diffusers model on the hub, ORG/NAME[@REVISION]; '' makes a random
      model in the workdir.
    random: family and sizes of a random model; used only if `path` is ''.
    compute_dtype: of the transformer. Trainable parameters are always fp32.
    attention: see `models.attention`.
    published: name of the model that the config is meant for, from which `lift
      plan` takes the sizes if `path` is ''; see `VideoModel.published`.
  """

  path: str
  random: RandomModelConfig | None
  compute_dtype: str
  attention: str
  published: str = ''

  def __post_init__(self):
    super().__post_init__()
    config_lib.check_choice(
      'model.compute_dtype', self.compute_dtype, ('float32', 'bfloat16')
    )
    config_lib.check_choice('model.attention', self.attention, BACKENDS)


def open_named(config: ModelConfig) -> VideoModel | None:
  """The model at `path` with its adapters; None if there is no path."""
  if not config.path:
    return None
  path = generators.fetch_model(config.path)
  return generators.open_model(path, config.all_adapters)


def open_chosen(config: ModelConfig, workdir: pathlib.Path) -> VideoModel:
  """Opens the model; without a path, makes a random one in `workdir/model`.

  Raises:
    UserError: neither path nor sizes are given; or the folder has no model of a
      registered family, or a random one of other sizes; or `adapters` are not
      for it.
  """
  named = open_named(config)
  if named is not None:
    return named
  if config.random is None:
    raise UserError(
      'model.path is empty: give the folder of a text-to-video model, '
      'as --config.model.path=FOLDER'
    )
  made = workdir / 'model'
  generator_folder.make_random_model(made, config.random)
  model = generators.open_model(made, config.all_adapters)
  _check_sizes(model, config.random)
  return model


def declare_chosen(config: ModelConfig) -> VideoModel:
  """The model of a job for planning; its weights need not exist.

  Raises:
    UserError: the config does not name a model.
  """
  if config.path:
    path = generators.fetch_model(config.path, weights=False)
    return generators.open_model(path, config.all_adapters)
  if config.random is not None:
    return generators.from_sizes(config.random)
  known = generators.published_sizes()
  if config.published not in known:
    raise UserError(
      f'model.published is {config.published!r}: name the model whose sizes to '
      f'plan for, one of {list(known)}, or give its folder as '
      '--config.model.path=FOLDER'
    )
  return generators.from_sizes(known[config.published])


def _check_sizes(model: VideoModel, wanted: RandomModelConfig) -> None:
  """Raises UserError if an earlier run made a random model of other sizes."""
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
