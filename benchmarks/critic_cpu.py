"""Our Qwen3-VL critic next to transformers and PEFT on a CPU, in fp32.

  python benchmarks/critic_cpu.py --workdir=DIR [--threads=N] [--rounds=5]

  scoring   16 clips with three questions each, as `lift score` asks them: a
            clip and its caption are read once, and then the questions.
            Transformers reads clip, caption and question three times, as plain
            code does; it keeps the logits of the last token alone.
  training  a step of `lift train_critic` on the answers of four examples:
            adapters on the decoder, AdamW, clipped gradients, no recomputation.
            The same with PEFT, torch.optim.AdamW and gradients of nothing else.

Both sides have the same random weights, frames, tokens and batches. They take
turns in one process that is bound to N cores, and change who is first in every
round. A round whose results differ ends the benchmark with status 1.

Prints a table for docs/performance.md and keeps all figures in DIR/critic.json.
--tiny shows that it works. Needs Linux, torch, transformers and PEFT.

B clips  N tokens of a sequence  Q questions  L labels
"""

import argparse
from collections.abc import Callable
import dataclasses
import importlib.metadata
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

from lift_jax import partitioning
from lift_jax.cli import job_flags
from lift_jax.jobs.train_critic import TrainCriticConfig
from lift_jax.models import adapters, critic_config, critics, lora
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.qwen3vl.backbone import BACKBONE
from lift_jax.models.qwen3vl.config import (
  PATCH_FRAMES,
  PATCH_SIZE,
  Qwen3VLConfig,
  QwenTowerConfig,
  QwenVideoConfig,
)
from lift_jax.models.qwen3vl.tiny_tokenizer import VIDEO_ID
from lift_jax.models.qwen3vl.video import to_patches
from lift_jax.runtime.files import write_json
from lift_jax.scoring.scorer import Prompts, Scorer
from lift_jax.training import critic as critic_lib
from lift_jax.training import loop
from lift_jax.training import setup as setup_lib
from lift_jax.training.critic_step import CriticBatch
from lift_jax.training.optimizer import make_optimizer
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths

GOALS = {'scoring': 0.5, 'training': 1.0}  # ours / theirs, at most
# Largest difference of probabilities; the others are relative.
TOLERANCES = {'probabilities': 1e-4, 'loss': 1e-4, 'grad_norm': 1e-3}
LABEL_IDS = {'Good': 100, 'Normal': 101, 'Bad': 102}
NUM_QUESTIONS = 3
NUM_STEPS = 1000  # of a run; sets the learning rate alone
_CONFIG = pathlib.Path(__file__).parents[1] / 'configs' / 'critic_tiny.py'
_RANK = 16
_TARGETS = ('llm/blocks/attn/to_(q|k|v|out)', 'llm/blocks/mlp/(gate|up|down)')


@dataclasses.dataclass(frozen=True)
class Size:
  """What is measured.

  Attributes:
    config: of the network.
    grid: rows and columns of patches of a frame.
    num_pairs: pairs of frames of a clip.
    caption: tokens.
    question: tokens.
    answer: tokens, in training.
    num_clips: that are scored.
    batch: clips that are scored together.
    examples: of a training step.
  """

  config: Qwen3VLConfig
  grid: tuple[int, int]
  num_pairs: int
  caption: int
  question: int
  answer: int
  num_clips: int
  batch: int
  examples: int


def _config(width: int, num_layers: int, vocab_size: int) -> Qwen3VLConfig:
  """In the proportions of 4B, with a smaller vocabulary."""
  return Qwen3VLConfig(
    vision_tower=QwenTowerConfig(
      width=width // 2,
      num_layers=num_layers,
      num_heads=width // 128,
      mlp_width=2 * width,
      out_width=width,
      num_positions=256,
      deepstack_layers=(1,),
    ),
    llm=LlamaConfig(
      vocab_size=vocab_size,
      width=width,
      num_layers=num_layers,
      num_heads=width // 64,
      num_kv_heads=width // 256,
      head_dim=64,
      mlp_width=4 * width,
      rope_theta=5e6,
      norm_eps=1e-6,
      max_length=4096,
    ),
    rope_sections=(12, 10, 10),
    tied_head=True,
    video_token_id=VIDEO_ID,
    video=QwenVideoConfig(fps=None, num_frames=8),
  )


