"""Comparison of video models by clips of the same prompts.

  lift compare --config=configs/compare.py --workdir=DIR \
    --config.models.folders='("BASE", "OTHER")'

BASE and OTHER are workdirs of lift sample. Everything else is optional: scores
of critics (critic.files, critic.held_out), results of VBench (vbench.folders),
pairs that people compared (people.files), and the suite (suite.file) that lift
compare prompts wrote.
"""

from ml_collections import config_dict

from lift_jax import config_lib


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` compares toy clips of two simulated models."""
  is_smoke = config_lib.parse_arg(arg, smoke=bool).smoke
  config = config_dict.ConfigDict()

  config.models = {'names': (), 'folders': (), 'every_pair': False}
  config.suite = {'file': '', 'allow_missing': False}
  # Folders of networks, by the names that metrics need them under; '' for
  # those that are not there. docs/compare.md lists the published ones.
  config.metrics = {
    'weights': {
      'dino_b16': '',
      'clip_b32': '',
      'clip_l14': '',
      'aesthetic': '',
    },
    'files': (),
  }
  config.flow = {'folders': ()}
  config.distance = {
    'models': (),
    'adapters': (),
    'compute_dtype': 'bfloat16',
    'attention': 'auto',
    'draws': 4,
    'batch_per_shard': 1,
    'mesh': {'data': -1, 'fsdp': 1, 'context': 1, 'tensor': 1},
  }
  config.critic = {
    'files': (),
    'held_out': (),
    'trained_on': (),
    # As in LiFT (arXiv 2412.04814).
    'reward': {'good': 0.9, 'normal': 0.2, 'bad': 0.05},
  }
  config.vbench = {'folders': (), 'submission': False}
  config.people = {'root': '', 'files': (), 'follow_links': 'hub'}
  config.statistics = {
    'bootstrap': {'draws': 2000, 'coverage': 0.95, 'seed': 0},
    'permutations': 10_000,
    'level': 0.05,
  }
  config.report = {
    'pairs': 2,
    'frames': 25,
    'frame_width': 192,
    'max_bytes': 16_000_000,
    'seed': 0,
  }
  config.run = {'num_readers': 2 if is_smoke else 16}
  config.toy_prompts = 12 if is_smoke else 0
  return config
