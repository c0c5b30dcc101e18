"""Both sides of `critic_cpu`: each call scores all clips, or is a step.

B clips  N tokens of a sequence  Q questions  L labels
"""

import pathlib
from typing import Any

from critic_cpu_data import NUM_QUESTIONS, Data
import jax
import numpy as np

from lift_jax.cli import job_flags
from lift_jax.jobs.train_critic import TrainCriticConfig
from lift_jax.models import adapters, critics, lora
from lift_jax.models.qwen3vl.config import PATCH_FRAMES, PATCH_SIZE
from lift_jax.models.qwen3vl.tiny_tokenizer import VIDEO_ID
from lift_jax.scoring.scorer import Prompts, Scorer
from lift_jax.training import critic as critic_lib
from lift_jax.training import loop
from lift_jax.training import setup as setup_lib
from lift_jax.training.critic_step import CriticBatch
from lift_jax.training.optimizer import make_optimizer
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths

LABEL_IDS = {'Good': 100, 'Normal': 101, 'Bad': 102}
NUM_STEPS = 1000  # of a run; sets the learning rate alone
_CONFIG = pathlib.Path(__file__).parents[1] / 'configs' / 'critic_tiny.py'
_RANK = 16
_TARGETS = ('llm/blocks/attn/to_(q|k|v|out)', 'llm/blocks/mlp/(gate|up|down)')


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
