"""What step caches of `lift sample` save, and what they change.

  python benchmarks/cached_sampling.py --workdir=DIR [--clips=48] [--rounds=2]
    [--parts toy middle] [--samplers ddim dpm] [--tiny]

`toy` samples clips of held-out prompts with the toy world's model, in 50 steps,
without a cache and with several. The curve is measured on clips of training
prompts. Reported are, against the clips without a cache: PSNR and SSIM of the
frames; how checkers and critic judge the mp4 files, as the rank correlation of
their rewards (Spearman) and the share of labels that changed, of three a clip.

`middle` times 50 guided steps of a random CogVideoX of middle size. What it
shows is not a video, so its curve is measured, but only time is reported.

Time is that of denoising alone, after compilation: of the process, which other
processes do not disturb much, and on the clock. Runs take turns in --rounds.

Prints tables for docs/sampling.md and keeps all figures in DIR.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import importlib.metadata
import json
import logging
import math
import os
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import scipy.stats

from lift_jax import partitioning
from lift_jax.cli import job_flags
from lift_jax.data.hra import DIMENSIONS
from lift_jax.data.video_write import write_mp4
from lift_jax.diffusion import step_cache
from lift_jax.diffusion.sampler import SamplerConfig, clip_keys
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.jobs import demo_config, score
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.transformer import Transformer
from lift_jax.models.functional import functional
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.generators import open_model
from lift_jax.runtime.files import write_json
from lift_jax.sampling import cache_curve, programs
from lift_jax.sampling.config import VideoConfig
from lift_jax.sampling.generator import Generator
from lift_jax.toyworld import feedback, judge, scenes, weights

NUM_STEPS = 50
SEED = 7
# (threshold, max_skips, retention) of MagCache.
MAGCACHE = (
  (0.03, 3, 0.2),
  (0.06, 3, 0.2),  # the defaults
  (0.12, 3, 0.2),
  (0.24, 3, 0.2),
  (0.5, 3, 0.2),
  (0.5, 5, 0.1),
)
# TeaCache's threshold depends on the model, so it is chosen by what it saves.
TEACACHE_SAVED = (1.5, 2.0, 3.0)
MIDDLE = TransformerConfig(
  num_layers=6, num_heads=8, sample_height=16, sample_width=24, sample_frames=17
)
MIDDLE_LATENTS = (5, 16, 24, 16)  # of 17 x 128 x 192 pixels
TINY = TransformerConfig(
  num_layers=1,
  num_heads=2,
  head_dim=16,
  time_embed_dim=16,
  text_embed_dim=24,
  max_text_length=6,
  sample_height=4,
  sample_width=4,
  sample_frames=5,
)
TINY_LATENTS = (2, 4, 4, 16)


@dataclasses.dataclass(frozen=True)
class Setting:
  """A cache with its thresholds.

  Attributes:
    name: for tables.
    is_computed: which steps are computed, bool [N]; None without a cache.
  """

  name: str
  is_computed: np.ndarray | None

  @property
  def num_computed(self) -> int:
    return NUM_STEPS if self.is_computed is None else self.is_computed.sum()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--clips', type=int, default=48)
  parser.add_argument('--rounds', type=int, default=2)
  parser.add_argument('--parts', nargs='+', default=['toy', 'middle'])
  parser.add_argument('--samplers', nargs='+', default=['ddim', 'dpm'])
  parser.add_argument('--tiny', action='store_true', help='shows that it works')
  flags = parser.parse_args()
  logging.basicConfig(level=logging.INFO)
  job_flags.use_compilation_cache()
  versions = {
    name: importlib.metadata.version(name) for name in ('jax', 'jaxlib')
  }
  about = {'versions': versions, 'load_average_before': os.getloadavg()[0]}
  if 'toy' in flags.parts:
    for name in flags.samplers:
      folder = flags.workdir / name
      rows = measure_toy(folder, name, flags.clips, flags.rounds)
      write_json(folder / 'rows.json', about | {'rows': rows})
      print('\n'.join(table(f'toy, {name}', rows)), flush=True)
  if 'middle' in flags.parts:
    rows = measure_middle(flags.rounds, flags.tiny)
    write_json(flags.workdir / 'middle.json', about | {'rows': rows})
    print('\n'.join(table('middle, ddim, guided', rows)), flush=True)


def settings_of(changes: programs.StepChanges) -> list[Setting]:
  """All caches to compare, for a measured curve."""
  curve = cache_curve.make({}, 0, *changes)
  settings = [Setting('none', None)]
  for threshold, skips, retention in MAGCACHE:
    schedule = step_cache.magcache_steps(
      changes.residual_kn, threshold, skips, retention
    )
    name = f'magcache {threshold:g}, {skips}, {retention:g}'
    settings.append(Setting(name, schedule))
  for saved in TEACACHE_SAVED:
    for threshold in np.geomspace(1e-3, 1e3, 241):
      # A little less may skip fewer steps, so it is the one that is shown.
      threshold = float(f'{threshold:.2g}')
      schedule = step_cache.teacache_steps(
        changes.time_n, curve['coefficients'], threshold
      )
      if NUM_STEPS / schedule.sum() >= saved:
        settings.append(Setting(f'teacache {threshold:g}', schedule))
        break
  return settings


def timed(
  run: Callable[[np.ndarray | None], jax.Array],
  settings: Sequence[Setting],
  rounds: int,
) -> tuple[list[jax.Array], list[dict[str, Any]]]:
  """Latents and a row of each setting; all take turns.

  Args:
    run: `run(is_computed)` denoises.
    settings: the first is the one without a cache.
    rounds: of measuring.
  """
  # Compiles both programs; the second skips nearly all.
  for is_computed in (None, np.arange(NUM_STEPS) == 0):
    jax.block_until_ready(run(is_computed))
  latents, seconds = [], [([], []) for _ in settings]
  for _ in range(rounds):
    latents = []
    for setting, (process, wall) in zip(settings, seconds, strict=True):
      start = time.process_time(), time.perf_counter()
      latents.append(jax.block_until_ready(run(setting.is_computed)))
      process.append(time.process_time() - start[0])
      wall.append(time.perf_counter() - start[1])
  rows = [
    {
      'name': setting.name,
      'computed': int(setting.num_computed),
      'process_seconds': statistics.median(process),
      'wall_seconds': statistics.median(wall),
    }
    for setting, (process, wall) in zip(settings, seconds, strict=True)
  ]
  for row in rows:
    for kind in ('process', 'wall'):
      key = f'{kind}_seconds'
      row[f'{kind}_ratio'] = rows[0][key] / row[key]
  return latents, rows


def measure_toy(
  folder: pathlib.Path, name: str, num_clips: int, rounds: int
) -> list[dict[str, Any]]:
  """Rows of the toy world's model with a sampler; writes clips to `folder`."""
  config = ModelConfig(
    path=str(weights.T2V),
    adapter='',
    random=None,
    compute_dtype='float32',
    attention='auto',
  )
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(data=1, fsdp=1, context=1, tensor=1),
    jax.devices()[:1],
  )
  generator = Generator(
    open_model(weights.T2V),
    config,
    mesh,
    VideoConfig(height=32, width=32, num_frames=9, tiling=False),
    # As the demo samples.
    SamplerConfig(name, NUM_STEPS, guidance_scale=1.0),
    negative='',
    offload=False,
  )
  rng = np.random.default_rng(SEED)

  def draw(scenes_of):
    chosen = rng.choice(len(scenes_of), num_clips, replace=False)
    return [scenes_of[i].caption for i in chosen], [
      int(seed) for seed in rng.integers(2**31, size=num_clips)
    ]

  batches = [draw(scenes.training_scenes()), draw(scenes.held_out_scenes())]
  texts = list(generator.embed(captions for captions, _ in batches))
  (changes,) = generator.measure_steps([(texts[0], batches[0][1])])
  settings = settings_of(changes)
  captions, seeds = batches[1]

  def run(is_computed):
    generator.is_computed = is_computed
    (latents,) = generator.denoise([(texts[1], seeds, None)])
    return latents

  latents, rows = timed(run, settings, rounds)
  videos = list(generator.decode(latents))
  write_clips(folder, settings, videos, captions)
  for row, video_bthw3 in zip(rows, videos, strict=True):
    row |= {
      'psnr': psnr(videos[0], video_bthw3),
      'ssim': ssim(videos[0], video_bthw3),
    }
  write_json(folder / 'unjudged.json', rows)
  judged = judgements(folder, settings, captions)
  for row, rewards in zip(rows, judged, strict=True):
    for who, (reward_b, labels) in rewards.items():
      reference_b, usual = judged[0][who]
      row[f'{who}_reward'] = float(np.mean(reward_b))
      row[f'{who}_rank'] = float(
        scipy.stats.spearmanr(reference_b, reward_b).statistic
      )
      row[f'{who}_changed'] = float(np.mean(np.array(labels) != usual))
  return rows


