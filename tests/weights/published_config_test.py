"""Reading published config.json files."""

import dataclasses

import pytest

from lift_jax.errors import UserError
from lift_jax.weights.published_config import PublishedConfig


@dataclasses.dataclass(frozen=True)
class Config:
  width: int
  eps: float = 1e-5
  is_causal: bool = False
  kind: str = 'plain'
  widths: tuple[int, ...] = (1, 2)
  layer: int = 0
  offset: int = 0

  def __post_init__(self):
    if self.width == 13:
      raise UserError('no width of 13')


TABLE = PublishedConfig(
  kind='a toy network',
  required={'hidden_size': 'width'},
  optional={
    'norm_eps': 'eps',
    'is_causal': 'is_causal',
    'norm_type': 'kind',
    'block_sizes': 'widths',
    'offset': 'offset',
  },
  fixed={
    'act': 'silu',
    'bias': True,
    'dropout': 0.0,
    'patch_size_t': None,
    '_class_name': 'Toy',
  },
  stated=('act',),
  or_zero=('offset',),
  ignored=('comment',),
)
LEAST = {'hidden_size': 4, 'act': 'silu'}


def read(**change):
  return TABLE.read(Config, LEAST | change, 'x.json', layer=7)


def test_fields_by_our_names():
  config = read(
    norm_eps=1, is_causal=True, norm_type='rms', block_sizes=[3, 4, 5]
  )
  assert config == Config(4, 1, True, 'rms', (3, 4, 5), 7)


def test_omitted_keys_have_our_default():
  assert read() == Config(4, layer=7)


def test_round_trip():
  config = Config(4, 0.5, True, 'rms', (3,))
  assert TABLE.read(Config, TABLE.write(config), 'x.json') == config


@pytest.mark.parametrize(
  'change',
  [
    {'_note': 1},
    {'comment': 1},
    {'transformers_version': '5'},
    {'add_cross_attention': False},
    {'pruned_heads': {}},
    {'dropout': 0},
    {'offset': 0},
    {'patch_size_t': None},
    {'_class_name': 'Toy'},
  ],
)
def test_ignores(change):
  assert read(**change) == read()


@pytest.mark.parametrize(
  ('change', 'problem'),
  [
    ({'hidden_size': 0}, 'hidden_size=0 (give a positive integer)'),
    ({'hidden_size': 4.0}, 'hidden_size=4.0 (give a positive integer)'),
    ({'hidden_size': True}, 'hidden_size=True (give a positive integer)'),
    ({'hidden_size': None}, 'hidden_size=None (give a positive integer)'),
    ({'norm_eps': '1'}, "norm_eps='1' (give a positive number)"),
    ({'norm_eps': -1.0}, 'norm_eps=-1.0 (give a positive number)'),
    ({'norm_eps': float('nan')}, 'norm_eps=nan (give a positive number)'),
    (
      {'norm_eps': float('inf')},
      'norm_eps=inf (give a positive number)',
    ),
    ({'norm_eps': 0}, 'norm_eps=0 (give a positive number)'),
    ({'norm_eps': True}, 'norm_eps=True (give a positive number)'),
    ({'offset': -1}, 'offset=-1 (give an integer of at least 0)'),
    ({'offset': 0.0}, 'offset=0.0 (give an integer of at least 0)'),
    ({'offset': False}, 'offset=False (give an integer of at least 0)'),
    ({'is_causal': 1}, 'is_causal=1 (give true or false)'),
    ({'norm_type': 1}, 'norm_type=1 (give a string)'),
    ({'block_sizes': []}, 'block_sizes=[] (give a list of positive integers)'),
    ({'block_sizes': 3}, 'block_sizes=3 (give a list of positive integers)'),
    (
      {'block_sizes': [3, 0]},
      'block_sizes=[3, 0] (give a list of positive integers)',
    ),
    ({'act': 'gelu'}, "act='gelu' (only 'silu')"),
    ({'bias': 1}, 'bias=1 (only True)'),
    ({'dropout': False}, 'dropout=False (only 0.0)'),
    ({'add_cross_attention': True}, 'add_cross_attention=True (only False)'),
    ({'pruned_heads': {'0': [1]}}, "pruned_heads={'0': [1]} (only {})"),
    ({'_class_name': 'Other'}, "_class_name='Other' (only 'Toy')"),
    ({'patch_size_t': 2, 'z': 1}, 'patch_size_t=2 (only None), z (unknown)'),
  ],
)
def test_rejects(change, problem):
  with pytest.raises(UserError) as caught:
    read(**change)
  assert str(caught.value) == (
    f'x.json: {problem}; use the config of a toy network, as it is published'
  )


def test_number_beyond_floats():
  """JSON has integers of any size."""
  for key in ('hidden_size', 'norm_eps'):
    with pytest.raises(UserError, match=f'^x.json: {key}=1000'):
      read(**{key: 10**400})


def test_missing():
  with pytest.raises(UserError, match='x.json: no act, no hidden_size; use'):
    TABLE.read(Config, {}, 'x.json')


def test_errors_of_the_config_name_the_file():
  with pytest.raises(UserError, match='^x.json: no width of 13$'):
    read(hidden_size=13)
