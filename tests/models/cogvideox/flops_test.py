"""FLOPs of the CogVideoX transformer."""

import pytest

from lift_jax.models.cogvideox import flops
from lift_jax.models.cogvideox.config import COGVIDEOX_2B


def test_cogvideox_2b_at_full_size():
  one = flops.forward_flops(COGVIDEOX_2B, 17_776)
  forward = one.forward
  assert forward == pytest.approx(120e12, rel=0.01)
  whole = one.training(trains_kernels=True)
  assert whole == 3 * forward
  attention = 4 * 17_776**2 * 1920 * 30
  adapters = one.training(trains_kernels=False)
  assert adapters == 2 * (forward - attention) + 3 * attention
