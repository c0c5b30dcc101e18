"""LiFT's step as its reference writes it, on the transformer of diffusers.

  loss = reward * mean (x0_hat - x0)^2 / (1 - a)

Only the blocks train, and gradients of nothing else are computed. In bfloat16
it is torch's autocast, so that weights and moments are fp32, as ours are.
"""

from collections.abc import Callable
import json
import pathlib

from cpu_parts.rows import Results
import diffusers
import numpy as np
import torch


class Torch:
  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._settings = json.loads((folder / 'settings.json').read_text())
    self._module = diffusers.CogVideoXTransformer3DModel.from_pretrained(
      folder / 'transformer', use_safetensors=True, local_files_only=True
    ).train()
    self._scheduler = diffusers.CogVideoXDDIMScheduler.from_config(
      self._settings['schedule']
    )
    self._trained = []
    for name, parameter in self._module.named_parameters():
      is_trained = name.startswith('transformer_blocks.')
      parameter.requires_grad_(is_trained)
      if is_trained:
        self._trained.append(parameter)
    optimizer = self._settings['optimizer']
    self._clip_norm = optimizer['clip_norm']
    self._optimizer = torch.optim.AdamW(
      self._trained,
      betas=(optimizer['beta1'], optimizer['beta2']),
      eps=optimizer['eps'],
      weight_decay=optimizer['weight_decay'],
    )

  def __call__(self, number: int) -> Callable[[], Results]:
    arrays = dict(np.load(self._folder / f'{number}.npz'))
    mean, logvar, posterior, noise = (
      _tensor(np.moveaxis(arrays[name], -1, 2))
      for name in ('mean', 'logvar', 'posterior', 'noise')
    )
    text, reward = _tensor(arrays['text']), _tensor(arrays['reward'])
    t = _tensor(arrays['timesteps']).long()
    for group in self._optimizer.param_groups:
      group['lr'] = self._settings['rates'][number]

    def step() -> Results:
      factor = self._settings['scaling_factor']
      x0 = factor * (mean + (0.5 * logvar).exp() * posterior)
      loss = self._loss(x0, noise, text, reward, t)
      loss.backward()
      norm = torch.nn.utils.clip_grad_norm_(self._trained, self._clip_norm)
      self._optimizer.step()
      self._optimizer.zero_grad()
      return {'loss': loss.item(), 'grad_norm': norm.item()}

    return step

  def _loss(self, x0, noise, text, reward, t):
    noisy = self._scheduler.add_noise(x0, noise, t)
    is_bf16 = self._settings['dtype'] == 'bfloat16'
    with torch.autocast('cpu', torch.bfloat16, enabled=is_bf16):
      velocity = self._module(noisy, text, t, return_dict=False)[0].float()
    # The velocity of a velocity: sqrt(a) x_t - sqrt(1 - a) v = x0_hat.
    x0_hat = self._scheduler.get_velocity(velocity, noisy, t)
    weight = reward / (1 - self._scheduler.alphas_cumprod[t])
    return (weight * ((x0_hat - x0) ** 2).flatten(1).mean(1)).mean()


def _tensor(array: np.ndarray) -> torch.Tensor:
  return torch.tensor(np.ascontiguousarray(array))
