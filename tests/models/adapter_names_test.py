"""Names of adapter tensors."""

import pytest

from lift_jax.models import adapter_names

pytestmark = pytest.mark.fast

LAYER = 'transformer_blocks.0.attn1.to_q'


@pytest.mark.parametrize(
  ('name', 'layer', 'role', 'part'),
  [
    (f'transformer.{LAYER}.lora_A.weight', LAYER, 'a', None),
    (f'{LAYER}.lora_B.weight', LAYER, 'b', None),
    (f'{LAYER}.lora_A', LAYER, 'a', None),
    (f'base_model.model.{LAYER}.lora_B.default.weight', LAYER, 'b', None),
    (f'diffusion_model.{LAYER}.lora_up.weight', LAYER, 'b', None),
    (f'module.transformer.{LAYER}.lora.down.weight', LAYER, 'a', None),
    (f'{LAYER}.lora_linear_layer.up.weight', LAYER, 'b', None),
    (f'_orig_mod.{LAYER}.alpha', LAYER, 'alpha', None),
    (
      f'lora_unet__{adapter_names.flat(LAYER)}.lora_down.weight',
      adapter_names.flat(LAYER),
      'a',
      None,
    ),
    ('lora_unet_proj_out.alpha', 'proj_out', 'alpha', None),
    (
      'model.diffusion_model.transformer.layers.3.attention.dense.matrix_B.0',
      'layers.3.attention.dense',
      'b',
      0,
    ),
    ('layers.3.attention.query_key_value.matrix_A.2',
     'layers.3.attention.query_key_value', 'a', 2),
  ],
)  # fmt: skip
def test_known(name, layer, role, part):
  found = adapter_names.parse(name)
  assert (found.layer, found.role, found.part) == (layer, role, part)
  assert adapter_names.refused_kind(name) is None


@pytest.mark.parametrize(
  ('ending', 'kind'),
  [
    ('lora_magnitude_vector', 'DoRA magnitudes'),
    ('lora_magnitude_vector.default.weight', 'DoRA magnitudes'),
    ('dora_scale', 'DoRA magnitudes'),
    ('lora_B.bias', 'lora_bias'),
    ('lora_B.default.bias', 'lora_bias'),
    ('lora_up.bias', 'lora_bias'),
    ('lora_embedding_A', 'adapters of an embedding'),
    ('lora_embedding_B.default', 'adapters of an embedding'),
    ('modules_to_save.default.weight', 'modules_to_save'),
    ('lora_mid.weight', 'a third matrix of LoCon or KaSA'),
    ('lora_diag.default', 'a third matrix of LoCon or KaSA'),
    ('hada_w2_b', 'another method than LoRA'),
    ('lokr_w1', 'another method than LoRA'),
    ('diff_b', 'differences of whole parameters'),
    ('weight', 'whole parameters'),
    ('bias', 'whole parameters'),
    ('stranger', None),
  ],
)
def test_refused(ending, kind):
  assert adapter_names.parse(f'{LAYER}.{ending}') is None
  assert adapter_names.refused_kind(f'{LAYER}.{ending}') == kind


def test_names_for_patterns():
  """A pattern may begin at any prefix."""
  names = adapter_names.suffixes('base_model.model.llm.model.layers.0.up')
  assert list(names) == [
    'base_model.model.llm.model.layers.0.up',
    'llm.model.layers.0.up',
    'model.layers.0.up',
  ]
