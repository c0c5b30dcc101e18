"""The same with transformers and PEFT; gradients of nothing else."""

from collections.abc import Callable
import json
import pathlib
from typing import Any

from cpu_parts import critic_torch
import numpy as np
import peft
import torch


class Torch:
  def __init__(self, folder: pathlib.Path):
    settings = json.loads((folder / 'settings.json').read_text())
    self._model = peft.PeftModel.from_pretrained(
      critic_torch.load(folder), folder / 'adapters', is_trainable=True
    ).train()
    self._trained = [p for p in self._model.parameters() if p.requires_grad]
    self._optimizer = torch.optim.AdamW(
      self._trained,
      lr=settings['learning_rate'],
      betas=settings['betas'],
      eps=settings['eps'],
      weight_decay=settings['weight_decay'],
    )
    self._clip_norm = settings['clip_norm']
    arrays = dict(np.load(folder / 'inputs.npz'))
    tokens_bn = arrays['tokens_bn']
    self._inputs = critic_torch.inputs_of(
      settings, arrays['patches'][: len(tokens_bn)], tokens_bn
    )
    self._num_answer = settings['answer']

  def __call__(self, number: int) -> Callable[[], dict[str, Any]]:
    del number
    return self._step

  def _step(self) -> dict[str, Any]:
    num = self._num_answer
    # One position earlier predicts the first token of the answer.
    logits_bnv = self._model(
      **self._inputs, use_cache=False, logits_to_keep=num + 1
    ).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(
      logits_bnv.flatten(0, 1), self._inputs['input_ids'][:, -num:].flatten()
    )
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(self._trained, self._clip_norm)
    self._optimizer.step()
    self._optimizer.zero_grad()
    return {'loss': loss.item(), 'grad_norm': norm.item()}
