"""What is measured of lift_jax: the programs that its jobs run.

They are made as `lift plan` makes them, from the shipped configs, and run on
random weights of the types that the jobs keep them in.

B videos  N places of a prefix  Q questions  M places of a question
"""

import dataclasses
import functools
import math
import re
import time
from typing import Any

from gpu_parts import bounds, clock, configs, devices
from gpu_parts.kernels import kernels as kernels
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from lift_jax import chips
from lift_jax.diffusion import step_cache
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.models import critic_config
from lift_jax.models.critics import Critic
from lift_jax.models.qwen3vl.config import Qwen3VLConfig
from lift_jax.models.vila.tokenizer import IMAGE_TOKEN
from lift_jax.planning import arguments
from lift_jax.planning.memory import Memory
from lift_jax.planning.report import Program
from lift_jax.training.step import LatentBatch
from lift_jax.weights import param_paths


def train(tiny: bool, **settings: Any) -> dict[str, Any]:
  """The step of `lift align` on a batch of encoded videos."""
  devices.check(tiny)
  config = configs.train(tiny, **settings)
  (program,) = configs.programs('align', config).values()
  step, (info, _), seconds = _compile(program)
  state, *rest = _training_arguments(_Maker(program), info)
  found = {}

  def run():
    nonlocal state, found
    state, found = step(state, *rest)
    jax.block_until_ready((state, found))

  with jax.set_mesh(program.mesh):
    runs = clock.repeat(run, tiny)
  return _speed(program, step, runs, seconds) | {
    'loss': float(found['loss']),  # of the last step
  }


# What objectives read of each video.
_COLUMNS = {'reward': 0.9, 'is_real': False, 'optimality': 0.5}


def _training_arguments(put: '_Maker', info):
  """State, frozen parameters, batch, empty caption, key and reference."""
  state, frozen, batch, null_text, _, reference = info
  state = dataclasses.replace(
    # Optax's moments and counters begin at zero.
    put.zeros(dataclasses.replace(state, trainable={})),
    trainable=put.network(state.trainable),
  )
  videos = LatentBatch(
    mean=put.noise(batch.mean),
    logvar=put.noise(batch.logvar),
    text=put.noise(batch.text),
    columns={
      name: put.array(np.full(leaf.shape, _COLUMNS[name], leaf.dtype))
      for name, leaf in batch.columns.items()
    },
  )
  key = put.array(jax.random.key(0))
  return (
    state,
    put.network(frozen),
    videos,
    put.noise(null_text),
    key,
    put.network(reference),
  )


# Length of a residual as a share of that of the step before, for the cache. A
# curve of random weights would say nothing; with this one the default threshold
# lets three steps in a row be skipped after the first fifth.
_RATIO = 0.99


def sample(tiny: bool, cache: str = 'none') -> dict[str, Any]:
  """Denoising and decoding of `lift sample`; the text is embedded already.

  With a cache it is denoising alone, as decoding stays the same.
  """
  devices.check(tiny)
  config = configs.sample(tiny, cache)
  programs = configs.programs('sample', config)
  denoised, latents = _denoise(programs['denoising'], config.sampler, tiny)
  if cache != 'none':
    return denoised
  decoded = _decode(programs['decoding'], latents, tiny)
  per_video = [one['seconds_per_video'] for one in (denoised, decoded)]
  return denoised | {
    'seconds_per_video': sum(per_video),
    'denoise_seconds_per_video': per_video[0],
    'decode_seconds_per_video': per_video[1],
    'decode_run_seconds': decoded['run_seconds'],
    'peak_bytes': decoded['peak_bytes'],  # of all that this process has done
    'program_bytes': max(denoised['program_bytes'], decoded['program_bytes']),
    'bounds': bounds.in_sequence(denoised['bounds'], decoded['bounds']),
    'compile_seconds': denoised['compile_seconds'] + decoded['compile_seconds'],
  }


def _denoise(
  program: Program, sampler: SamplerConfig, tiny: bool
) -> tuple[dict[str, Any], jax.Array]:
  """What it takes, and latents."""
  denoise, ((params, *texts), options), seconds = _compile(program)
  put = _Maker(program)
  params, texts = put.network(params), [put.noise(text) for text in texts]
  options |= {
    'keys_b2': put.array(np.ones(options['keys_b2'].shape, np.uint32))
  }
  steps = {}
  if options['is_computed'] is not None:
    is_computed = _computed_steps(sampler, *options['is_computed'].shape)
    options['is_computed'] = put.array(is_computed)
    steps = {
      'steps': len(is_computed),
      'steps_computed': int(is_computed.sum()),
    }
  latents = None

  def run():
    nonlocal latents
    latents = denoise(params, *texts, **options).block_until_ready()

  with jax.set_mesh(program.mesh):
    runs = clock.repeat(run, tiny)
  if not bool(jnp.isfinite(latents).all()):
    raise ValueError('the latents are not finite')
  found = _speed(program, denoise, runs, seconds) | steps
  if steps and found['mfu'] is not None:
    found['mfu'] *= steps['steps_computed'] / steps['steps']
  return found, latents


def _computed_steps(sampler: SamplerConfig, num_steps: int) -> np.ndarray:
  """Which steps the cache computes, bool [N]."""
  return step_cache.magcache_steps(
    np.full((1, num_steps), _RATIO),
    sampler.cache_threshold,
    sampler.cache_max_skips,
    sampler.cache_retention,
  )