# 8 frames of 192 x 288 pixels.
MIDDLE = Size(
  config=_config(512, 4, 8192),
  grid=(12, 18),
  num_pairs=4,
  caption=60,
  question=40,
  answer=24,
  num_clips=16,
  batch=4,
  examples=4,
)
TINY = Size(
  config=_config(256, 2, 512),
  grid=(4, 6),
  num_pairs=2,
  caption=5,
  question=4,
  answer=3,
  num_clips=4,
  batch=2,
  examples=2,
)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--threads', type=int, default=1)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--tiny', action='store_true', help='shows that it works')
  flags = parser.parse_args()
  cores = sorted(os.sched_getaffinity(0))
  if not 1 <= flags.threads <= len(cores):
    parser.error(f'--threads must be from 1 to {len(cores)}, the cores here')
  # XLA makes as many threads as there are cores that its process may use.
  os.sched_setaffinity(0, cores[: flags.threads])
  jax.config.update('jax_platforms', 'cpu')
  flags.workdir.mkdir(parents=True, exist_ok=True)
  load = os.getloadavg()[0]
  with tempfile.TemporaryDirectory(dir=flags.workdir) as folder:
    measured = measure(
      TINY if flags.tiny else MIDDLE,
      flags.threads,
      flags.rounds,
      pathlib.Path(folder),
    )
  names = ('jax', 'flax', 'torch', 'transformers', 'peft')
  result = {
    'threads': flags.threads,
    'load_average_before': load,
    'versions': {name: importlib.metadata.version(name) for name in names},
    **measured,
  }
  write_json(flags.workdir / 'critic.json', result)
  print('\n'.join(markdown(result)))


def measure(
  size: Size, threads: int, rounds: int, folder: pathlib.Path
) -> dict[str, Any]:
  """All rounds of both comparisons; `folder` is for the weights."""
  import torch

  torch.set_num_threads(threads)
  critic_config.make_random(folder / 'critic', BACKBONE, size.config, seed=0)
  critic = critics.open_critic(folder / 'critic')
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(), jax.local_devices()[:1]
  )
  data = Data(size)
  comparisons = {
    'scoring': (
      OurScoring(critic, mesh, data),
      TheirScoring(folder / 'critic', data),
    ),
    'training': (
      ours := OurTraining(critic, mesh, data),
      TheirTraining(ours.write_start(folder), folder / 'critic', ours, data),
    ),
  }
  return {
    name: [one_round(name, number, *sides) for number in range(rounds + 1)][1:]
    for name, sides in comparisons.items()
  }


def one_round(
  name: str,
  number: int,
  ours: Callable[[], dict[str, Any]],
  theirs: Callable[[], dict[str, Any]],
) -> dict[str, dict[str, float]]:
  """Times of both sides; round 0 is there to warm up."""
  sides = {'ours': ours, 'theirs': theirs}
  measured, found = {}, {}
  for side in list(sides) if number % 2 else list(sides)[::-1]:
    # The processor's time too: others may use the same cores.
    start, cpu_start = time.perf_counter(), time.process_time()
    found[side] = sides[side]()
    measured[side] = {
      'seconds': time.perf_counter() - start,
      'cpu_seconds': time.process_time() - cpu_start,
    }
  for key, value in found['ours'].items():
    expected = np.asarray(found['theirs'][key])
    scale = 1.0 if key == 'probabilities' else np.abs(expected)
    # NaN is not equal either.
    if not np.all(np.abs(value - expected) <= TOLERANCES[key] * scale):
      sys.exit(
        f'benchmarks/critic_cpu.py: {name}, round {number}: {key} differ: '
        f'{value} here, {expected} in torch'
      )
  print(
    f'{name}, round {number}: '
    + ', '.join(
      f'{k} {v["cpu_seconds"]:.2f} CPU s' for k, v in measured.items()
    ),
    file=sys.stderr,
    flush=True,
  )
  return measured


