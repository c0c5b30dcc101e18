"""Folders of the small networks that tests of metrics run."""

import pathlib

import jax
import numpy as np

from lift_jax.comparison.network_metrics import (
  AESTHETIC,
  CLIP_B32,
  CLIP_L14,
  DINO,
  NetworkSizes,
)
from lift_jax.weights import safetensors_files
from tests.models.clip import tiny_clip
from tests.models.dino import tiny_dino

SIZES = NetworkSizes(tiny_dino.TINY, tiny_clip.TINY, tiny_clip.TINY)


def write_head(path: pathlib.Path, width: int) -> None:
  """Writes the aesthetic head as the published file has it."""
  rng = np.random.default_rng(0)
  safetensors_files.write(
    path,
    [
      (name, shape, np.float32, lambda shape=shape: rng.normal(5, 1, shape)
       .astype(np.float32))
      for name, shape in (('weight', (1, width)), ('bias', (1,)))
    ],
  )  # fmt: skip


def write_networks(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Writes all networks; returns their folders, by name."""
  folders = {name: folder / name for name in (DINO, CLIP_B32, CLIP_L14)}
  for path in folders.values():
    path.mkdir(parents=True)
  tiny_dino.write_dino(folders[DINO])
  tiny_clip.write_clip(folders[CLIP_B32], seed=1)
  tiny_clip.write_clip(folders[CLIP_L14], seed=2)
  head = folder / 'head.safetensors'
  write_head(head, SIZES.clip_l14.projection_dim)
  return folders | {AESTHETIC: head}


def devices(count: int) -> list[jax.Device]:
  return jax.devices()[:count]
