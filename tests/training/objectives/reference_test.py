"""The network that the policy is compared with."""

from flax import nnx
import jax
import numpy as np

from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.models import lora
from lift_jax.models.functional import functional, stack
from lift_jax.models.latents import LatentScale
from lift_jax.training import alignment
from lift_jax.training import step as step_lib
from lift_jax.training.objectives.likelihood import SFT
from lift_jax.training.objectives.nft import NFT
from lift_jax.weights import param_paths
from tests.models import adapted_network as net
from tests.training.objectives import tiny

_NFT = NFT(0.1, 5.0)


class _Network(nnx.Module):
  """Stacked blocks on the channels of latents."""

  def __init__(self, rngs):
    self.blocks = stack(net.Block, net.LAYERS, rngs)

  def __call__(self, noisy, text, timesteps):
    graphdef, layers = nnx.split(self.blocks)
    return jax.lax.scan(
      lambda x, layer: (nnx.merge(graphdef, layer)(x), None), noisy, layers
    )[0]


def _predict(model, params, initial=None):
  arrays = tiny.arrays()
  arrays |= {
    name: arrays[name][..., : net.WIDTH] for name in ('mean', 'logvar')
  }
  batch = step_lib.LatentBatch.of(arrays, SFT())
  schedule = ScheduleConfig()
  draws = step_lib.draw(jax.random.key(0), batch, schedule, 0.0)

  @jax.jit
  def predict(params):
    reference = None
    if initial is not None:
      reference = step_lib.reference_params(params, initial)
    predictions = step_lib.predict(
      model, schedule, LatentScale(1.0), params, batch, draws, tiny.NULL_TEXT,
      reference,
    )  # fmt: skip
    return predictions.policy, predictions.reference

  return predict(params)


def test_adapters_are_off_in_the_reference():
  """Bit for bit the base model, and no copy of anything."""
  config = lora.LoRAConfig(rank=2, alpha=6.0, targets=('blocks/.*',))
  adapted = functional(lora.adapted(_Network, config))
  params = net.random_like(adapted.abstract_params, seed=1)
  adapters, base = param_paths.partition(params, lora.is_adapter)
  assert adapters
  initial = alignment.make_reference(adapters, _NFT, 'float32')
  assert initial == {}
  policy, reference = _predict(adapted, params, initial)
  expected, _ = _predict(functional(_Network), base)
  np.testing.assert_array_equal(reference, expected)
  assert np.abs(policy - reference).max() > 0.1


def test_initial_parameters_are_those_of_the_reference():
  model = functional(_Network)
  before, after = (
    net.random_like(model.abstract_params, seed=seed) for seed in (1, 2)
  )
  is_trained = lambda name: name.endswith('up/kernel')  # noqa: E731
  initial, frozen = param_paths.partition(before, is_trained)
  trained, _ = param_paths.partition(after, is_trained)
  _, reference = _predict(model, param_paths.merge(trained, frozen), initial)
  expected, _ = _predict(model, before)
  np.testing.assert_array_equal(reference, expected)
