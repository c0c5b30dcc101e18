"""What would take less memory."""

import jax
import pytest

from lift_jax import partitioning
from lift_jax.planning import job_programs
from tests.planning import critic_jobs


@pytest.mark.fast
@pytest.mark.parametrize(
  ('overall', 'expected'),
  [
    # Already the two clips in all three dimensions.
    (1.0, []),
    (0.0, ['train.grad_accum=6: a device works on 6 rows at a time']),
  ],
)
def test_parts_of_a_batch_keep_pairs(overall, expected):
  config = critic_jobs.config_of(**{'losses.overall': overall})
  mesh = partitioning.make_mesh(config.mesh, jax.devices()[:2])
  knobs = job_programs.knobs('train_critic', config, mesh)
  assert [k for k in knobs if k.startswith('train.grad_accum')] == expected
