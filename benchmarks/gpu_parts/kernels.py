"""Attention in bfloat16 against attention in fp32, values and gradients.

Scores have a standard deviation of 3, so that a query gives most of its weight
to few keys, and one that a kernel passes over is missed. The error is that of
the worst vector [K] of any token and head,

  max |found - exact| / max(|exact|, root mean square of |exact|)

as a mean over all of them would hide the few that the end of an odd sequence
spoils. `exact` is the plain attention with full fp32 products.

B batch  N tokens  H heads  G key heads  K head dim
"""

import functools
from typing import Any, NamedTuple

from gpu_parts import clock, devices
import jax
import jax.numpy as jnp

from lift_jax.models import generators
from lift_jax.models.attention import attention
from lift_jax.models.vila.config import NUM_FRAMES, PUBLISHED

# On a CPU, plain attention in bfloat16 came to 0.007 at most, and to 0.36 and
# more without the last of 201 or 1,100 keys, without the scale, or with a mask
# too many.
BOUND = 0.05
_SCORE_DEVIATION = 3.0
_RESULTS = ('value', 'dq', 'dk', 'dv')


class _Shape(NamedTuple):
  name: str
  batch: int
  tokens: int
  heads: int
  key_heads: int
  head_dim: int
  is_causal: bool

  @property
  def flops(self) -> float:
    """Of the forward pass: half a square where it is causal."""
    square = self.tokens**2 / (2 if self.is_causal else 1)
    return 4.0 * self.batch * square * self.heads * self.head_dim


def kernels(tiny: bool) -> dict[str, Any]:
  """Every kind of attention of this device, at the shapes of the models."""
  devices.check(tiny)
  device = jax.devices()[0]
  backends = ('xla', 'cudnn') if device.platform == 'gpu' else ('xla',)
  found = []
  for shape in _tiny_shapes() if tiny else _shapes():
    found += _compare(shape, backends, tiny)
  result = devices.about(device) | {'kernels': found}
  bad = [
    f'{one["shape"]}, {one["backend"]}: {one["reason"]}'
    for one in found
    if one['reason']
  ]
  if bad:
    result |= {'status': 'failed', 'reason': '; '.join(bad)}
  return result


def _shapes() -> tuple[_Shape, ...]:
  """Those of one video, and of what a critic sees and reads of it."""
  video = generators.published_sizes()['CogVideoX-2b'].transformer
  tokens = video.num_tokens(13, 60, 90)  # 49 x 480 x 720 pixels
  critic = PUBLISHED['VILA1.5-13b']
  tower, llm = critic.vision_tower, critic.llm
  shared = PUBLISHED['VILA1.5-40b'].llm
  text = NUM_FRAMES * critic.tokens_per_frame + 192
  return (
    _Shape('CogVideoX-2B', 1, tokens, *2 * (video.num_heads,), 64, False),
    _Shape('VILA 13B', 1, text, *2 * (llm.num_heads,), llm.head_dim, True),
    _Shape(
      'VILA 40B', 1, text, shared.num_heads, shared.num_kv_heads, 128, True
    ),
    _Shape(
      'SigLIP',
      NUM_FRAMES,
      tower.num_patches,
      *2 * (tower.num_heads,),
      tower.width // tower.num_heads,
      False,
    ),
  )


def _tiny_shapes() -> tuple[_Shape, ...]:
  return (
    _Shape('full', 2, 70, 4, 4, 16, False),
    _Shape('causal', 2, 70, 4, 4, 16, True),
    _Shape('shared key heads', 2, 70, 4, 2, 16, True),
  )


def _compare(
  shape: _Shape, backends: tuple[str, ...], tiny: bool
) -> list[dict[str, Any]]:
  """Errors and times of each kind of attention at one shape."""
  arguments = _arguments(shape)
  with jax.default_matmul_precision('highest'):
    exact = _gradients(
      *(x.astype(jnp.float32) for x in arguments),
      backend='xla',
      is_causal=shape.is_causal,
    )
  found = []
  for backend in backends:
    one = {'shape': shape.name, 'backend': backend, 'reason': ''}
    try:
      one |= _measure(shape, backend, arguments, exact, tiny)
    except Exception as error:
      one['reason'] = ' '.join(str(error).split())[:200]
    else:
      worst = max(one['errors'].values())
      if not worst < BOUND:
        one['reason'] = f'an error of {worst:.3g} is not below {BOUND}'
    found.append(one)
  return found


def _measure(
  shape: _Shape, backend: str, arguments, exact, tiny: bool
) -> dict[str, Any]:
  options = {'backend': backend, 'is_causal': shape.is_causal}
  errors = {
    name: float(_worst(one, other))
    for name, one, other in zip(
      _RESULTS, _gradients(*arguments, **options), exact, strict=True
    )
  }
  values = functools.partial(_value, *arguments[:3], **options)
  gradients = functools.partial(_gradients, *arguments, **options)
  forward, both = (
    clock.median(
      clock.repeat(lambda run=run: jax.block_until_ready(run()), tiny)
    )
    for run in (values, gradients)
  )
  return {
    'errors': errors,
    'bound': BOUND,
    'forward_seconds': forward,
    'forward_and_backward_seconds': both,
    'forward_flops_per_second': shape.flops / forward,
  }


def _arguments(shape: _Shape):
  """Queries, keys, values and what the result is differentiated along."""
  queries = (shape.batch, shape.tokens, shape.heads, shape.head_dim)
  keys = (shape.batch, shape.tokens, shape.key_heads, shape.head_dim)
  q, k, v, along = (
    jax.random.normal(key, shape, jnp.bfloat16)
    for key, shape in zip(
      jax.random.split(jax.random.key(0), 4),
      (queries, keys, keys, queries),
      strict=True,
    )
  )
  return (_SCORE_DEVIATION * q).astype(q.dtype), k, v, along


@functools.partial(jax.jit, static_argnames=('backend', 'is_causal'))
def _value(q, k, v, *, backend: str, is_causal: bool):
  return attention(q, k, v, is_causal=is_causal, backend=backend)


@functools.partial(jax.jit, static_argnames=('backend', 'is_causal'))
def _gradients(q, k, v, along, *, backend: str, is_causal: bool):
  """The result, and the gradients of its product with `along`."""
  call = functools.partial(attention, is_causal=is_causal, backend=backend)
  value, pull = jax.vjp(call, q, k, v)
  return value, *pull(along)


@jax.jit
def _worst(found, exact):
  exact = exact.astype(jnp.float32)
  error = jnp.linalg.norm(found.astype(jnp.float32) - exact, axis=-1)
  size = jnp.linalg.norm(exact, axis=-1)
  typical = jnp.sqrt(jnp.mean(jnp.square(size)))
  return jnp.max(error / jnp.maximum(size, typical))
