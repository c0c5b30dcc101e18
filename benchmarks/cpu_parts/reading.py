"""A cache of random latents, and how fast `lift align` reads batches of it."""

from collections.abc import Callable
import pathlib
import time

import jax
import numpy as np

from lift_jax.data import cache as cache_lib
from lift_jax.data import global_batch, pipeline
from lift_jax.data.clip_flags import ClipRules
from lift_jax.data.records import AlignmentRecord

# A batch on its way from the cache, by the names of the pipeline.
Arrays = dict[str, np.ndarray]

_REWARDS = (0.9, 0.2, 0.05)  # LiFT's, for Good, Normal and Bad
_THREADS = 2  # as in configs/align_sample.py


def write_cache(
  folder: pathlib.Path,
  latent_shape: tuple[int, int, int, int],
  text_shape: tuple[int, int],
  num_videos: int,
  batch_size: int,
  sharding: jax.sharding.Sharding,
) -> Callable[[], Arrays]:
  """Writes videos of random latents; returns what reads a batch of them.

  Args:
    folder: to write to.
    latent_shape: (F, h, w, C) of a video.
    text_shape: (S, D) of the embedding of its caption.
    num_videos: to write.
    batch_size: to read.
    sharding: of a batch.
  """
  rng = np.random.default_rng(0)
  cache = cache_lib.LatentCache(folder, {})
  cache.start()
  records, items = [], []
  for index in range(num_videos):
    name = f'{index}.mp4'
    records.append(
      AlignmentRecord(
        video=name,
        path=folder / name,
        caption=name,
        reward=_REWARDS[index % len(_REWARDS)],
        is_real=False,
        file='alignment.json',
        place=f'record {index}',
      )
    )
    mean = rng.standard_normal(latent_shape, np.float32)
    logvar = rng.standard_normal(latent_shape, np.float32) - 2
    text = rng.standard_normal(text_shape, np.float32)
    data = cache_lib.pack(mean=mean, logvar=logvar, text=text)
    items.append(
      cache_lib.EncodedClip(records[-1], data, (0, 0), '', (1, 1, 1), (), 0.5)
    )
  cache.write_shard(latent_shape[:3], items)
  cache.write_index()
  iterator = pipeline.make_iterator(
    cache,
    [(item,) for item in pipeline.join(cache, records, ClipRules())],
    {latent_shape[:3]: batch_size},
    sharding,
    seed=0,
    num_threads=_THREADS,
  )
  return lambda: next(iterator)


def batches_per_second(read: Callable[[], object], seconds: float) -> float:
  """How often `read` delivers a batch to the device."""
  # What was read ahead before the clock must not count for much.
  for _ in range(2 * global_batch.READ_AHEAD):
    read()
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds:
    read()
    count += 1
  return count / elapsed
