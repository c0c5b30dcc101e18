"""The same of transformers, by a pass over clip, caption and each question.

Each keeps the logits of the last token alone.
"""

from collections.abc import Callable
import json
import pathlib
from typing import Any

from cpu_parts import critic_torch
import numpy as np
import torch


class Torch:
  def __init__(self, folder: pathlib.Path):
    self._model = critic_torch.load(folder).eval()
    self._arrays = dict(np.load(folder / 'inputs.npz'))
    self._settings = json.loads((folder / 'settings.json').read_text())

  def __call__(self, number: int) -> Callable[[], dict[str, Any]]:
    del number
    return self._score

  @torch.inference_mode()
  def _score(self) -> dict[str, Any]:
    arrays, labels = self._arrays, self._settings['label_ids']
    num_clips, num_questions, _ = arrays['question_bqm'].shape
    found = np.zeros((num_clips, num_questions, len(labels)))
    batch = self._settings['batch']
    for first in range(0, num_clips, batch):
      clips = slice(first, first + batch)
      for number in range(num_questions):
        tokens_bn = np.concatenate(
          [arrays['prefix_bn'][clips], arrays['question_bqm'][clips, number]],
          axis=1,
        )
        inputs = critic_torch.inputs_of(
          self._settings, arrays['patches'][clips], tokens_bn
        )
        logits_bv = self._model(
          **inputs, use_cache=True, logits_to_keep=1
        ).logits[:, -1]
        found[clips, number] = logits_bv[:, labels].softmax(-1).numpy()
    return {'probabilities': found}
