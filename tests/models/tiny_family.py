"""A tiny made-up family of text-to-video models.

Unlike CogVideoX it predicts a flow, tokenizes characters, does not compress
time and scales latents per channel. Tests register it for themselves with
`registered`.

B batch  F h w C latents  T H W frames, height and width  S text tokens
D width of text embeddings  N tokens  M width of a token  H heads
"""

import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from lift_jax.diffusion import guidance
from lift_jax.diffusion.sampler import Steps
from lift_jax.errors import UserError
from lift_jax.models import generators
from lift_jax.models.attention import attention
from lift_jax.models.functional import stack
from lift_jax.models.generators import Flops, NetworkSpec
from lift_jax.models.latents import LatentGrid, LatentScale
from lift_jax.models.linear import Linear
from lift_jax.models.remat import scan_layers
from lift_jax.partitioning import BATCH_AXES, constrain
from lift_jax.weights import conversion

PATCH = 4  # height and width of a latent in pixels
CHANNELS = 8
TOKENS = P(BATCH_AXES, 'context', None)


class Section:
  """A config whose published keys are the names of its fields."""

  @classmethod
  def from_json(cls, published):
    known = {k: v for k, v in published.items() if not k.startswith('_')}
    return cls(**known)

  def to_json(self):
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class TinyTransformerConfig(Section):
  num_layers: int = 2
  num_heads: int = 2
  width: int = 16


@dataclasses.dataclass(frozen=True)
class TinyVAEConfig(Section):
  latents_std: float = 0.5


@dataclasses.dataclass(frozen=True)
class TinyTextConfig(Section):
  max_length: int = 12
  width: int = 16


@dataclasses.dataclass(frozen=True)
class FlowSchedule(Section):
  """x_t = (1 - s) x0 + s noise, target noise - x0, timestep 1000 s."""

  shift: float = 3.0

  def _shifted(self, s):
    return self.shift * s / (1 + (self.shift - 1) * s)

  def draw_timesteps(self, key, shape):
    return 1000 * self._shifted(jax.nn.sigmoid(jax.random.normal(key, shape)))

  def add_noise(self, x0, noise, t_b):
    s = t_b.reshape(-1, *(1,) * (x0.ndim - 1)) / 1000
    return (1 - s) * x0 + s * noise

  def target(self, x0, noise, t_b):
    return noise - x0

  def x0_error_scale(self, t_b):
    """s, as x0 = x_t - s v."""
    return t_b / 1000

  def make_steps(self, config):
    """Euler: x' = x + (s' - s) v = (s' / s) x + (1 - s' / s) x0."""
    if config.is_stochastic:
      raise UserError(f'sampler: a flow has no {config.name}; choose ddim')
    s = self._shifted(np.linspace(1, 0, config.num_steps + 1))
    s, after = s[:-1], s[1:]
    scales = guidance.guidance_scales(
      config.guidance_scale, config.dynamic_guidance, 1000 * s, len(s)
    )
    one, zero = np.ones_like(s), np.zeros_like(s)
    tables = (1000 * s, scales, one, s, after / s, 1 - after / s, zero, zero)
    return Steps(np.arange(len(s)), *(x.astype(np.float32) for x in tables))


class Block(nnx.Module):
  """Attention and one linear layer, with the time embedding added."""

  def __init__(self, config, backend, dtype, rngs):
    width = config.width
    self.qkv = Linear(width, 3 * width, dtype=dtype, rngs=rngs)
    self.out = Linear(width, width, dtype=dtype, rngs=rngs)
    self.num_heads, self.backend = config.num_heads, backend

  def __call__(self, x_bnm, time_bm):
    qkv = self.qkv(x_bnm + time_bm[:, None])
    qkv = qkv.reshape(*x_bnm.shape[:2], 3, self.num_heads, -1)
    y = attention(*jnp.moveaxis(qkv, 2, 0), backend=self.backend)
    return x_bnm + jax.nn.silu(self.out(y.reshape(x_bnm.shape)))


class TinyTransformer(nnx.Module):
  """Full attention over text and latents; predicts the flow."""

  def __init__(self, config, text_width, *, dtype=jnp.float32, remat='none',
               attention_backend='auto', rngs):  # fmt: skip
    linear = functools.partial(Linear, dtype=dtype, rngs=rngs)
    self.embed = linear(CHANNELS, config.width)
    self.text = linear(text_width, config.width)
    self.time = linear(2, config.width)
    self.out = linear(config.width, CHANNELS)
    self.blocks = stack(
      lambda rngs: Block(config, attention_backend, dtype, rngs),
      config.num_layers,
      rngs,
    )
    self.remat, self.dtype = remat, dtype

  def __call__(self, x_bfhwc, text_bsd, t_b):
    s = t_b.astype(jnp.float32)[:, None] / 1000
    waves = jnp.concatenate([jnp.cos(3 * s), jnp.sin(3 * s)], axis=-1)
    time_bm = self.time(waves.astype(self.dtype))
    video = self.embed(x_bfhwc.reshape(len(x_bfhwc), -1, CHANNELS))
    x_bnm = jnp.concatenate([self.text(text_bsd), video], axis=1)
    graphdef, blocks = nnx.split(self.blocks)

    def body(x_bnm, block):
      return constrain(nnx.merge(graphdef, block)(x_bnm, time_bm), TOKENS), None

    x_bnm = scan_layers(body, constrain(x_bnm, TOKENS), blocks, self.remat)
    return self.out(x_bnm[:, text_bsd.shape[1] :]).reshape(x_bfhwc.shape)


