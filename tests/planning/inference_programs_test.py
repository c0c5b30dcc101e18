"""Programs of `lift score`, traced or compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import config_lib
from lift_jax.jobs.score import ScoreConfig
from lift_jax.planning import inference_programs
from lift_jax.planning.memory import Memory
from tests.jobs import jobs


def _lowered(**settings):
  """The program of `lift score`."""
  path = jobs.REPOSITORY / 'configs' / 'score.py'
  source = config_lib.load_module(path).get_config('smoke')
  source.update_from_flattened_dict(settings)
  config = config_lib.resolve(source, ScoreConfig)
  (program,) = inference_programs.score(config, jax.devices()[:1])
  return program.lower()


def _arguments(lowered):
  """Their shapes."""
  return jax.tree.leaves(lowered.args_info)


def _size(arguments, dtype):
  return sum(
    np.prod(leaf.shape) for leaf in arguments if leaf.dtype == jnp.dtype(dtype)
  )


def test_score_with_int8():
  """Kernels of the language model take a quarter of their fp32 bytes."""
  pytest.importorskip('qwix')
  plain = _arguments(_lowered())
  lowered = _lowered(**{'run.quantize': 'int8'})
  int8 = _arguments(lowered)
  assert _size(plain, 'int8') == 0
  kernels, scales = _size(int8, 'int8'), len(int8) - len(plain)
  assert kernels > 0.3 * _size(plain, 'float32')
  assert scales == 7
  saved = _size(plain, 'float32') - _size(int8, 'float32')
  assert 0.9 * kernels < saved < kernels
  # The compiled program takes them as they are.
  memory = Memory.of(lowered.compile())
  num_bytes = sum(np.prod(x.shape) * x.dtype.itemsize for x in int8)
  assert memory.arguments == pytest.approx(num_bytes, rel=0.01)


def test_score_with_other_frames():
  lowered = _lowered(**{'frames.num_frames': 3})
  shapes = {leaf.shape for leaf in _arguments(lowered)}
  assert any(len(shape) == 5 and shape[1] == 3 for shape in shapes)