def clip_file(setting: Setting, index: int) -> str:
  return f'{setting.name.replace(" ", "_")}/{index}.mp4'


def write_clips(
  folder: pathlib.Path,
  settings: Sequence[Setting],
  videos: Sequence[np.ndarray],
  captions: Sequence[str],
) -> None:
  """Writes mp4 files, and the list of them that `lift score` takes."""
  records = []
  for setting, video_bthw3 in zip(settings, videos, strict=True):
    for index, frames_thw3 in enumerate(video_bthw3):
      file = clip_file(setting, index)
      (folder / file).parent.mkdir(parents=True, exist_ok=True)
      write_mp4(folder / file, frames_thw3, fps=8.0, crf=12)
      records.append({'video': file, 'caption': captions[index]})
  write_json(folder / 'clips.json', records)


# {'checkers' or 'critic': (rewards of clips, labels of clips)}.
_Judged = Mapping[str, tuple[Sequence[float], Sequence[Sequence[str]]]]


def judgements(
  folder: pathlib.Path, settings: Sequence[Setting], captions: Sequence[str]
) -> list[_Judged]:
  """What checkers and critic say of the clips of each setting."""
  call = job_flags.make_call(
    demo_config.get_config().score,
    score.ScoreConfig,
    folder / 'scores',
    {
      'model.path': str(weights.CRITIC),
      'prompts.questions': str(feedback.questions_path()),
      'videos.root': str(folder),
      'videos.files': ('clips.json',),
    },
  )
  score.run(call, logging.getLogger('lift'))
  scores = json.loads((folder / 'scores' / 'scores.json').read_text('utf-8'))
  by_file = {record['video']: record for record in scores}
  judged = []
  for setting in settings:
    files = [clip_file(setting, index) for index in range(len(captions))]
    checked = [
      judge.judge_clip((caption, 0), caption, file, folder / file, file)
      for file, caption in zip(files, captions, strict=True)
    ]
    judged.append(
      {
        'checkers': (
          [clip.reward for clip in checked],
          [[c.verdicts[name].label for name in DIMENSIONS] for c in checked],
        ),
        'critic': (
          [by_file[file]['soft_reward'] for file in files],
          [
            [by_file[file]['labels'][name] for name in DIMENSIONS]
            for file in files
          ],
        ),
      }
    )
  return judged


