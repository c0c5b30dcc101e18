"""The `model` config section of jobs that use a critic."""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import jax

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.models import critics
from lift_jax.models.adapter_config import AdaptersConfig
from lift_jax.models.attention import BACKENDS
from lift_jax.models.critics import Backbone, Critic
from lift_jax.models.functional import functional
from lift_jax.runtime import distributed, storage
from lift_jax.runtime.files import atomic_folder, is_complete, read_json


@dataclasses.dataclass(frozen=True)
class RandomCriticConfig:
  """A randomly initialised critic; backbones have subclasses with their sizes.

  Attributes:
    backbone: name of a `critics.Backbone`.
    seed: of the parameters.
  """

  backbone: str
  seed: int

  @classmethod
  def choose_class(cls, section: Mapping[str, Any], where: str) -> type:
    """The config class of the backbone that a config section names."""
    if 'backbone' not in section:
      raise UserError(
        f'{where} lacks backbone; name one of {list(critics.backbones())}'
      )
    name = section['backbone']
    return critics.find_backbone(name, f'{where}.backbone').random_config

  @property
  def sizes(self) -> Any:
    """`Critic.config` of such a critic."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class CriticModelConfig(AdaptersConfig):
  """The critic of a job, and adapters for it.

  Attributes:
    path: folder of a published model, such as Qwen3-VL, or of a critic that
      `lift train_critic` wrote, or the id of either on the hub,
      ORG/NAME[@REVISION]; '' makes a random one in the workdir.
    random: sizes of a random critic; used only if `path` is ''.
    template: prompt template, one of `Backbone.templates`; '' is that of the
      critic's training, if its folder says, or the usual one of the backbone.
      Of VILA: 'vicuna_v1' for 13b and 3b, 'hermes-2' for 40b. Of Qwen3-VL:
      'qwen3-vl', or 'qwen3-vl-nested' for critics trained with transformers
      5.10 or later.
    compute_dtype: of the computation.
    attention: see `models.attention`.
    published: name of the critic that the config is meant for, from which `lift
      plan` takes the sizes if `path` is ''; see `Backbone.published`.
  """

  path: str
  random: RandomCriticConfig | None
  template: str
  compute_dtype: str
  attention: str
  published: str = ''

  def __post_init__(self):
    super().__post_init__()
    config_lib.check_choice(
      'model.compute_dtype', self.compute_dtype, ('float32', 'bfloat16')
    )
    config_lib.check_choice('model.attention', self.attention, BACKENDS)


def open_chosen(config: CriticModelConfig, workdir: pathlib.Path) -> Critic:
  """Opens the critic; without a path, makes a random one in `workdir/model`.

  Raises:
    UserError: neither path nor sizes are given; the folder has no critic, or a
      random one of other sizes; or the backbone does not have the prompt
      template.
  """
  path = storage.to_path(critics.fetch_critic(config.path))
  if config.path:
    backbone = critics.backbone_of_folder(path)
  elif config.random is not None:
    backbone = _random_backbone(config.random)
  else:
    raise UserError(
      'model.path is empty: give the folder of a Qwen3-VL or VILA-1.5 model, '
      'as --config.model.path=FOLDER'
    )
  if config.template:
    config_lib.check_choice(
      'model.template', config.template, backbone.templates
    )
  if config.random is not None and not config.path:
    path = workdir / 'model'
    make_random(path, backbone, config.random.sizes, config.random.seed)
  return critics.open_critic(path, config.all_adapters)


def choose_template(
  config: CriticModelConfig, critic: Critic, trained_with: str | None
) -> str:
  """The prompt template of an opened critic.

  Args:
    config: of the job, which takes precedence.
    critic: the critic.
    trained_with: template of its training; None if unknown.

  Raises:
    UserError: the backbone does not have the template.
  """
  backbone = critics.backbone_of_folder(critic.path)
  template = config.template or trained_with
  if template:
    config_lib.check_choice('model.template', template, backbone.templates)
    return template
  if backbone.default_template is None:
    return backbone.templates[0]
  return backbone.default_template(critic.path)


def declare_chosen(config: CriticModelConfig) -> Critic:
  """The critic of a job for planning; its weights need not exist.

  Raises:
    UserError: the config does not name a critic.
  """
  if config.path:
    path = critics.fetch_critic(config.path, weights=False)
    return critics.open_critic(path, config.all_adapters)
  if config.random is not None:
    return _random_backbone(config.random).declare(config.random.sizes)
  known = {
    name: (backbone, sizes)
    for backbone in critics.backbones().values()
    for name, sizes in backbone.published.items()
  }
  if config.published not in known:
    raise UserError(
      f'model.published is {config.published!r}: name the model whose sizes to '
      f'plan for, one of {list(known)}, or give its folder as '
      '--config.model.path=FOLDER'
    )
  backbone, sizes = known[config.published]
  return backbone.declare(sizes)


def _random_backbone(config: RandomCriticConfig) -> Backbone:
  return critics.find_backbone(config.backbone, 'model.random.backbone')


def make_random(
  folder: pathlib.Path, backbone: Backbone, sizes: Any, seed: int
) -> None:
  """Writes a randomly initialised critic; every host must call it.

  Does nothing if the folder already contains one.

  Args:
    folder: the folder to write.
    backbone: of the critic.
    sizes: its `Critic.config`.
    seed: of the parameters.

  Raises:
    UserError: the existing one was made with other settings.
  """
  file = folder / 'config.json'
  if file.is_file() and is_complete(folder):
    existing = critics.open_critic(folder).config
    existing_seed = read_json(file).get(critics.RANDOM_SEED)
    if (existing, existing_seed) != (sizes, seed):
      raise UserError(
        f'{folder} was made with other settings of model.random; give another '
        '--workdir, or delete this critic'
      )
    return
  critic = backbone.declare(sizes)
  with atomic_folder(folder) as partial:
    if distributed.is_primary():
      backbone.write_draft(partial, sizes, seed)
    with jax.default_device(jax.local_devices()[0]):
      params = jax.jit(functional(critic.build()).init)(jax.random.key(seed))
    critic.save_weights(partial, params, None)
