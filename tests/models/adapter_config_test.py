"""Which adapters a config names."""

import pytest

from lift_jax.errors import UserError
from lift_jax.models.adapter_config import AdapterConfig, AdaptersConfig

pytestmark = pytest.mark.fast


def test_none():
  assert AdaptersConfig(adapter='').all_adapters == ()


def test_one_and_more():
  more = (AdapterConfig('b', 0.5), AdapterConfig('c', alpha=4.0))
  config = AdaptersConfig(
    adapter='a', adapter_scale=-1.0, adapter_alpha=2.0, adapters=more
  )
  assert config.all_adapters == (AdapterConfig('a', -1.0, 2.0), *more)
  assert AdaptersConfig(adapter='', adapters=more).all_adapters == more


@pytest.mark.parametrize('field', ['adapter_scale', 'adapter_alpha'])
def test_settings_of_no_adapter(field):
  with pytest.raises(UserError, match=f'{field} .* model.adapter, which is em'):
    AdaptersConfig(adapter='', **{field: 0.5})


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'path': ''}, 'model.adapters: a path is empty'),
    ({'path': 'a', 'scale': float('nan')}, 'scale of the adapters a is nan'),
    ({'path': 'a', 'alpha': float('inf')}, 'alpha of the adapters a is inf'),
  ],
)
def test_bad_values(fields, message):
  with pytest.raises(UserError, match=message):
    AdapterConfig(**fields)
