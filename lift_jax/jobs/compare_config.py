"""Settings of `lift compare`."""

import dataclasses
import itertools
import pathlib

from lift_jax import config_lib
from lift_jax.comparison.statistics import StatisticsConfig
from lift_jax.data.clip_paths import FOLLOW_LINKS
from lift_jax.errors import UserError
from lift_jax.models.generator_config import ModelConfig
from lift_jax.partitioning import MeshConfig
from lift_jax.report.compare_page import ComparePageConfig
from lift_jax.rewards.weights import RewardMap
from lift_jax.runtime import storage


@dataclasses.dataclass(frozen=True)
class ModelsConfig:
  """The models.

  Attributes:
    names: in the report; () takes the names of the folders.
    folders: workdirs of `lift sample`, one for each model.
    every_pair: compares each model with all before it, the last two first;
      otherwise the others are compared with the first.
  """

  names: tuple[str, ...]
  folders: tuple[str, ...]
  every_pair: bool

  def __post_init__(self):
    _check_count('models.names', self.names, self.folders)
    if len(set(self.names)) < len(self.names):
      raise UserError(f'models.names is {self.names}; name each model once')
    if len(set(self.folders)) < len(self.folders):
      raise UserError(f'models.folders is {self.folders}; list a folder once')
    if len(self.folders) == 1:
      raise UserError('models.folders has one folder; give two or more')

  @property
  def compared(self) -> list[tuple[int, int]]:
    """Indices of a base and a model, of each comparison."""
    count = len(self.folders)
    if not self.every_pair:
      return [(0, model) for model in range(1, count)]
    pairs = itertools.combinations(range(count), 2)
    return sorted(pairs, key=lambda pair: (-pair[1], -pair[0]))


@dataclasses.dataclass(frozen=True)
class SuiteConfig:
  """The clips that there should be.

  Attributes:
    file: what `lift compare prompts` wrote; '' takes the clips that any of the
      models has, which must be of the same prompts.
    allow_missing: whether a set may lack clips. In VBench's results they count
      as 0, as dimensions without a result do on the leaderboard; other metrics
      are about the clips that both models have.
  """

  file: str
  allow_missing: bool


@dataclasses.dataclass(frozen=True)
class OwnMetricsConfig:
  """What is measured here, and metrics of one's own.

  Attributes:
    weights: folders of the networks that some metrics need, by name; '' for
      those that are not there.
    files: metrics that were computed elsewhere, one file for each model (see
      `comparison.metric_files`); () for none.
  """

  weights: dict
  files: tuple[str, ...]

  def folders(self) -> dict[str, pathlib.Path]:
    """The folders that are given."""
    return {
      name: storage.to_path(folder)
      for name, folder in self.weights.items()
      if folder
    }


@dataclasses.dataclass(frozen=True)
class FlowConfig:
  """Optical flow of the clips, for VBench's static filter and dynamic degree.

  Attributes:
    folders: of arrays, one folder for each model (see `comparison.flow`); ()
      for none.
  """

  folders: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DistanceConfig:
  """Distance to base, on latents of the base's clips.

  Attributes:
    models: folders of the networks, one for each model; () for none.
    adapters: folders of LoRA adapters of each, '' for none; () if none has any.
    compute_dtype: of the computation.
    attention: see `models.attention`.
    draws: noises and timesteps of each clip.
    batch_per_shard: clips at a time, per shard of a batch.
    mesh: of one host's devices.
  """

  models: tuple[str, ...]
  adapters: tuple[str, ...]
  compute_dtype: str
  attention: str
  draws: int
  batch_per_shard: int
  mesh: MeshConfig

  def __post_init__(self):
    for name in ('draws', 'batch_per_shard'):
      if getattr(self, name) < 1:
        raise UserError(f'distance.{name} must be above 0')
    self.model_configs()  # checks its arguments before anything is measured

  def model_configs(self) -> list[ModelConfig]:
    """The config of each model."""
    adapters = self.adapters or ('',) * len(self.models)
    return [
      ModelConfig(
        path=path,
        adapter=adapter,
        random=None,
        compute_dtype=self.compute_dtype,
        attention=self.attention,
      )
      for path, adapter in zip(self.models, adapters, strict=False)
    ]


@dataclasses.dataclass(frozen=True)
class CriticScoresConfig:
  """Critics' scores of the clips, from `lift score`.

  Attributes:
    files: scores of the critic that the models were trained with, one file for
      each model; () for none.
    held_out: scores of a second critic that nothing was trained with.
    trained_on: HRA files that the critics were trained on, or other files of
      prompts; a prompt in both these and the clips is an error.
    reward: score of each label.
  """

  files: tuple[str, ...]
  held_out: tuple[str, ...]
  trained_on: tuple[str, ...]
  reward: RewardMap


@dataclasses.dataclass(frozen=True)
class VBenchConfig:
  """Results of VBench or VBench-Long.

  Attributes:
    folders: of *_eval_results.json, one for each model; () for none.
    submission: whether to write a zip file for the leaderboard.
  """

  folders: tuple[str, ...]
  submission: bool

  def __post_init__(self):
    if self.submission and not self.folders:
      raise UserError('vbench.submission needs the results in vbench.folders')


@dataclasses.dataclass(frozen=True)
class PeopleConfig:
  """Pairs of clips that people compared.

  Attributes:
    root: folder that their paths are relative to; '' is the current folder.
    files: see `data.pair_records`; () for none.
    follow_links: links out of the root that may be followed; see
      `clip_paths.ClipFolder`.
  """

  root: str
  files: tuple[str, ...]
  follow_links: str

  def __post_init__(self):
    config_lib.check_choice(
      'people.follow_links', self.follow_links, FOLLOW_LINKS
    )


@dataclasses.dataclass(frozen=True)
class CompareRunConfig:
  """How the work is divided.

  Attributes:
    num_readers: threads that decode and measure clips.
  """

  num_readers: int

  def __post_init__(self):
    if self.num_readers < 1:
      raise UserError('run.num_readers must be above 0')


@dataclasses.dataclass(frozen=True)
class CompareConfig:
  """Sections of a comparison.

  Without folders, `toy_prompts` prompts of the toy world are used, with clips
  of two simulated models.
  """

  models: ModelsConfig
  suite: SuiteConfig
  metrics: OwnMetricsConfig
  flow: FlowConfig
  distance: DistanceConfig
  critic: CriticScoresConfig
  vbench: VBenchConfig
  people: PeopleConfig
  statistics: StatisticsConfig
  report: ComparePageConfig
  run: CompareRunConfig
  toy_prompts: int

  def __post_init__(self):
    for name, given in (
      ('metrics.files', self.metrics.files),
      ('flow.folders', self.flow.folders),
      ('distance.models', self.distance.models),
      ('distance.adapters', self.distance.adapters),
      ('critic.files', self.critic.files),
      ('critic.held_out', self.critic.held_out),
      ('vbench.folders', self.vbench.folders),
    ):
      _check_count(name, given, self.models.folders)


def _check_count(
  name: str, given: tuple[str, ...], folders: tuple[str, ...]
) -> None:
  if given and len(given) != len(folders):
    raise UserError(
      f'{name} has {len(given)} items for {len(folders)} models.folders; give '
      'one for each, in the same order'
    )
