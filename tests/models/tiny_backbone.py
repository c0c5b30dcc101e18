"""A tiny critic backbone, unlike VILA in every respect.

Tokens are words. A critic reads three frames of a clip as grey images of height
8, whose width depends on the clip: each patch of 8 x 8 pixels is a token. The
network ignores order: a hidden state is computed from its token and the mean of
all tokens so far, so that the cache is their sum and number.

`docs/extending.md` refers to it as an example.

Legend: B batch, N tokens, R sequences in a cache, M new tokens, D width, P
patches of a clip.
"""

from collections.abc import Sequence
import dataclasses
import json
import pathlib
import re

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from lift_jax.errors import UserError
from lift_jax.models import critic_protocols, critic_tokens, critics, lora
from lift_jax.models.adapter_names import PEFT_PREFIX
from lift_jax.models.critic_config import RandomCriticConfig
from lift_jax.models.linear import Linear
from lift_jax.runtime.files import folder_sha256, read_json, write_json
from lift_jax.weights import conversion, published_tensors, safetensors_files

NUM_FRAMES, SIDE = 3, 8
PAD, STOP, SQUARE, UNKNOWN = range(4)

TABLE = (
  conversion.TensorRule('words.weight', 'words/embedding'),
  *conversion.linear('squares', 'squares'),
  *conversion.linear('mix', 'mix'),
  *conversion.linear('head', 'head'),
)


@dataclasses.dataclass(frozen=True)
class TinyConfig:
  width: int
  vocab_size: int


@dataclasses.dataclass(frozen=True)
class RandomTinyConfig(RandomCriticConfig):
  width: int

  @property
  def sizes(self) -> TinyConfig:
    return TinyConfig(self.width, len(vocabulary()))


def vocabulary() -> list[str]:
  questions = json.loads(critic_tokens.questions_path().read_text())[
    'questions'
  ]
  text = ' '.join(['It is so . , I saw', *questions.values()])
  words = sorted({*critic_tokens.LABELS, *split(text)})
  return ['<pad>', '<stop>', '<square>', '<unknown>', *words]


def split(text: str) -> list[str]:
  return re.findall(r'\w+|[^\w\s]', text)


class TinyTokenizer:
  pad_id, stop_ids, max_length = PAD, (STOP,), 200

  def __init__(self, words: list[str]):
    self._words = words
    self._ids = {word: index for index, word in enumerate(words)}

  def inference(
    self, caption, question, frames, *, space_before_caption=False, where=''
  ) -> list[int]:
    del space_before_caption
    squares = [SQUARE] * frames.num_positions
    ids = squares + self.answer_ids(caption) + self.answer_ids(question)
    if len(ids) > self.max_length:
      raise UserError(f'{where}: {len(ids)} words; shorten the caption')
    return ids

  def training(
    self, caption, question, frames, answer, *, where=''
  ) -> tuple[list[int], list[bool]]:
    prompt = self.inference(caption, question, frames, where=where)
    answer = [*self.answer_ids(answer), STOP]
    return prompt + answer, [False] * len(prompt) + [True] * len(answer)

  def answer_ids(self, answer: str) -> list[int]:
    return [self._ids.get(word, UNKNOWN) for word in split(answer)]

  def decode(self, ids: Sequence[int]) -> str:
    ids = list(ids)
    ids = ids[: ids.index(STOP)] if STOP in ids else ids
    text = ' '.join(self._words[index] for index in ids)
    return re.sub(r' ([.,])', r'\1', text)


