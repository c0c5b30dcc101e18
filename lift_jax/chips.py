"""Published specifications of accelerators.

All numbers are per JAX device: a chip on TPU v4 (both cores together), v5e, v5p
and v6e, half a chip on TPU7x, one GPU.

Sources, read in 2026. TPUs: the pages "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e"
and "TPU7x" of docs.cloud.google.com/tpu/docs; "How to Scale Your Model",
jax-ml.github.io/scaling-book, part "TPUs", for what those pages omit. GPUs:
NVIDIA's data sheets of A100 80GB SXM, H100 SXM and H200 SXM; the GPU part of
the same book; and the target descriptions of the XLA repository
(xla/backends/gpu/target_config/specs).

HBM of TPUs is the capacity available to programs, from out-of-memory messages
of libtpu 0.0.42; the compiler reserves the rest.
"""

from collections.abc import Sequence
import dataclasses

GIB = 2**30
_GBIT = 1e9 / 8


@dataclasses.dataclass(frozen=True)
class Chip:
  """A type of device; None for unknown numbers.

  Attributes:
    name: as written in `--topology`.
    platform: 'tpu', 'cuda' or 'cpu', JAX's name.
    device_kinds: names of such devices in JAX or CUDA.
    hbm_bytes: memory that a program may use.
    flops: dense bf16 peak in FLOP/s.
    hbm_bandwidth: bytes/s, reads and writes together.
    link_bandwidth: bytes/s that a device sends over one link within a slice
      (ICI) or host (NVLink). It can receive as much at the same time.
    links: number of such links per device. GPUs are connected through a
      switch: their links together count as one.
    wrap: a side of a TPU slice is a ring (has wraparound links) if its number
      of chips is a multiple of this, else an open line.
    dcn_bandwidth: bytes/s that a device sends to other slices (data center
      network) or hosts (InfiniBand).
    devices_per_chip: JAX devices per chip.
    torus_dims: number of sides of a slice.
  """

  name: str
  platform: str
  device_kinds: tuple[str, ...]
  hbm_bytes: float | None = None
  flops: float | None = None
  hbm_bandwidth: float | None = None
  link_bandwidth: float | None = None
  links: int = 1
  wrap: int | None = None
  dcn_bandwidth: float | None = None
  devices_per_chip: int = 1
  torus_dims: int = 0


