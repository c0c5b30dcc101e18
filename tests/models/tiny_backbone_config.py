"""Config file of jobs with a critic of `tiny_backbone`.

`--config=tests/models/tiny_backbone_config.py:JOB`, where JOB is train_critic
or score; otherwise as the smallest config that is shipped.
"""

import importlib.util
import pathlib

_CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
_FILES = {'train_critic': 'critic_tiny.py', 'score': 'score.py'}


def get_config(job):
  spec = importlib.util.spec_from_file_location(job, _CONFIGS / _FILES[job])
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config('smoke')
  with config.unlocked():
    config.model.random = {'backbone': 'tiny', 'seed': 0, 'width': 16}
  config.model.template = 'plain'
  config.mesh.update({'data': 2, 'fsdp': -1})
  if job == 'train_critic':
    config.lora.targets = ('mix',)
    config.train.steps = 4
    config.data.text_buckets = (64,)
    config.data.split.update({'validation': 0.2, 'test': 0.2, 'seed': 4})
    config.validation.every_steps = 2
  else:
    config.prompts.text_buckets = (64,)
    config.run.batch_per_shard = 1
  return config