class TinyFrames:
  """Patches and their positions in a clip: fp32 [P, 64] and int32 [P, 2]."""

  def select(self, clip) -> critic_protocols.FrameSelection:
    step = max(1, clip.num_frames // NUM_FRAMES)
    indices = tuple(range(0, clip.num_frames, step))[:NUM_FRAMES]
    num_columns = 2 if clip.width > clip.height else 1
    return critic_protocols.FrameSelection(
      indices, NUM_FRAMES * num_columns, len(indices) < NUM_FRAMES
    )

  def preprocess(self, frames_thw3, selection) -> dict[str, np.ndarray]:
    num_columns = selection.num_positions // NUM_FRAMES
    squares, places = [], []
    for number in range(NUM_FRAMES):
      # The last frame of a short clip is repeated.
      frame = frames_thw3[min(number, len(frames_thw3) - 1)]
      grey = Image.fromarray(frame).convert('L')
      pixels_hw = np.asarray(grey.resize((SIDE * num_columns, SIDE))) / 255
      for column, square in enumerate(np.split(pixels_hw, num_columns, axis=1)):
        squares.append(square.reshape(-1))
        places.append((number, column))
    return {
      'squares': np.array(squares, np.float32),
      'places': np.array(places, np.int32),
    }

  def shapes(self, selection) -> dict[str, jax.ShapeDtypeStruct]:
    num = selection.num_positions
    return {
      'squares': jax.ShapeDtypeStruct((num, SIDE**2), np.float32),
      'places': jax.ShapeDtypeStruct((num, 2), np.int32),
    }


class TinyNetwork(nnx.Module):
  def __init__(
    self,
    config: TinyConfig,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat='none',
    attention_backend='auto',
    rngs: nnx.Rngs,
  ):
    del remat, attention_backend  # not supported
    options = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
    width = config.width
    self.words = nnx.Embed(config.vocab_size, width, **options)
    self.squares = Linear(SIDE**2 + 2, width, **options)
    self.mix = Linear(width, width, **options)
    self.head = Linear(width, config.vocab_size, **options)

  def encode_frames(self, frames):
    inputs = [frames['squares'], frames['places'].astype(jnp.float32)]
    return self.squares(jnp.concatenate(inputs, axis=-1))

  def __call__(self, frames, tokens_bn):
    return self._read(self._embed(frames, tokens_bn), 0, 0)

  def prefill(
    self, frames, tokens_bn, lengths_b, *, max_length, num_branches=1
  ):
    del max_length  # a sum has a fixed size
    x_bnd = self._embed(frames, tokens_bn)
    cache = self._cache(x_bnd, lengths_b, 0, 0)
    cache = jax.tree.map(lambda x: jnp.repeat(x, num_branches, axis=0), cache)
    return self._read(x_bnd, 0, 0), cache

  def extend(self, tokens_rm, lengths_r, cache):
    x_rmd = self.words(tokens_rm)
    return self._read(x_rmd, *cache), self._cache(x_rmd, lengths_r, *cache)

  def logits(self, x):
    return self.head(x).astype(jnp.float32)

  def _embed(self, frames, tokens_bn):
    """Patches are first in a prompt."""
    squares_bpd = self.encode_frames(frames)
    rest_bnd = self.words(tokens_bn[:, squares_bpd.shape[1] :])
    return jnp.concatenate([squares_bpd, rest_bnd], axis=1)

  def _read(self, x_bnd, total_b1d, count_b11):
    number_1n1 = 1 + jnp.arange(x_bnd.shape[1])[None, :, None]
    mean_bnd = (total_b1d + jnp.cumsum(x_bnd, 1)) / (count_b11 + number_1n1)
    return jnp.tanh(x_bnd + self.mix(mean_bnd))

  def _cache(self, x_bnd, lengths_b, total_b1d, count_b11):
    is_token_bn = jnp.arange(x_bnd.shape[1])[None] < lengths_b[:, None]
    added_b1d = jnp.sum(x_bnd * is_token_bn[:, :, None], 1, keepdims=True)
    return total_b1d + added_b1d, count_b11 + lengths_b[:, None, None]


@dataclasses.dataclass(frozen=True)
class TinyCritic(critics.Critic):
  frames = TinyFrames()
  rules = ((r'.*', jax.P()),)
  adapter_table = lora.adapter_table(TABLE, PEFT_PREFIX)
  lora_targets = ('mix',)

  def build(self, **options):
    return lambda rngs: TinyNetwork(self.config, rngs=rngs, **options)

  def check_mesh(self, mesh):
    del mesh  # any mesh works

  def open_tokenizer(self, template):
    del template  # there is only one
    return TinyTokenizer(json.loads((self.path / 'words.json').read_text()))

  def vision_flops(self, frames):
    num_squares = frames['squares'].shape[0] * frames['squares'].shape[1]
    return 2.0 * num_squares * (SIDE**2 + 2) * self.config.width

  def vision_attention_flops(self, frames):
    return 0.0 * len(frames)

  def decoder_flops(self, num_tokens, num_logits):
    words = num_logits * self.config.vocab_size
    return 2.0 * self.config.width * (num_tokens * self.config.width + words)

  def attention_flops(self, num_tokens):
    return 0.0 * num_tokens

  @property
  def fingerprint(self):
    parts = [folder_sha256(self.path)]
    parts += [adapter.fingerprint for adapter in self.adapters]
    return '+'.join(parts)

  def load_weights(self, model, shardings, dtype, update):
    return published_tensors.load(
      TABLE,
      model.abstract_params,
      safetensors_files.open_tensors(self.path, 'model'),
      shardings=shardings,
      dtype=dtype,
      update=update,
      where=str(self.path),
    )

  def save_weights(self, target, params, dtype):
    published_tensors.save(TABLE, params, target, 'model', dtype=dtype)

  def copy_configs(self, target, dtype):
    del dtype  # in no file
    for name in ('config.json', 'words.json'):
      (target / name).write_bytes((self.path / name).read_bytes())


def open_tiny(path: pathlib.Path) -> TinyCritic:
  values = read_json(path / 'config.json')
  return TinyCritic(path, TinyConfig(values['width'], values['vocab_size']))


def write_draft(path: pathlib.Path, config: TinyConfig, seed: int) -> None:
  values = {'model_type': 'tiny_words', critics.RANDOM_SEED: seed}
  write_json(path / 'config.json', values | dataclasses.asdict(config))
  (path / 'words.json').write_text(json.dumps(vocabulary()))


BACKBONE = critics.Backbone(
  name='tiny',
  model_types=('tiny_words',),
  templates=('plain',),
  random_config=RandomTinyConfig,
  published={'Tiny-1k': TinyConfig(16, len(vocabulary()))},
  open=open_tiny,
  declare=lambda config: TinyCritic(pathlib.Path(), config),
  write_draft=write_draft,
)
