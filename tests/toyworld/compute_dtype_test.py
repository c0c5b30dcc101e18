"""Which number format is chosen; the demo's tests have what follows from it."""

import logging

import pytest

from lift_jax.toyworld import compute_dtype

pytestmark = pytest.mark.fast
_LOGGER = logging.getLogger('lift')


def test_gain():
  """A measurement, whatever it comes to on this machine."""
  assert 0.01 < compute_dtype.bfloat16_gain() < 100


@pytest.mark.parametrize(
  ('setting', 'gain', 'expected'),
  [
    ('auto', 1.19, 'float32'),
    ('auto', 1.2, 'bfloat16'),
    ('float32', 9.0, 'float32'),
    ('bfloat16', 0.1, 'bfloat16'),
  ],
)
def test_choose(setting, gain, expected, monkeypatch):
  monkeypatch.setattr(compute_dtype, 'bfloat16_gain', lambda: gain)
  assert compute_dtype.choose(setting, None, _LOGGER) == expected


@pytest.mark.parametrize(
  ('setting', 'earlier', 'expected'),
  [
    ('auto', 'float32', 'float32'),
    ('auto', 'bfloat16', 'bfloat16'),
    ('float32', 'bfloat16', 'float32'),
  ],
)
def test_earlier(setting, earlier, expected, monkeypatch):
  """A run that goes on does not measure again."""
  monkeypatch.delattr(compute_dtype, 'bfloat16_gain')
  assert compute_dtype.choose(setting, earlier, _LOGGER) == expected
