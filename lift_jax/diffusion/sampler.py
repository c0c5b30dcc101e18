"""Samplers: DDIM and CogVideoX's stochastic DPM.

A step goes from alpha-bar a (at timestep t) to alpha-bar p (at the next, lower
one, or a final value, usually 1, after the last). The network's velocity v
gives an estimate of the clean latents, and the step is a linear combination:

  x0  = sqrt(a) x - sqrt(1 - a) v
  x'  = A x + B x0 + C x0_previous + D noise

so both samplers are one loop over a table of coefficients. With

  rho = a (1 - p) / (p (1 - a)),   1 - rho = (p - a) / (p (1 - a))

which is exp(-2 h) for a step h in half the log signal-to-noise ratio:

  DDIM  A = sqrt((1 - p) / (1 - a))              B = sqrt(p) - sqrt(a) A
  DPM   A = sqrt((1 - p) / (1 - a)) sqrt(rho)    B = sqrt(p) (1 - rho) (1 + c)
        C = -sqrt(p) (1 - rho) c                 D = sqrt((1 - p) (1 - rho))

where c = h / (2 h_previous) makes the DPM step second-order; it is 0 at the
first step, which has no predecessor, at the second, as h_previous is infinite
after a = 0, and at the last. In terms of rho all coefficients are finite: a = 0
and p = 1 both give rho = 0. (DDIM: arXiv 2010.02502. DPM: SDE-DPM-Solver++(2M),
arXiv 2211.01095.)

The tables are computed on the host in float64 and rounded once.

B clips  N steps
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.diffusion import guidance
from lift_jax.errors import UserError

SAMPLERS = ('ddim', 'dpm')
SPACINGS = ('linspace', 'leading', 'trailing')
CACHES = ('none', 'magcache', 'teacache')
CARRY_DTYPES = ('float32', 'bfloat16', 'float16')


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
  """Sampler settings; the defaults are the published ones for 2B.

  Attributes:
    name: 'ddim', deterministic, or 'dpm', which adds noise at every step.
    num_steps: denoising steps.
    guidance_scale: of classifier-free guidance; 1 disables it, at half the
      cost.
    dynamic_guidance: 'none', 'timestep' or 'step'; see `guidance`.
    reference: step as diffusers does, from t to t - 1000 // num_steps. Unless
      timesteps are spaced so, which 'trailing' ones are only if num_steps
      divides 1000 and 'linspace' ones never, this is not the next timestep, and
      noise may remain after the last step.
    carry_dtype: type that latents are rounded to after each step; the published
      pipelines round to the type of the network.
    guidance_range: (first, end): only steps first <= i < end are guided, the
      others cost half; () for all.
    cache: 'magcache' or 'teacache' skips the transformer's blocks in some
      steps, see `step_cache`; 'none' in none.
    cache_curve: file of `lift calibrate` that decides which.
    cache_threshold: the error that skipped steps may add up to.
    cache_max_skips: of 'magcache': steps that may be skipped in a row.
    cache_retention: of 'magcache': share of the steps, at the start, that are
      never skipped.
  """

  name: str = 'ddim'
  num_steps: int = 50
  guidance_scale: float = 6.0
  dynamic_guidance: str = 'none'
  reference: bool = False
  carry_dtype: str = 'float32'
  guidance_range: tuple[int, ...] = ()
  cache: str = 'none'
  cache_curve: str = ''
  cache_threshold: float = 0.06
  cache_max_skips: int = 3
  cache_retention: float = 0.2

  def __post_init__(self):
    for field, choices in (
      ('name', SAMPLERS),
      ('dynamic_guidance', guidance.DYNAMICS),
      ('carry_dtype', CARRY_DTYPES),
      ('cache', CACHES),
      ('reference', (False, True)),
    ):
      value = getattr(self, field)
      if not any(value is choice or value == choice for choice in choices):
        raise UserError(
          f'sampler: {field} is {value!r}; give one of '
          + ', '.join(map(str, choices))
        )
    if type(self.num_steps) is not int or self.num_steps < 1:
      raise UserError(
        f'sampler: num_steps is {self.num_steps!r}; give a positive integer'
      )
    scale = self.guidance_scale
    if type(scale) not in (int, float) or not 1 <= scale < float('inf'):
      raise UserError(
        f'sampler: guidance_scale is {scale!r}; give a finite number of at '
        'least 1 (no guidance)'
      )
    if self.guidance_range:
      self._check_range()
    if self.cache != 'none':
      self._check_cache()

  def _check_range(self) -> None:
    where = f'sampler: guidance_range is {self.guidance_range}'
    if not self.is_guided:
      raise UserError(f'{where}; guidance_scale must then be above 1')
    match self.guidance_range:
      case int(first), int(end) if 0 <= first < end <= self.num_steps:
        return
    raise UserError(
      f'{where}; give the first guided step and the one after the last, from 0 '
      f'to {self.num_steps}'
    )

  def _check_cache(self) -> None:
    if not self.cache_curve:
      raise UserError(
        f'sampler: cache is {self.cache!r}; name the file that lift calibrate '
        'wrote for this model in cache_curve'
      )
    for name, is_valid, wanted in (
      ('cache_threshold', self.cache_threshold > 0, 'a number above 0'),
      ('cache_max_skips', self.cache_max_skips > 0, 'a positive integer'),
      ('cache_retention', 0 <= self.cache_retention <= 1, 'a share of 0 to 1'),
    ):
      if not is_valid:
        raise UserError(
          f'sampler: {name} is {getattr(self, name)!r}; give {wanted}'
        )

  def check_uncached(self, where: str) -> None:
    """Raises UserError if a job that samples from several models has a cache.

    Args:
      where: name of the section in messages.
    """
    if self.cache != 'none':
      raise UserError(
        f'{where}.cache is {self.cache!r}, but this job samples from several '
        f"models, and a curve is of one; set {where}.cache = 'none'"
      )

  @property
  def uncached(self) -> 'SamplerConfig':
    """The same sampler without a cache."""
    defaults = {
      field.name: field.default
      for field in dataclasses.fields(self)
      if field.name.startswith('cache')
    }
    return dataclasses.replace(self, **defaults)

  @property
  def is_guided(self) -> bool:
    """Whether classifier-free guidance is used."""
    return self.guidance_scale > 1

  def phases(self, num_steps: int) -> list[tuple[slice, bool]]:
    """Ranges of steps, in order, and whether each is guided.

    Args:
      num_steps: of the sampler, with the extra one of `reference`.
    """
    first, end = 0, num_steps if self.is_guided else 0
    if self.guidance_range:
      first, end = self.guidance_range
    ranges = [
      (slice(0, first), False),
      (slice(first, end), True),
      (slice(end, num_steps), False),
    ]
    return [(part, guided) for part, guided in ranges if part.start < part.stop]

  def passes(self, is_computed_n: np.ndarray) -> int:
    """Passes of the network for one clip, if only these steps are computed."""
    return sum(
      int(is_computed_n[part].sum()) * (2 if guided else 1)
      for part, guided in self.phases(len(is_computed_n))
    )

  @property
  def is_stochastic(self) -> bool:
    """Whether each step adds noise."""
    return self.name == 'dpm'


class Steps(NamedTuple):
  """Sampler coefficients of all steps [N], or of one step.

  Attributes:
    index: 0, 1, ..., int32.
    timestep: input of the network, int32 or fp32.
    guidance: guidance scale, fp32 like all below.
    signal: x0 = signal x - noise v, where v is the network's prediction.
    noise: see `signal`.
    from_x: x' = from_x x + from_x0 x0 + from_previous x0_previous
      + from_noise noise.
    from_x0: see `from_x`.
    from_previous: see `from_x`.
    from_noise: see `from_x`.
    is_computed: whether the network's blocks run; else a cache replaces them.
      None without a cache.
  """

  index: np.ndarray
  timestep: np.ndarray
  guidance: np.ndarray
  signal: np.ndarray
  noise: np.ndarray
  from_x: np.ndarray
  from_x0: np.ndarray
  from_previous: np.ndarray
  from_noise: np.ndarray
  is_computed: np.ndarray | jax.Array | None = None


class Phase(NamedTuple):
  """Consecutive steps of a sampler that share a velocity.

  Attributes:
    velocity: `velocity(x_b, step, cache)`, the network's prediction with
      guidance applied, in fp32, and the cache for the next step.
    steps: their coefficients.
    cache: what the first step gets; any tree of arrays.
  """

  velocity: Callable[[jax.Array, Steps, Any], tuple[jax.Array, Any]]
  steps: Steps
  cache: Any = None


def spaced_timesteps(
  spacing: str,
  num_steps: int,
  num_train_timesteps: int,
  steps_offset: int = 0,
  *,
  reference: bool = False,
) -> np.ndarray:
  """Timesteps of a sampler, descending, int64 [num_steps].

  With T timesteps, for i = 0, ..., num_steps - 1 (Table 2 of arXiv 2305.08891):

    linspace   (T - 1) i / (num_steps - 1), the first and the last included
    leading    i floor(T / num_steps) + steps_offset
    trailing   T - 1 - i T / num_steps

  Args:
    spacing: one of `SPACINGS`.
    num_steps: at most T.
    num_train_timesteps: T.
    steps_offset: for 'leading' only.
    reference: keep the extra timestep -1 that diffusers' 'trailing' has for
      some `num_steps`, such as 61, due to rounding.

  Raises:
    UserError: more steps than timesteps, or an offset beyond the last timestep.
  """
  total = num_train_timesteps
  if num_steps > total:
    raise UserError(
      f'sampler: num_steps is {num_steps}; the schedule has {total} timesteps'
    )
  if spacing == 'linspace':
    t = np.linspace(0, total - 1, num_steps).round()[::-1]
  elif spacing == 'leading':
    t = np.arange(num_steps)[::-1] * (total // num_steps) + steps_offset
  else:
    t = np.round(np.arange(total, 0, -total / num_steps)) - 1
    t = t if reference else t[:num_steps]
  if t[0] >= total:
    raise UserError(
      f'sampler: steps_offset is {steps_offset} and num_steps {num_steps}, so '
      f'sampling would start at timestep {int(t[0])} of {total}; give more '
      'steps, or a smaller offset in scheduler/scheduler_config.json'
    )
  return t.astype(np.int64)


def velocity_steps(
  alpha_bars: np.ndarray,
  timesteps: np.ndarray,
  final_alpha_bar: float,
  config: SamplerConfig,
) -> Steps:
  """Coefficients of a sampler for a network that predicts v.

  Args:
    alpha_bars: of every timestep, float64.
    timesteps: from `spaced_timesteps`.
    final_alpha_bar: to which the last step goes; 1 is clean.
    config: sampler settings.
  """
  t = timesteps
  t_next = np.append(t[1:], -1)
  if config.reference:
    t_next = t - len(alpha_bars) // config.num_steps
  is_last = t_next < 0
  a = alpha_bars[t]
  p = np.where(is_last, final_alpha_bar, alpha_bars[t_next])

  table = {'signal': np.sqrt(a), 'noise': np.sqrt(1 - a)}
  noise_ratio = np.sqrt((1 - p) / (1 - a))
  if config.name == 'ddim':
    table['from_x'] = noise_ratio
    table['from_x0'] = np.sqrt(p) - np.sqrt(a) * noise_ratio
    table['from_previous'] = table['from_noise'] = np.zeros_like(a)
  else:
    one_minus_rho = (p - a) / (p * (1 - a))  # without cancellation
    c = _second_order(a, p, is_last)
    table['from_x'] = noise_ratio * np.sqrt(_rho(a, p))
    table['from_x0'] = np.sqrt(p) * one_minus_rho * (1 + c)
    table['from_previous'] = -np.sqrt(p) * one_minus_rho * c
    table['from_noise'] = np.sqrt((1 - p) * one_minus_rho)
  table['guidance'] = guidance.guidance_scales(
    config.guidance_scale, config.dynamic_guidance, t, config.num_steps
  )
  return Steps(
    index=np.arange(len(t), dtype=np.int32),
    timestep=t.astype(np.int32),
    **{name: column.astype(np.float32) for name, column in table.items()},
  )


def _rho(a, p):
  """exp(-2 h) of steps from alpha-bar a to alpha-bar p."""
  return a * (1 - p) / (p * (1 - a))


def _second_order(a, p, is_last):
  """c = h / (2 h_previous) of each step, 0 for first-order steps.

  h_previous is the step from the previous timestep to this one, even if that
  step went to another timestep (`SamplerConfig.reference`).
  """
  c = np.zeros_like(a)
  previous, current, after = a[:-1], a[1:], p[1:]
  # If a = 0 or p = 1, h is infinite; the last step is of first order even if
  # it does not go to p = 1.
  second = (previous > 0) & (current > 0) & ~is_last[1:]
  previous, current, after = previous[second], current[second], after[second]
  log_rho = np.log(_rho(current, after))
  c[1:][second] = log_rho / (2 * np.log(_rho(previous, current)))
  return c


def clip_keys(seeds: Sequence[int]) -> np.ndarray:
  """Random keys of clips, uint32 [B, 2], from seeds in [0, 2^64)."""
  if any(not 0 <= seed < 2**64 for seed in seeds):
    raise UserError(f'sampler: seeds {list(seeds)}; they must be in [0, 2^64)')
  halves = [divmod(seed, 2**32) for seed in seeds]
  return np.array(halves, np.uint32).reshape(-1, 2)


def clip_noise(
  keys_b2: jax.Array, draw: jax.Array | int, shape: tuple[int, ...]
) -> jax.Array:
  """Standard normal noise fp32 [B, *shape], from one key per clip.

  It depends neither on the other clips of the batch nor on the mesh. The
  generator is fixed, as others (rbg) give different numbers under vmap.

  Args:
    keys_b2: uint32 [B, 2], see `clip_keys`.
    draw: 0 for the initial noise, i + 1 for the noise of step i.
    shape: of one clip.
  """

  def one(key_2):
    key = jax.random.wrap_key_data(key_2, impl='threefry2x32')
    return jax.random.normal(jax.random.fold_in(key, draw), shape)

  return jax.vmap(one)(keys_b2)


def sample(
  phases: Sequence[Phase],
  x_b: jax.Array,
  draw: Callable[[jax.Array], jax.Array] | None = None,
  carry_dtype=jnp.float32,
) -> tuple[jax.Array, list[Any]]:
  """Runs all sampler steps, with one scan for each phase.

  Args:
    phases: in order.
    x_b: initial noise [B, ...].
    draw: `draw(index)`, the noise [B, ...] of a step; None for a deterministic
      sampler.
    carry_dtype: type that latents are rounded to after each step.

  Returns:
    Clean latents [B, ...] in fp32, and the cache at the end of each phase.
  """
  previous_b = jnp.zeros(x_b.shape, jnp.float32)
  x_b = x_b.astype(carry_dtype)
  caches = []
  for velocity, steps, cache in phases:

    def body(carry, step, velocity=velocity):
      x_b, previous_b, cache = carry
      v_b, cache = velocity(x_b, step, cache)
      x_b = x_b.astype(jnp.float32)
      x0_b = step.signal * x_b - step.noise * v_b
      x_b = step.from_x * x_b + step.from_x0 * x0_b
      if draw is not None:
        noise_b = draw(step.index).astype(jnp.float32)
        x_b = x_b + step.from_previous * previous_b + step.from_noise * noise_b
      return (x_b.astype(carry_dtype), x0_b, cache), None

    (x_b, previous_b, cache), _ = jax.lax.scan(
      body, (x_b, previous_b, cache), jax.tree.map(jnp.asarray, steps)
    )
    caches.append(cache)
  return x_b.astype(jnp.float32), caches