class Data:
  """Random frames and tokens, the same for both sides."""

  def __init__(self, size: Size):
    rng = np.random.default_rng(0)
    self.size = size
    height, width = (side * PATCH_SIZE for side in size.grid)
    self.patches = np.stack(
      [
        to_patches(
          rng.integers(0, 256, (2 * size.num_pairs, height, width, 3), np.uint8)
        )
        for _ in range(size.num_clips)
      ]
    )
    self.grid = np.tile(np.int32(size.grid), (size.num_clips, 1))
    tokens_of_pair = size.grid[0] * size.grid[1] // 4

    def text(*shape: int) -> np.ndarray:
      return rng.integers(10, 500, shape).astype(np.int32)

    clips = size.num_clips
    pair = [
      part
      for _ in range(size.num_pairs)
      for part in (
        text(clips, 4),  # its time
        np.full((clips, tokens_of_pair), VIDEO_ID, np.int32),
      )
    ]
    self.prefix_bn = np.concatenate([*pair, text(clips, size.caption)], axis=1)
    self.question_bqm = text(clips, NUM_QUESTIONS, size.question)
    self.answer_bn = text(size.examples, size.answer)

  def frames(self, clips: slice) -> dict[str, np.ndarray]:
    return {'patches': self.patches[clips], 'grid': self.grid[clips]}

  def batches(self) -> list[slice]:
    size = self.size
    return [
      slice(first, first + size.batch)
      for first in range(0, size.num_clips, size.batch)
    ]

  def examples(self) -> tuple[slice, np.ndarray, np.ndarray]:
    """Clips of a training step, their tokens, and which are the answer's."""
    clips = slice(self.size.examples)
    tokens_bn = np.concatenate(
      [self.prefix_bn[clips], self.question_bqm[clips, 0], self.answer_bn],
      axis=1,
    )
    is_target_bn = np.zeros(tokens_bn.shape, bool)
    is_target_bn[:, -self.size.answer :] = True
    return clips, tokens_bn, is_target_bn


class OurScoring:
  """Labels of all questions about all clips, as `lift score` finds them."""

  def __init__(self, critic: critics.Critic, mesh, data: Data):
    self._scorer = Scorer(
      critic,
      mesh,
      'float32',
      'auto',
      label_ids=LABEL_IDS,
      stop_ids=(1,),
      pad_id=0,
    )
    self._data = data

  def __call__(self) -> dict[str, Any]:
    data, found = self._data, []
    for clips in data.batches():
      prefix_bn, question_bqm = data.prefix_bn[clips], data.question_bqm[clips]
      prompts = Prompts(
        prefix_bn,
        np.full(len(prefix_bn), prefix_bn.shape[1], np.int32),
        question_bqm,
        np.full(question_bqm.shape[:2], question_bqm.shape[2], np.int32),
      )
      found.append(self._scorer(data.frames(clips), prompts, 0))
    return {
      'probabilities': np.concatenate([one.probabilities_bql for one in found])
    }


class TheirScoring:
  """The same by three passes of transformers over complete prompts."""

  def __init__(self, folder: pathlib.Path, data: Data):
    self._model = _load(folder).eval()
    self._data = data

  def __call__(self) -> dict[str, Any]:
    import torch

    data, labels = self._data, list(LABEL_IDS.values())
    found = np.zeros((data.size.num_clips, NUM_QUESTIONS, len(labels)))
    with torch.inference_mode():
      for clips in data.batches():
        for number in range(NUM_QUESTIONS):
          question_bn = data.question_bqm[clips, number]
          tokens_bn = np.concatenate(
            [data.prefix_bn[clips], question_bn], axis=1
          )
          logits_bv = self._model(
            **_inputs(data, clips, tokens_bn), use_cache=True, logits_to_keep=1
          ).logits[:, -1]
          found[clips, number] = logits_bv[:, labels].softmax(-1).numpy()
    return {'probabilities': found}


