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
    ('auto', 1.49, 'float32'),
    ('auto', 1.5, 'bfloat16'),
    ('float32', 9.0, 'float32'),
    ('bfloat16', 0.1, 'bfloat16'),
  ],
)
def test_choose(setting, gain, expected, monkeypatch):
  monkeypatch.setattr(compute_dtype, 'bfloat16_gain', lambda: gain)
  assert compute_dtype.choose(setting, _LOGGER) == expected
