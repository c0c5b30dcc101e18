"""A training step: that of `lift align`, and what both sides need for it.

In the folder: transformer/ in the published format, settings.json, and for each
round NUMBER.npz with a batch and what is drawn for it. The batches come from a
cache of random latents that is written and read as the jobs do.
"""

from collections.abc import Callable
import dataclasses
import pathlib

from cpu_parts import reading
from cpu_parts.rows import Results
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import partitioning
from lift_jax.data import global_batch
from lift_jax.data.cache_lists import Bucket
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.models.cogvideox import flops
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.convert import (
  TRANSFORMER_TABLE,
  computed_tensors,
)
from lift_jax.models.cogvideox.sharding import TRANSFORMER_RULES
from lift_jax.models.cogvideox.transformer import Transformer
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.functional import functional
from lift_jax.models.latents import LatentScale
from lift_jax.runtime import distributed
from lift_jax.runtime.files import read_json, write_json
from lift_jax.training import loop
from lift_jax.training import setup as setup_lib
from lift_jax.training.objectives.reward_weighted import RewardWeighted
from lift_jax.training.optimizer import (
  OptimizerConfig,
  learning_rate_schedule,
  make_optimizer,
)
from lift_jax.training.state import TrainState
from lift_jax.training.step import (
  LatentBatch,
  StepConfig,
  draw,
  make_train_step,
)
from lift_jax.weights import published_tensors, safetensors_files

# LiFT's, as in configs/align_cogvideox_2b.py, but for the warm-up: the first
# step would have a learning rate of 0.
OPTIMIZER = OptimizerConfig(
  learning_rate=1e-5,
  warmup_steps=0,
  cycles=1,
  beta1=0.9,
  beta2=0.95,
  eps=1e-8,
  weight_decay=1e-4,
  clip_norm=1.0,
)
NUM_STEPS = 18_800  # of LiFT's training; sets the learning rate alone
SCHEDULE = ScheduleConfig()
OBJECTIVE = RewardWeighted(real_weight=1.0)
STEP = StepConfig(
  latent_scale=LatentScale(VAEConfig().scaling_factor),
  caption_dropout=0.0,
  grad_accum=1,
  ema_decay=0.0,
)
_STEM = 'diffusion_pytorch_model'


@dataclasses.dataclass(frozen=True)
class Size:
  """What is measured.

  Attributes:
    transformer: its sizes; those of a sample are those of the clips, so that
      diffusers makes its table of positions once, before the clock.
    latents: frames, rows and columns of a clip.
    batch_size: videos of a step.
    num_videos: in the cache.
    reading_seconds: how long batches are read for.
  """

  transformer: TransformerConfig
  latents: Bucket
  batch_size: int
  num_videos: int
  reading_seconds: float


# Two clips of 13 frames of 256 x 256 pixels; a clip is 1,024 tokens of video
# and 226 of text.
MIDDLE = Size(
  TransformerConfig(
    num_layers=4,
    num_heads=8,
    sample_height=32,
    sample_width=32,
    sample_frames=13,
  ),
  latents=(4, 32, 32),
  batch_size=2,
  num_videos=32,
  reading_seconds=3.0,
)
TINY = Size(
  TransformerConfig(
    num_layers=2,
    num_heads=2,
    head_dim=16,
    time_embed_dim=16,
    text_embed_dim=24,
    max_text_length=6,
    sample_height=8,
    sample_width=8,
    sample_frames=5,
  ),
  latents=(2, 8, 8),
  batch_size=2,
  num_videos=4,
  reading_seconds=0.1,
)