CHIPS = {
  chip.name: chip
  for chip in (
    Chip(
      name='v4',
      platform='tpu',
      device_kinds=('TPU v4',),
      hbm_bytes=30.75 * GIB,  # of 32 GiB
      flops=275e12,
      hbm_bandwidth=1200e9,
      # Not on the page of v4; the book has 45 GB/s.
      link_bandwidth=45e9,
      links=6,
      wrap=4,
      # Not there, either; the book has 25 GB/s per host of 4 chips.
      dcn_bandwidth=25e9 / 4,
      torus_dims=3,
    ),
    Chip(
      name='v5e',
      platform='tpu',
      device_kinds=('TPU v5 lite', 'TPU v5e'),
      hbm_bytes=15.75 * GIB,  # of 16 GB
      flops=197e12,
      hbm_bandwidth=819e9,
      # 400 GB/s per chip, 4 links, both directions.
      link_bandwidth=400e9 / 4 / 2,
      links=4,
      wrap=16,
      # 6.4 Tbit/s for a pod of 256 chips.
      dcn_bandwidth=6400 * _GBIT / 256,
      torus_dims=2,
    ),
    Chip(
      name='v5p',
      platform='tpu',
      device_kinds=('TPU v5', 'TPU v5p'),
      hbm_bytes=95.74 * GIB,  # published as 95 GB and as 95 GiB
      flops=459e12,
      hbm_bandwidth=2765e9,
      # 1200 GB/s per chip, 6 links, both directions. The GPU part of the book
      # assumes 90 GB/s instead of 100.
      link_bandwidth=1200e9 / 6 / 2,
      links=6,
      wrap=4,
      dcn_bandwidth=50 * _GBIT,
      torus_dims=3,
    ),
    Chip(
      name='v6e',
      platform='tpu',
      device_kinds=('TPU v6 lite', 'TPU v6e'),
      hbm_bytes=31.25 * GIB,  # of 32 GB
      flops=918e12,
      hbm_bandwidth=1638e9,  # from the page of TPU7x
      # 800 GB/s per chip, 4 links, both directions.
      link_bandwidth=800e9 / 4 / 2,
      links=4,
      wrap=16,
      # 25.6 Tbit/s for a pod of 256 chips.
      dcn_bandwidth=25600 * _GBIT / 256,
      torus_dims=2,
    ),
    # A chip has two devices, which share its links.
    Chip(
      name='tpu7x',
      platform='tpu',
      device_kinds=('TPU7x',),
      hbm_bytes=94.75 * GIB,  # of 192 GiB per chip
      flops=2307e12 / 2,
      hbm_bandwidth=7380e9 / 2,
      # 1200 GB/s per chip, both directions; 6 links in a three-dimensional
      # torus. We assume that both devices use them equally.
      link_bandwidth=1200e9 / 6 / 2 / 2,
      links=6,
      wrap=4,
      dcn_bandwidth=100 * _GBIT / 2,
      devices_per_chip=2,
      torus_dims=3,
    ),
    Chip(
      name='a100',
      platform='cuda',
      device_kinds=(
        *('NVIDIA A100-SXM4-40GB', 'NVIDIA A100-SXM4-80GB'),
        *('NVIDIA A100-PCIE-40GB', 'NVIDIA A100 80GB PCIe'),
      ),
      hbm_bytes=85100068864,  # XLA's a100_sxm_80
      flops=312e12,
      hbm_bandwidth=2039e9,
      link_bandwidth=300e9,  # NVLink 3: 12 links of 25 GB/s
      # One InfiniBand adapter of 200 Gbit/s per GPU, as in a DGX A100 (not
      # checked against its guide); other machines have less.
      dcn_bandwidth=200 * _GBIT,
    ),
    Chip(
      name='h100',
      platform='cuda',
      # Not H100 PCIe and NVL, which are slower.
      device_kinds=('NVIDIA H100 80GB HBM3',),
      hbm_bytes=84942979072,  # XLA's h100_sxm
      flops=989e12,
      hbm_bandwidth=3352e9,
      link_bandwidth=450e9,  # NVLink 4: 18 links of 25 GB/s
      # One InfiniBand adapter of 400 Gbit/s per GPU, as in a DGX H100.
      dcn_bandwidth=400 * _GBIT,
    ),
    Chip(
      name='h200',
      platform='cuda',
      device_kinds=('NVIDIA H200',),
      hbm_bytes=151397597184,  # XLA's h200
      flops=989e12,
      hbm_bandwidth=4800e9,
      link_bandwidth=450e9,
      dcn_bandwidth=400 * _GBIT,
    ),
    Chip(name='cpu', platform='cpu', device_kinds=('cpu',)),
  )
}


def of_kind(device_kind: str) -> Chip | None:
  """The chip that JAX or CUDA calls by this name; None if it is unknown."""
  for chip in CHIPS.values():
    if device_kind in chip.device_kinds:
      return chip
  return None


def peak_flops(device_kind: str) -> float | None:
  """Dense bf16 peak in FLOP/s; None for CPUs and unknown devices."""
  chip = of_kind(device_kind)
  return chip.flops if chip else None


def ring_links(chip: Chip, sides: Sequence[tuple[int, int]]) -> int:
  """Links that a device uses at once in a ring around a group in a TPU slice.

  A side with wraparound links is used in both directions. On an open line the
  chip at the end has only one link, and the others wait for it.

  Args:
    chip: type of TPU.
    sides: (chips of the group, chips of the slice) along each side on which the
      group has more than one chip.
  """
  links = 0
  for used, length in sides:
    # Two-dimensional slices have wraparound links only with the full 16 chips,
    # the others with any multiple of 4 ("How to Scale Your Model", "TPUs").
    wraps = chip.wrap is not None and length % chip.wrap == 0
    links += 2 if used == length and wraps else 1
  return links