class TinyVAE(nnx.Module):
  """Patch means of single frames through a linear layer, and back."""

  def __init__(self, *, dtype=jnp.float32, rngs):
    self.encoder = Linear(3, CHANNELS, dtype=dtype, rngs=rngs)
    self.decoder = Linear(CHANNELS, 3, dtype=dtype, rngs=rngs)

  def encode(self, video_bthw3, *, tiling):
    b, t, h, w, _ = video_bthw3.shape
    x = video_bthw3.reshape(b, t, h // PATCH, PATCH, w // PATCH, PATCH, 3)
    mean = self.encoder(jnp.mean(x, axis=(3, 5))).astype(jnp.float32)
    return mean, jnp.full_like(mean, -4.0)

  def decode(self, z_bfhwc, *, tiling):
    x = jnp.repeat(self.decoder(z_bfhwc), PATCH, axis=2)
    return jnp.repeat(x, PATCH, axis=3).astype(jnp.float32)


class TinyTextEncoder(nnx.Module):
  """An embedding of each character."""

  def __init__(self, config, *, dtype=jnp.float32, rngs):
    self.embed = nnx.Embed(128, config.width, dtype=dtype, rngs=rngs)

  def __call__(self, tokens_bs):
    return self.embed(tokens_bs)


def table(*layers):
  """Conversion table: 'layers.{i}.out.weight' to 'blocks/out/kernel'."""
  rules = ()
  for ours in layers:
    published = ours.replace('blocks/', 'layers.{i}.')
    rules += conversion.linear(published, ours)
  return rules


@dataclasses.dataclass(frozen=True)
class TinySizes(generators.RandomModelConfig):
  transformer: TinyTransformerConfig
  vae: TinyVAEConfig
  text_encoder: TinyTextConfig
  schedule: FlowSchedule


class Tiny(generators.VideoModel):
  """The family."""

  family = 'tiny'
  pipeline = 'TinyPipeline'
  random_config = TinySizes
  random_index = {'_class_name': 'TinyPipeline'}
  published = {
    'Tiny-1k': TinySizes(
      'tiny', 0, TinyTransformerConfig(), TinyVAEConfig(), TinyTextConfig(),
      FlowSchedule(),
    )
  }  # fmt: skip

  @property
  def networks(self):
    return {
      'transformer': NetworkSpec(
        functools.partial(
          TinyTransformer, self.transformer, self.text_encoder.width
        ),
        'model',
        table('embed', 'text', 'time', 'blocks/qkv', 'blocks/out', 'out'),
        (
          (r'(embed|text|time|out)/kernel', P()),
          (r'blocks/qkv/kernel', P(None, 'fsdp', 'tensor')),
          (r'blocks/out/kernel', P(None, 'tensor', 'fsdp')),
          (r'.*/bias', P()),
        ),
      ),
      'vae': NetworkSpec(
        TinyVAE,
        'model',
        table('encoder', 'decoder'),
        ((r'.*', P()),),
      ),
      'text_encoder': NetworkSpec(
        functools.partial(TinyTextEncoder, self.text_encoder),
        'model',
        (conversion.TensorRule('embed.weight', 'embed/embedding'),),
        ((r'.*', P()),),
      ),
    }

  @property
  def latent_grid(self):
    return LatentGrid(frames=1, pixels=PATCH, multiple=PATCH, channels=CHANNELS)

  @property
  def latent_scale(self):
    return LatentScale(
      (1 / self.vae.latents_std,) * CHANNELS, (0.1,) * CHANNELS
    )

  @property
  def text_shape(self):
    return self.text_encoder.max_length, self.text_encoder.width

  def load_tokenizer(self):
    length = self.text_encoder.max_length

    def tokenize(texts):
      padded = [text.encode()[:length].ljust(length) for text in texts]
      ids = np.array([list(text) for text in padded], np.int32)
      return ids % 128, [len(text.encode()) > length for text in texts]

    return tokenize

  @staticmethod
  def write_random_tokenizer(folder):
    folder.mkdir()
    (folder / 'README').write_text('Tokens are bytes.')

  def num_tokens(self, frames, height, width):
    return self.text_encoder.max_length + frames * height * width

  def flops(self, num_tokens):
    factor = 4.0 * self.transformer.width * self.transformer.num_layers
    linear = 2 * factor * self.transformer.width * num_tokens
    return Flops(linear, attention=factor * num_tokens**2)

  def text_flops(self):
    return 0.0


@pytest.fixture(scope='module', autouse=True)
def registered():
  """Registers the family for the tests of the module that imports this."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(generators._FAMILIES, Tiny.pipeline, None)
    generators.register(Tiny)
    yield
