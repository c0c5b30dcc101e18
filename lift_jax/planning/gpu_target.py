"""Target descriptions that let XLA compile for absent GPUs."""

from lift_jax.chips import Chip

# Differences between the GPUs, from the XLA repository's descriptions of
# A100-SXM4-80GB, H100 SXM and H200 (xla/backends/gpu/target_config).
_KNOWN = {
  'a100': {
    'core_count': 108,
    'fpus_per_core': 64,
    'shared_memory_per_core': 167936,
    'shared_memory_per_block_optin': 166912,
    'l2_cache_size': 41943040,
    'clock_rate_ghz': 1.41,
    'compute_capability': 8,
    'description': 'NVIDIA A100-SXM4-80GB',
  },
  'h100': {
    'core_count': 132,
    'fpus_per_core': 128,
    'shared_memory_per_core': 233472,
    'shared_memory_per_block_optin': 232448,
    'l2_cache_size': 52428800,
    'clock_rate_ghz': 1.98,
    'compute_capability': 9,
    'description': 'NVIDIA H100 80GB HBM3',
  },
}
_KNOWN['h200'] = _KNOWN['h100'] | {'description': 'NVIDIA H200 141GB HBM3e'}

# A GpuTargetConfigProto in text format; the cuDNN version is XLA's for H200.
_TEMPLATE = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared_memory_per_core}
  threads_per_core_limit: 2048
  core_count: {core_count}
  fpus_per_core: {fpus_per_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {memory_bandwidth}
  l2_cache_size: {l2_cache_size}
  clock_rate_ghz: {clock_rate_ghz}
  device_memory_size: {device_memory_size}
  shared_memory_per_block_optin: {shared_memory_per_block_optin}
  cuda_compute_capability {{ major: {compute_capability} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{description}"
"""


def target_config(chip: Chip) -> str:
  """XLA's target description of a GPU of `chips.CHIPS`."""
  assert chip.hbm_bytes is not None and chip.hbm_bandwidth is not None
  return _TEMPLATE.format(
    device_memory_size=int(chip.hbm_bytes),
    memory_bandwidth=int(chip.hbm_bandwidth),
    **_KNOWN[chip.name],
  )
