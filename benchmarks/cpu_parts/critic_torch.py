"""The critic in transformers."""

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np
import torch
import transformers

# Frames, rows, columns and colours of a patch.
_PATCH = (2, 16, 16, 3)


def load(folder: pathlib.Path):
  return transformers.Qwen3VLForConditionalGeneration.from_pretrained(
    folder / 'critic', local_files_only=True, dtype=torch.float32
  )


def inputs_of(
  settings: Mapping[str, Any], patches: np.ndarray, tokens_bn: np.ndarray
) -> dict[str, Any]:
  """What the model takes; its patches are colour, frame, row, column."""
  floats = patches.astype(np.float32) / 127.5 - 1
  split = floats.reshape(-1, *_PATCH).transpose(0, 4, 1, 2, 3)
  ids_bn = torch.from_numpy(tokens_bn).long()
  return {
    'input_ids': ids_bn,
    'pixel_values_videos': torch.from_numpy(
      split.reshape(len(split), -1).copy()
    ),
    'video_grid_thw': torch.tensor([settings['grid']] * len(ids_bn)),
    'mm_token_type_ids': 2 * (ids_bn == settings['video_id']).int(),
  }
