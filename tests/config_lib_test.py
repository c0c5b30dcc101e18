"""Conversion of ConfigDicts to dataclasses; and that every setting is read."""

import ast
import dataclasses

from absl.testing import parameterized
import ml_collections
import pytest

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.compare_config import CompareConfig
from lift_jax.jobs.demo_config import DemoConfig
from lift_jax.jobs.evaluate import EvaluateConfig
from lift_jax.jobs.rounds_config import RoundsConfig
from lift_jax.jobs.sample import SampleConfig
from lift_jax.jobs.score import ScoreConfig
from lift_jax.jobs.train_critic import TrainCriticConfig
from lift_jax.models import critics, generators
from lift_jax.training.config import AlignTrainConfig
from tests.field_reads import FieldReads, sections_of
from tests.jobs import jobs

pytestmark = pytest.mark.fast


@dataclasses.dataclass(frozen=True)
class _Inner:
  size: tuple[int, int]
  names: tuple[str, ...]
  rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class _Outer:
  inner: _Inner
  other: _Inner | None
  count: int
  fps: float | None
  flag: bool


@dataclasses.dataclass(frozen=True)
class _Shape:
  kind: str

  @classmethod
  def choose_class(cls, section, where):
    config_lib.check_choice(f'{where}.kind', section['kind'], _SHAPES)
    return _SHAPES[section['kind']]


@dataclasses.dataclass(frozen=True)
class _Circle:
  kind: str
  radius: float


_SHAPES = {'circle': _Circle}


@dataclasses.dataclass(frozen=True)
class _Picture:
  shape: _Shape


def _section(**changes):
  inner = {'size': [1, 2], 'names': ['a']}
  return {
    'inner': inner, 'other': None, 'count': 3, 'fps': None, 'flag': True,
  } | changes  # fmt: skip


class ResolveTest(parameterized.TestCase):
  @parameterized.parameters(dict, ml_collections.ConfigDict)
  def test_values(self, kind):
    config = config_lib.resolve(kind(_section(fps=4)), _Outer)
    self.assertEqual(
      config, _Outer(_Inner((1, 2), ('a',), 0.5), None, 3, 4.0, True)
    )
    self.assertIsInstance(config.fps, float)

  def test_optional_section(self):
    inner = {'size': (3, 4), 'names': (), 'rate': 1}
    config = config_lib.resolve(_section(other=inner), _Outer)
    self.assertEqual(config.other, _Inner((3, 4), (), 1.0))

  def test_section_of_several_kinds(self):
    section = {'shape': {'kind': 'circle', 'radius': 2}}
    config = config_lib.resolve(section, _Picture)
    self.assertEqual(config.shape, _Circle('circle', 2.0))
    message = r"config.shape.kind is 'star'; choose one of \['circle'\]"
    with self.assertRaisesRegex(UserError, message):
      config_lib.resolve({'shape': {'kind': 'star'}}, _Picture)

  @parameterized.parameters(
    ({'cuont': 1}, 'config.cuont is not a setting; did you mean count?'),
    ({'zzz': 1}, "config.zzz is not a setting; known: ['inner', 'other'"),
    ({'count': 1.5}, 'config.count is 1.5; it must be of type int'),
    ({'count': True}, 'config.count is True; it must be of type int'),
    ({'count': None}, 'config.count is None; it must be of type int'),
    ({'count': '1'}, "config.count is '1'; it must be of type int"),
    ({'flag': 1}, 'config.flag is 1; it must be of type bool'),
    ({'fps': True}, 'config.fps is True; it must be of type float'),
    (
      {'inner': 3},
      'config.inner is 3, not a section; write its fields as a dict',
    ),
    ({'inner': {'size': [1, 2]}}, 'config.inner: missing names'),
    (
      {'inner': {'size': [1], 'names': []}},
      'config.inner.size is [1]; it must have 2 items',
    ),
    (
      {'inner': {'size': 'ab', 'names': []}},
      "config.inner.size is 'ab'; it must be a list",
    ),
    (
      {'inner': {'size': [1, 2], 'names': ['a', 2]}},
      'config.inner.names[1] is 2; it must be of type str',
    ),
  )
  def test_refused(self, changes, message):
    with self.assertRaises(UserError) as raised:
      config_lib.resolve(_section(**changes), _Outer)
    self.assertStartsWith(str(raised.exception), message)

  def test_missing(self):
    section = _section()
    del section['count'], section['flag']
    with self.assertRaisesRegex(UserError, 'config: missing count, flag; add '):
      config_lib.resolve(section, _Outer)


class ParseArgTest(parameterized.TestCase):
  @parameterized.parameters(
    (None, False, None),
    ('', False, None),
    ('smoke', True, None),
    ('steps=100', False, 100),
    ('smoke,steps=3', True, 3),
  )
  def test_values(self, arg, smoke, steps):
    variant = config_lib.parse_arg(arg, smoke=bool, steps=int)
    self.assertEqual(vars(variant), {'smoke': smoke, 'steps': steps})

  @parameterized.parameters(
    ('smoke,tiny', "'tiny' is unknown; this file has ['smoke', 'steps']"),
    ('tiny=3', "'tiny' is unknown"),
    ('steps', "'steps': write steps=VALUE"),
    ('smoke=1', "'smoke=1': write smoke"),
    ('steps=', "'steps=': '' is not of type int"),
    ('steps=3.5', "'steps=3.5': '3.5' is not of type int"),
  )
  def test_refused(self, arg, message):
    with self.assertRaises(UserError) as raised:
      config_lib.parse_arg(arg, smoke=bool, steps=int)
    self.assertIn(f'config variant {message}', str(raised.exception))