def measure_middle(rounds: int, tiny: bool) -> list[dict[str, Any]]:
  """Rows of a random model of middle size: time alone."""
  config, latents = (TINY, TINY_LATENTS) if tiny else (MIDDLE, MIDDLE_LATENTS)
  model = functional(lambda rngs: Transformer(config, rngs=rngs))
  params = jax.jit(model.init)(jax.random.key(0))
  shape = (1, config.max_text_length, config.text_embed_dim)
  text_bsd = jax.random.normal(jax.random.key(1), shape)
  arguments = (
    model,
    params,
    ScheduleConfig(),
    SamplerConfig('ddim', NUM_STEPS),
    text_bsd,
    jnp.zeros(shape[1:]),
  )
  options = {'latent_shape': latents, 'keys_b2': clip_keys([SEED])}
  changes = jax.device_get(programs.measure_steps(*arguments, **options))
  denoise = functools.partial(programs.denoise, *arguments, **options)
  settings = settings_of(changes)
  # Few, as each takes minutes: those that save about 2 and 3 times.
  chosen = [
    min(settings, key=lambda one: abs(one.num_computed - NUM_STEPS / saved))
    for saved in (1, 2, 3)
  ]
  _, rows = timed(
    lambda is_computed: denoise(is_computed=is_computed), chosen, rounds
  )
  return rows


def psnr(one: np.ndarray, other: np.ndarray) -> float:
  """Of uint8 videos, decibels; infinite if they are equal."""
  error = np.mean((one.astype(np.float64) - other) ** 2)
  return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(one_bthw3: np.ndarray, other_bthw3: np.ndarray) -> float:
  """Mean structural similarity of frames, in windows of 7 x 7 pixels.

  Wang et al., Image quality assessment, 2004, with K of .01 and .03.
  """
  mean = functools.partial(
    scipy.ndimage.uniform_filter, size=(1, 1, 7, 7, 1), mode='reflect'
  )
  x, y = one_bthw3.astype(np.float64), other_bthw3.astype(np.float64)
  mean_x, mean_y = mean(x), mean(y)
  var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
  both = mean(x * y) - mean_x * mean_y
  c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
  similarity = ((2 * mean_x * mean_y + c1) * (2 * both + c2)) / (
    (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
  )
  return float(similarity.mean())


_COLUMNS = (
  ('computed', 'steps computed', '{:d}'),
  ('process_seconds', 'CPU seconds', '{:.1f}'),
  ('process_ratio', 'faster, CPU time', '{:.2f}'),
  ('wall_ratio', 'faster, clock', '{:.2f}'),
  ('psnr', 'PSNR, dB', '{:.1f}'),
  ('ssim', 'SSIM', '{:.3f}'),
  ('checkers_reward', 'reward, checkers', '{:.3f}'),
  ('checkers_rank', 'rank correlation, checkers', '{:.2f}'),
  ('checkers_changed', 'changed labels, checkers', '{:.1%}'),
  ('critic_reward', 'reward, critic', '{:.3f}'),
  ('critic_rank', 'rank correlation, critic', '{:.2f}'),
  ('critic_changed', 'changed labels, critic', '{:.1%}'),
)


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """Markdown lines."""
  columns = [column for column in _COLUMNS if column[0] in rows[0]]
  heads = [title, *(head for _, head, _ in columns)]
  lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
  for row in rows:
    cells = [row['name']] + [text.format(row[key]) for key, _, text in columns]
    lines.append(f'| {" | ".join(cells)} |')
  return lines


if __name__ == '__main__':
  main()