def write(
  folder: pathlib.Path, tiny: bool, rounds: int, dtype: str
) -> dict[str, float]:
  """Makes weights and batches; FLOPs of a step, and videos read in a second."""
  size = TINY if tiny else MIDDLE
  config = size.transformer
  setup = _make_setup(config, dtype)
  _write_weights(folder / 'transformer', setup, config)
  next_arrays = reading.write_cache(
    folder / 'cache',
    (*size.latents, config.in_channels),
    (config.max_text_length, config.text_embed_dim),
    size.num_videos,
    size.batch_size,
    setup.batch_sharding,
  )
  videos_read = size.batch_size * reading.batches_per_second(
    lambda: jax.block_until_ready(_to_batch(setup, next_arrays())),
    size.reading_seconds,
  )
  rate = learning_rate_schedule(OPTIMIZER, NUM_STEPS)
  for number in range(rounds):
    arrays = next_arrays()
    draws = draw(
      jax.random.fold_in(jax.random.key(0), number),
      LatentBatch.of(arrays, OBJECTIVE),
      SCHEDULE,
      STEP.caption_dropout,
    )
    np.savez(folder / f'{number}.npz', **arrays, **draws._asdict())
  write_json(
    folder / 'settings.json',
    {
      'dtype': dtype,
      'optimizer': dataclasses.asdict(OPTIMIZER),
      'rates': [float(rate(number)) for number in range(rounds)],
      'schedule': SCHEDULE.to_json(),
      'scaling_factor': STEP.latent_scale.factor,
    },
  )
  tokens = config.num_tokens(*size.latents)
  passes = flops.forward_flops(config, tokens)
  return {
    'flops': size.batch_size * passes.training(trains_kernels=True),
    'videos': size.batch_size,
    'videos_read_per_second': videos_read,
  }


def _make_setup(config: TransformerConfig, dtype: str) -> setup_lib.Setup:
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(), jax.local_devices()[:1]
  )
  model = functional(
    lambda rngs: Transformer(config, dtype=jnp.dtype(dtype), rngs=rngs)
  )
  return setup_lib.make_setup(model, TRANSFORMER_RULES, 'blocks', mesh)


def _write_weights(
  folder: pathlib.Path, setup: setup_lib.Setup, config: TransformerConfig
) -> None:
  """Random parameters, biases too, so that a wrong one shows in the loss."""
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda x: x + 0.02 * rng.standard_normal(x.shape, np.float32),
    jax.device_get(jax.jit(setup.model.init)(jax.random.key(0))),
  )
  published_tensors.save(TRANSFORMER_TABLE, params, folder, _STEM)
  write_json(folder / 'config.json', config.to_json())


def _to_batch(setup: setup_lib.Setup, arrays: reading.Arrays) -> LatentBatch:
  """On the device, as `lift align` puts it there."""
  count = len(arrays['mean'])
  return LatentBatch.of(
    global_batch.to_global(arrays, count, setup.batch_sharding), OBJECTIVE
  )


class Ours:
  """The step of `lift align`."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    settings = read_json(folder / 'settings.json')
    config = TransformerConfig.from_json(
      read_json(folder / 'transformer' / 'config.json')
    )
    self._setup = setup = _make_setup(config, settings['dtype'])
    params = published_tensors.load(
      TRANSFORMER_TABLE,
      setup.model.abstract_params,
      safetensors_files.open_tensors(folder / 'transformer', _STEM),
      shardings=setup.shardings,
      computed=computed_tensors(config),
    )
    tx = make_optimizer(OPTIMIZER, NUM_STEPS)
    trainable, self._frozen = setup.split(params)
    _, shardings = setup_lib.abstract_state(setup, tx, with_ema=False)
    self._state = jax.jit(
      lambda params: TrainState.create(params, tx, with_ema=False),
      out_shardings=shardings,
      donate_argnums=0,
    )(trainable)
    self._key = jax.device_put(jax.random.key(0), setup.replicated)
    self._null_text = jax.device_put(
      np.zeros((config.max_text_length, config.text_embed_dim), np.float32),
      setup.replicated,
    )
    step = make_train_step(setup.model, SCHEDULE, tx, OBJECTIVE, STEP)
    self._steps = loop.CompiledSteps(
      loop.jit_step(step, self._state),
      lambda batch: 'latents ' + 'x'.join(map(str, batch.mean.shape)),
      distributed.start_logging(),
    )

  def __call__(self, number: int) -> Callable[[], Results]:
    # The state knows the number, and from it what is drawn.
    arrays = dict(np.load(self._folder / f'{number}.npz'))
    batch = jax.block_until_ready(_to_batch(self._setup, arrays))

    def step() -> Results:
      with jax.set_mesh(self._setup.mesh):
        self._state, metrics = self._steps(
          self._state, self._frozen, batch, self._null_text, self._key, {}
        )
        jax.block_until_ready((self._state, metrics))
      return {key: float(metrics[key]) for key in ('loss', 'grad_norm')}

    return step