JOBS = (
  AlignConfig,
  CompareConfig,
  DemoConfig,
  EvaluateConfig,
  RoundsConfig,
  SampleConfig,
  ScoreConfig,
  TrainCriticConfig,
)

# Their fields are accessed by name: vars(config), getattr(config, axis).
_READ_AS_A_WHOLE = (
  'CogVideoXSizes',
  'DemoConfig',
  'FramesConfig',
  'MeshConfig',
  'ObjectiveConfig',
  'PretrainConfig',
  'RewardMap',
)

# Published settings that mean nothing here, but belong into an export.
_PASSED_ON = ('VAEConfig.invert_scale_latents',)


class DeadFieldTest(parameterized.TestCase):
  def test_every_field_is_read(self):
    # Imports the sections of each.
    generators.families()
    critics.backbones()
    reads = FieldReads(JOBS)
    for path in sorted((jobs.REPOSITORY / 'lift_jax').rglob('*.py')):
      reads.visit(ast.parse(path.read_text(encoding='utf-8')))
    sections = set().union(*map(sections_of, JOBS))
    self.assertGreater(len(sections), 30)
    unread = [
      field
      for section in sections
      if section.__name__ not in _READ_AS_A_WHOLE
      for field in reads.unread(section)
    ]
    self.assertCountEqual(unread, _PASSED_ON)

  @parameterized.parameters(
    ('run(config: _Outer): config.inner.rate', ['size', 'names']),
    ('run(call): inner = call.config.inner; inner.rate', ['size', 'names']),
    ('run(size, names, other): size.rate, names.rate, other[0].rate',
     ['size', 'names', 'rate']),
    ('run(x: _Shape): x.size, x.names, x.rate', ['size', 'names', 'rate']),
    ('run(x: _Inner | None): x.size, x.names, x.rate', []),
    ('__post_init__(x: _Inner): x.size, x.names, x.rate',
     ['size', 'names', 'rate']),
  )  # fmt: skip
  def test_what_counts(self, function, unread):
    """Not a field of another class that has the same name."""
    reads = FieldReads([_Outer])
    reads.visit(ast.parse(f'def {function}'))
    expected = [f'_Inner.{name}' for name in unread]
    self.assertEqual(reads.unread(_Inner), expected)

  def test_self(self):
    reads = FieldReads([_Outer])
    body = 'def f(self, x: _Inner): self.own = x\n def g(self): self.own.rate'
    reads.visit(ast.parse(f'class Some:\n {body}'))
    self.assertEqual(reads.unread(_Inner), ['_Inner.size', '_Inner.names'])


class TrainLengthTest(parameterized.TestCase):
  def config(self, **changes) -> AlignTrainConfig:
    fields = {
      'steps': None, 'epochs': None, 'batch_size': None,
      'batch_per_device': None, 'grad_accum': 1, 'seed': 0,
      'trainable': 'blocks', 'remat': 'none', 'caption_dropout': 0.0,
      'profile': '',
      'ema_decay': 0.0, 'log_every': 1, 'num_threads': 1, 'wandb_project': '',
      'export': False, 'export_dtype': 'float32',
    }  # fmt: skip
    return AlignTrainConfig(**fields | changes)

  @parameterized.parameters(
    # (epochs, records, batch size, steps)
    (1.0, 8, 4, 2), (1.0, 9, 4, 3), (2.0, 9, 4, 5), (0.5, 8, 4, 1),
    (0.01, 8, 4, 1), (1.0, 3, 8, 1), (0.1, 30, 1, 3),
  )  # fmt: skip
  def test_epochs(self, epochs, num_records, batch_size, num_steps):
    config = self.config(epochs=epochs, batch_size=batch_size)
    self.assertEqual(config.num_steps(num_records, batch_size), num_steps)

  def test_steps_go_first(self):
    config = self.config(epochs=5.0, steps=3, batch_size=8)
    self.assertEqual(config.num_steps(100, 8), 3)

  @parameterized.parameters(
    ({'batch_size': 8}, 4, 2, 8),
    ({'batch_per_device': 2}, 4, 2, 8),
    ({'batch_per_device': 2, 'grad_accum': 2}, 4, 4, 8),
  )
  def test_batch(self, sizes, num_devices, num_shards, batch_size):
    config = self.config(steps=1, **sizes)
    self.assertEqual(config.global_batch(num_devices, num_shards), batch_size)

  def test_batch_does_not_divide(self):
    config = self.config(steps=1, batch_size=8, grad_accum=2)
    with self.assertRaisesRegex(UserError, 'batch of 8 videos .* 16 parts'):
      config.global_batch(8, 8)
