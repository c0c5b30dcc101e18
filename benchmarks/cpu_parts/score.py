"""Three questions of `lift score`, as benchmarks/critic_cpu.py measures them.

In the folder: critic/, and settings.json.
"""

from collections.abc import Callable
import pathlib

from cpu_parts.rows import Results
import critic_cpu
import jax

from lift_jax import partitioning
from lift_jax.models import critic_config, critics
from lift_jax.models.qwen3vl.backbone import BACKBONE
from lift_jax.runtime.files import read_json, write_json


def write(folder: pathlib.Path, tiny: bool, rounds: int) -> dict[str, float]:
  """Makes a critic; every round has the same clips."""
  del rounds
  size = critic_cpu.TINY if tiny else critic_cpu.MIDDLE
  critic_config.make_random(folder / 'critic', BACKBONE, size.config, seed=0)
  write_json(folder / 'settings.json', {'tiny': tiny})
  return {}


def make_data(folder: pathlib.Path) -> critic_cpu.Data:
  is_tiny = read_json(folder / 'settings.json')['tiny']
  return critic_cpu.Data(critic_cpu.TINY if is_tiny else critic_cpu.MIDDLE)


class Ours:
  def __init__(self, folder: pathlib.Path):
    mesh = partitioning.make_mesh(
      partitioning.MeshConfig(), jax.local_devices()[:1]
    )
    self._score = critic_cpu.OurScoring(
      critics.open_critic(folder / 'critic'), mesh, make_data(folder)
    )

  def __call__(self, number: int) -> Callable[[], Results]:
    return self._score