def _decode(program: Program, latents: jax.Array, tiny: bool) -> dict[str, Any]:
  """What it takes; as in `lift sample`, the transformer has left the device."""
  decode, ((params, _), _), seconds = _compile(program)
  params = _Maker(program).network(params)
  with jax.set_mesh(program.mesh):
    runs = clock.repeat(
      lambda: decode(params, latents).block_until_ready(), tiny
    )
  return _speed(program, decode, runs, seconds)


def score(tiny: bool, **settings: Any) -> dict[str, Any]:
  """What `lift score` does for a batch: labels of all questions."""
  devices.check(tiny)
  config = configs.score(tiny, **settings)
  critic = critic_config.declare_chosen(config.model)
  (program,) = configs.programs('score', config).values()
  rate, ((params, frames, prompts), _), seconds = _compile(program)
  put = _Maker(program)
  params = put.network(params)
  frames = jax.tree.map(put.array, _frames(critic, prompts.prefix_bn.shape[0]))
  rows = _filled_prompts(put, critic, prompts, max(config.prompts.text_buckets))
  found = None

  def run():
    nonlocal found
    found, _ = jax.block_until_ready(rate(params, frames, rows))

  with jax.set_mesh(program.mesh):
    runs = clock.repeat(run, tiny)
  probabilities_rl, *_ = found
  total_r = np.asarray(probabilities_rl).sum(axis=-1)
  if not np.allclose(total_r, 1.0, atol=1e-3):
    raise ValueError('probabilities of labels do not add up to 1')
  result = _speed(program, rate, runs, seconds)
  return result | {
    'videos_per_second': 1 / result['seconds_per_video'],
    'tokens_per_video': rows.prefix_bn.shape[1] + rows.question_bqm[0].size,
  }


def _frames(critic: Critic, batch: int) -> Any:
  """Frames of a batch, of the clip that `lift plan` assumes, with noise."""
  clip = arguments.CLIP
  selection = critic.frames.select(clip)
  shape = (len(selection.indices), clip.height, clip.width, 3)
  noise_thw3 = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  return jax.tree.map(
    lambda leaf: np.repeat(leaf[None], batch, axis=0),
    critic.frames.preprocess(noise_thw3, selection),
  )


def _filled_prompts(put: '_Maker', critic: Critic, prompts, num_text: int):
  """Frames and then text, every place taken; which text does not matter."""
  config = critic.config
  is_qwen = isinstance(config, Qwen3VLConfig)
  prefix_bn = np.ones(prompts.prefix_bn.shape, np.int32)
  prefix_bn[:, :-num_text] = config.video_token_id if is_qwen else IMAGE_TOKEN
  question_bqm = np.ones(prompts.question_bqm.shape, np.int32)
  rows = type(prompts)(
    prefix_bn,
    np.full(prefix_bn.shape[:1], prefix_bn.shape[1], np.int32),
    question_bqm,
    np.full(question_bqm.shape[:2], question_bqm.shape[2], np.int32),
  )
  return type(prompts)(*map(put.array, rows))


def _compile(program: Program) -> tuple[Any, Any, float]:
  """A program, the shapes of its arguments, and the seconds that it took."""
  start = time.monotonic()
  lowered = program.lower()
  compiled = lowered.compile()
  return compiled, lowered.args_info, time.monotonic() - start


class _Maker:
  """Arguments of a program, made on the device."""

  def __init__(self, program: Program):
    self._place = NamedSharding(program.mesh, P())
    self._num_made = 0

  def array(self, x: jax.Array | np.ndarray) -> jax.Array:
    return jax.device_put(x, self._place)

  def zeros(self, info: Any) -> Any:
    return jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=self._place), info
    )

  def noise(self, leaf: Any, scale: float = 1.0) -> jax.Array:
    """Normal numbers, other ones at each call."""
    self._num_made += 1
    return _normal(self._num_made, scale, leaf.shape, leaf.dtype, self._place)

  def network(self, info: Any) -> Any:
    """Parameters like those of a new network, leaf by leaf in their type."""

    def fresh(name, leaf):
      last = name.split('/')[-1]
      if last == 'scale':
        return jnp.ones(leaf.shape, leaf.dtype, device=self._place)
      if last in ('bias', 'lora_b'):
        return self.zeros(leaf)
      # One over the number of inputs; the first axis of stacked blocks is that
      # of the layers.
      is_stacked = re.search('(^|/)blocks/', name) is not None
      inputs = math.prod(leaf.shape[is_stacked:-1])
      return self.noise(leaf, inputs**-0.5)

    return param_paths.map_named(fresh, info)


@functools.partial(jax.jit, static_argnames=('shape', 'dtype', 'place'))
def _normal(seed, scale, shape, dtype, place):
  def draw(key, shape):
    return (jax.random.normal(key, shape, dtype) * scale).astype(dtype)

  key = jax.random.key(seed)
  if len(shape) > 2:
    # Layer by layer: the random bits of a whole stack would take several times
    # the memory of the network.
    keys = jax.random.split(key, shape[0])
    numbers = jax.lax.map(lambda key: draw(key, shape[1:]), keys)
  else:
    numbers = draw(key, shape)
  return jax.lax.with_sharding_constraint(numbers, place)


def _speed(
  program: Program, compiled: Any, runs: list[float], compile_seconds: float
) -> dict[str, Any]:
  """What is known of every program after its runs."""
  device = program.mesh.devices.flat[0]
  seconds = clock.median(runs)
  peak, flops = chips.peak_flops(device.device_kind), program.model_flops
  return devices.about(device) | {
    'seconds_per_video': seconds / program.num_videos,
    'run_seconds': runs,
    'mfu': flops / (seconds * peak) if flops and peak else None,
    'compile_seconds': compile_seconds,
    'program_bytes': Memory.of(compiled).total,
    'bounds': bounds.of(program, compiled),
  }