class OurTraining:
  """A step of `lift train_critic` on adapters."""

  def __init__(self, critic: critics.Critic, mesh, data: Data):
    flags = [
      '--config.train.trainable=lora',
      '--config.optimizer.warmup_steps=0',
      f'--config.lora.rank={_RANK}',
      f'--config.lora.alpha={2.0 * _RANK}',
      f'--config.lora.targets={_TARGETS}',
    ]
    config, _ = job_flags.read_config(
      f'{_CONFIG}:qwen', flags, TrainCriticConfig
    )
    setup = critic_lib.make_setup(
      critic, config.model, config.train, config.lora, mesh
    )
    trainable, self._frozen = critic_lib.load_base(
      setup, critic, 'float32', jax.random.key(0)
    )
    tx = make_optimizer(config.optimizer, NUM_STEPS)
    _, shardings = setup_lib.abstract_state(setup, tx, with_ema=False)
    self._state = jax.jit(
      lambda params: TrainState.create(params, tx, with_ema=False),
      out_shardings=shardings,
    )(trainable)
    step = critic_lib.make_step(setup, config.train, tx, data.size.answer)
    self._step = loop.jit_step(step, self._state)
    clips, tokens_bn, is_target_bn = data.examples()
    self._batch = jax.device_put(
      CriticBatch(
        frames=data.frames(clips),
        tokens=tokens_bn,
        is_target=is_target_bn,
        segment_ids=np.ones_like(tokens_bn),
        weight=np.ones(len(tokens_bn), np.float32),
      ),
      setup.batch_sharding,
    )
    self._mesh, self._table = mesh, critic.adapter_table
    self._lora, self.optimizer = config.lora, config.optimizer

  def write_start(self, folder: pathlib.Path) -> pathlib.Path:
    """The adapters before the first step, for PEFT."""
    start = folder / 'adapters'
    params, _ = param_paths.partition(self._state.trainable, lora.is_adapter)
    adapters.write_peft(start, params, self._lora, self._table, 'float32')
    return start

  def __call__(self) -> dict[str, Any]:
    with jax.set_mesh(self._mesh):
      self._state, found = jax.block_until_ready(
        self._step(self._state, self._frozen, self._batch)
      )
    return {key: float(found[key]) for key in ('loss', 'grad_norm')}


class TheirTraining:
  """The same with PEFT."""

  def __init__(
    self,
    start: pathlib.Path,
    folder: pathlib.Path,
    ours: OurTraining,
    data: Data,
  ):
    import peft
    import torch

    self._torch = torch
    self._model = peft.PeftModel.from_pretrained(
      _load(folder), start, is_trainable=True
    ).train()
    self._trained = [p for p in self._model.parameters() if p.requires_grad]
    settings = ours.optimizer
    self._optimizer = torch.optim.AdamW(
      self._trained,
      lr=settings.learning_rate,
      betas=(settings.beta1, settings.beta2),
      eps=settings.eps,
      weight_decay=settings.weight_decay,
    )
    self._clip_norm = settings.clip_norm
    clips, tokens_bn, _ = data.examples()
    self._inputs = _inputs(data, clips, tokens_bn)
    self._num_answer = data.size.answer

  def __call__(self) -> dict[str, Any]:
    torch, num = self._torch, self._num_answer
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


def _load(folder: pathlib.Path):
  import torch
  import transformers

  return transformers.Qwen3VLForConditionalGeneration.from_pretrained(
    folder, local_files_only=True, dtype=torch.float32
  )


def _inputs(data: Data, clips: slice, tokens_bn: np.ndarray) -> dict[str, Any]:
  """What transformers takes; its patches are colour, frame, row, column."""
  import torch

  patches = data.patches[clips].astype(np.float32) / 127.5 - 1
  sides = PATCH_FRAMES, PATCH_SIZE, PATCH_SIZE, 3
  split = patches.reshape(-1, *sides).transpose(0, 4, 1, 2, 3)
  ids_bn = torch.from_numpy(tokens_bn).long()
  grid = [data.size.num_pairs, *data.size.grid]
  return {
    'input_ids': ids_bn,
    'pixel_values_videos': torch.from_numpy(
      split.reshape(len(split), -1).copy()
    ),
    'video_grid_thw': torch.tensor([grid] * len(ids_bn)),
    'mm_token_type_ids': 2 * (ids_bn == VIDEO_ID).int(),
  }


def markdown(result: dict[str, Any]) -> list[str]:
  """A row for each comparison."""
  lines = [
    '| | ours, CPU s | theirs, CPU s | ratio of CPU time | ratio of time '
    '| goal |',
    '|---|---|---|---|---|---|',
  ]
  for name, goal in GOALS.items():
    rounds = result[name]
    ours, theirs = (
      statistics.median(one[side]['cpu_seconds'] for one in rounds)
      for side in ('ours', 'theirs')
    )
    ratios = []
    for key in ('cpu_seconds', 'seconds'):
      each = [one['ours'][key] / one['theirs'][key] for one in rounds]
      ratios.append(
        f'{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})'
      )
    cells = [name, f'{ours:.2f}', f'{theirs:.2f}', *ratios, f'≤ {goal}']
    lines.append(f'| {" | ".join(cells)} |')
  return lines


if __name__ == '__main__':
  main()
