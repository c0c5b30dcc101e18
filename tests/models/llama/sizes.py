"""Published sizes that only tests need."""

from lift_jax.models.llama.config import LlamaConfig

# The language model of VILA-1.5 3b.
VILA_3B = LlamaConfig(
  width=2560, num_layers=32, num_heads=20, num_kv_heads=20, mlp_width=6912
)
