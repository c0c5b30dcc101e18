"""Names of adapter tensors, in the forms that are in the wild.

  transformer.LAYER.lora_A.weight           diffusers
  base_model.model.LAYER.lora_A.weight      PEFT; .lora_A.NAME.weight in a
                                            full state dict
  LAYER.lora_down.weight, LAYER.alpha       ComfyUI, with diffusion_model.
  LAYER.lora.down.weight                    older diffusers
  lora_unet__LAYER.lora_down.weight         kohya; LAYER with _ for each dot
  model.diffusion_model.transformer.layers.0.attention.query_key_value
    .matrix_A.0                             SAT, one matrix for each of q, k, v

Every name is split into a layer and what the tensor is for that layer. Prefixes
are removed, so that a layer has the same name in all forms.
"""

from collections.abc import Iterator
import dataclasses
import re

PEFT_PREFIX = 'base_model.model.'  # of every name that PEFT writes
DIFFUSERS_PREFIX = 'transformer.'  # likewise diffusers, of a transformer

_PREFIXES = (
  PEFT_PREFIX,
  DIFFUSERS_PREFIX,
  'diffusion_model.',
  'model.diffusion_model.',
  'module.',  # of wrappers of torch, such as DistributedDataParallel
  '_orig_mod.',  # of torch.compile
  'llm.',  # the language model of VILA
)
_KOHYA = re.compile(r'lora_(unet|transformer)_+(?P<layer>.+)')

_ROLES = {'A': 'a', 'down': 'a', 'B': 'b', 'up': 'b', 'alpha': 'alpha'}
_FORMS = tuple(
  re.compile(r'(?P<layer>.+)\.' + ending)
  for ending in (
    r'lora_(?P<role>A|B)((\.[^.]+)?\.weight)?',
    r'lora_(?P<role>down|up)\.weight',
    r'lora(_linear_layer)?\.(?P<role>down|up)\.weight',
    r'matrix_(?P<role>A|B)\.(?P<part>[0-9]+)',
    r'(?P<role>alpha)',
  )
)

# What adapters may hold besides pairs of matrices, none of which can be merged.
_REFUSED = tuple(
  (re.compile(pattern), kind)
  for pattern, kind in (
    (r'.*\.(lora_magnitude_vector|dora_scale)(\..+)?', 'DoRA magnitudes'),
    (r'.*\.(lora_B|lora_up|lora\.up)(\..+)?\.bias', 'lora_bias'),
    (r'.*\.lora_embedding_[AB](\..+)?', 'adapters of an embedding'),
    (r'.*\.modules_to_save\..+', 'modules_to_save'),
    (r'.*\.lora_(mid|diag)(\..+)?', 'a third matrix of LoCon or KaSA'),
    (r'.*\.(hada|lokr|oft|boft|vera)_.+', 'another method than LoRA'),
    (r'.*\.(diff|diff_b)', 'differences of whole parameters'),
    (r'(?!.*lora).*\.(weight|bias)', 'whole parameters'),
  )
)


@dataclasses.dataclass(frozen=True)
class TensorName:
  """A tensor of an adapter.

  Attributes:
    layer: name of the layer without prefixes; kohya's with underscores.
    module: the same as in the file.
    role: 'a', 'b' (the matrices of W + B A) or 'alpha'.
    part: of a layer that holds several side by side, the one that this matrix
      belongs to; None for all.
  """

  layer: str
  module: str
  role: str
  part: int | None


def parse(name: str) -> TensorName | None:
  """Splits the name of a tensor; None for one that is in no known form."""
  for form in _FORMS:
    if match := form.fullmatch(name):
      found = match.groupdict()
      part = found.get('part')
      return TensorName(
        strip(found['layer']),
        found['layer'],
        _ROLES[found['role']],
        None if part is None else int(part),
      )
  return None


def refused_kind(name: str) -> str | None:
  """What a tensor holds that cannot be merged; None if that is unknown."""
  return next(
    (kind for pattern, kind in _REFUSED if pattern.fullmatch(name)), None
  )


def strip(module: str) -> str:
  """The name of a layer without prefixes."""
  *_, layer = suffixes(module)
  kohya = _KOHYA.fullmatch(layer)
  return kohya['layer'] if kohya else layer


def suffixes(module: str) -> Iterator[str]:
  """The name of a layer with ever fewer of its prefixes."""
  yield module
  for prefix in _PREFIXES:
    if module.startswith(prefix):
      yield from suffixes(module.removeprefix(prefix))
      return


def flat(layer: str) -> str:
  """The name of a layer as kohya writes it."""
  return layer.replace('.', '_')
