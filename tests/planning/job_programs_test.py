"""Programs of jobs, traced but not compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import config_lib
from lift_jax.jobs.score import ScoreConfig
from lift_jax.planning import job_programs
from tests.jobs import jobs


def _arguments(**settings):
  """Shapes of the arguments of the program of `lift score`."""
  path = jobs.REPOSITORY / 'configs' / 'score.py'
  source = config_lib.load_module(path).get_config('smoke')
  source.update_from_flattened_dict(settings)
  config = config_lib.resolve(source, ScoreConfig)
  (program,) = job_programs.score(config, jax.devices()[:2])
  return jax.tree.leaves(program.lower().args_info)


def _size(arguments, dtype):
  return sum(
    np.prod(leaf.shape) for leaf in arguments if leaf.dtype == jnp.dtype(dtype)
  )


def test_score_with_int8():
  """Kernels of the language model take a quarter of their fp32 bytes."""
  pytest.importorskip('qwix')
  plain = _arguments()
  int8 = _arguments(**{'run.quantize': 'int8'})
  assert _size(plain, 'int8') == 0
  kernels, scales = _size(int8, 'int8'), len(int8) - len(plain)
  assert kernels > 0.3 * _size(plain, 'float32')
  assert scales == 7
  saved = _size(plain, 'float32') - _size(int8, 'float32')
  assert 0.9 * kernels < saved < kernels


def test_score_with_other_frames():
  shapes = {leaf.shape for leaf in _arguments(**{'frames.num_frames': 3})}
  assert any(len(shape) == 5 and shape[1] == 3 for shape in shapes)
