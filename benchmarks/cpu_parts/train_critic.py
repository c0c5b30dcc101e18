"""A step of `lift train_critic` on the answers of a few examples.

Adapters on the decoder, AdamW, clipped gradients, no recomputation. In the
folder, besides what `critic` writes: adapters/, as PEFT reads them.
"""

from collections.abc import Callable
import pathlib

from cpu_parts import critic as critic_parts
from cpu_parts.rows import Results
import jax
import numpy as np

from lift_jax import partitioning
from lift_jax.cli import job_flags
from lift_jax.jobs.train_critic import TrainCriticConfig
from lift_jax.models import adapters, critics, lora
from lift_jax.runtime.files import read_json, write_json
from lift_jax.training import critic as critic_lib
from lift_jax.training import loop
from lift_jax.training import setup as setup_lib
from lift_jax.training.critic_step import CriticBatch
from lift_jax.training.optimizer import make_optimizer
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths

_NUM_STEPS = 1000  # of a run; sets the learning rate alone
_CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'critic_tiny.py'
_RANK = 16
_TARGETS = ('llm/blocks/attn/to_(q|k|v|out)', 'llm/blocks/mlp/(gate|up|down)')


def write(folder: pathlib.Path, tiny: bool, rounds: int) -> dict[str, float]:
  """Makes a critic and adapters; every round has the same batch."""
  del rounds
  critic_parts.write(folder, tiny)
  config, critic = _read_config(), critics.open_critic(folder / 'critic')
  _, trainable, _ = _start(config, critic)
  params, _ = param_paths.partition(trainable, lora.is_adapter)
  adapters.write_peft(
    folder / 'adapters', params, config.lora, critic.adapter_table, 'float32'
  )
  optimizer = config.optimizer
  settings = read_json(folder / 'settings.json')
  write_json(
    folder / 'settings.json',
    settings
    | {
      'learning_rate': optimizer.learning_rate,
      'betas': [optimizer.beta1, optimizer.beta2],
      'eps': optimizer.eps,
      'weight_decay': optimizer.weight_decay,
      'clip_norm': optimizer.clip_norm,
    },
  )
  return {}


def _read_config() -> TrainCriticConfig:
  flags = [
    '--config.train.trainable=lora',
    '--config.optimizer.warmup_steps=0',
    f'--config.lora.rank={_RANK}',
    f'--config.lora.alpha={2.0 * _RANK}',
    f'--config.lora.targets={_TARGETS}',
  ]
  return job_flags.read_config(f'{_CONFIG}:qwen', flags, TrainCriticConfig)[0]


def _start(config: TrainCriticConfig, critic: critics.Critic):
  """The setup, and trained and frozen parameters."""
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(), jax.local_devices()[:1]
  )
  setup = critic_lib.make_setup(
    critic, config.model, config.train, config.lora, mesh
  )
  params = critic_lib.load_base(setup, critic, 'float32', jax.random.key(0))
  return setup, *params


class Ours:
  def __init__(self, folder: pathlib.Path):
    config, critic = _read_config(), critics.open_critic(folder / 'critic')
    setup, trainable, self._frozen = _start(config, critic)
    tx = make_optimizer(config.optimizer, _NUM_STEPS)
    _, shardings = setup_lib.abstract_state(setup, tx, with_ema=False)
    self._state = jax.jit(
      lambda params: TrainState.create(params, tx, with_ema=False),
      out_shardings=shardings,
    )(trainable)
    arrays = dict(np.load(folder / 'inputs.npz'))
    num_answer = read_json(folder / 'settings.json')['answer']
    tokens_bn = arrays['tokens_bn']
    is_target_bn = np.zeros(tokens_bn.shape, bool)
    is_target_bn[:, -num_answer:] = True
    self._batch = jax.device_put(
      CriticBatch(
        frames=critic_parts.frames_of(arrays, slice(len(tokens_bn))),
        tokens=tokens_bn,
        is_target=is_target_bn,
        segment_ids=np.ones_like(tokens_bn),
        weight=np.ones(len(tokens_bn), np.float32),
      ),
      setup.batch_sharding,
    )
    step = critic_lib.make_step(setup, config.train, tx, num_answer)
    self._step = loop.jit_step(step, self._state)
    self._mesh = setup.mesh

  def __call__(self, number: int) -> Callable[[], Results]:
    del number

    def step() -> Results:
      with jax.set_mesh(self._mesh):
        self._state, found = jax.block_until_ready(
          self._step(self._state, self._frozen, self._batch)
        )
      return {key: float(found[key]) for key in ('loss', 'grad_norm')}

    return step
