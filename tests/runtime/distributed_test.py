"""What the environment says of hosts, right and wrong."""

from unittest import mock

import jax
from jax._src import distributed as jax_distributed
import pytest

from lift_jax.errors import UserError
from lift_jax.runtime import distributed

pytestmark = pytest.mark.fast

_HOSTS = {
  'JAX_COORDINATOR_ADDRESS': 'localhost:1234',
  'JAX_NUM_PROCESSES': '2',
  'JAX_PROCESS_ID': '1',
}
_OPEN_MPI = {'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1:34911'}


@pytest.fixture
def connect(monkeypatch):
  connect = mock.Mock(side_effect=AssertionError('it connects'))
  monkeypatch.setattr(jax.distributed, 'initialize', connect)
  return connect


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('JAX_COORDINATOR_ADDRESS', 'localhost'),
    ('JAX_COORDINATOR_ADDRESS', 'localhost:http'),
    ('JAX_COORDINATOR_ADDRESS', 'localhost:'),
    ('JAX_COORDINATOR_ADDRESS', ':1234'),
    ('JAX_COORDINATOR_ADDRESS', 'localhost:0'),
    ('JAX_COORDINATOR_ADDRESS', 'localhost:65536'),
    ('JAX_COORDINATOR_ADDRESS', ''),
    ('JAX_COORDINATOR_BIND_ADDRESS', '0.0.0.0'),
    ('JAX_COORDINATOR_PORT', 'http'),
    ('JAX_NUM_PROCESSES', 'two'),
    ('JAX_NUM_PROCESSES', ''),
    ('JAX_PROCESS_ID', '-1'),
  ],
)
def test_bad_variable(connect, monkeypatch, name, text):
  for key, value in (_HOSTS | {name: text}).items():
    monkeypatch.setenv(key, value)
  with pytest.raises(UserError, match=f'--multihost: {name} is {text!r}; set'):
    distributed.initialize(True)
  connect.assert_not_called()


@pytest.mark.parametrize('address', ['localhost:1234', '[::1]:1234'])
def test_good_address(connect, monkeypatch, address):
  connect.side_effect = None
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', address)
  distributed.initialize(True)
  connect.assert_called_once()


def test_half_of_open_mpi(connect, monkeypatch):
  """By what JAX reads before it connects."""
  connect.side_effect = jax_distributed.State().initialize
  for key, value in _OPEN_MPI.items():
    monkeypatch.setenv(key, value)
  with pytest.raises(UserError, match="lacks 'OMPI_COMM_WORLD_SIZE'"):
    distributed.initialize(True)


@pytest.mark.parametrize('error', [TypeError('a'), OSError('a'), IndexError()])
def test_any_error(connect, error):
  connect.side_effect = error
  with pytest.raises(UserError, match='the hosts could not connect'):
    distributed.initialize(True)


@pytest.mark.parametrize(
  'environment',
  [
    {'JAX_NUM_PROCESSES': '4', 'JAX_PROCESS_ID': '0'},
    {'SLURM_NTASKS': '4', 'SLURM_STEP_NODELIST': 'node[1-4]'},
    {'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_RANK': '3'},
    {'TPU_WORKER_HOSTNAMES': 'a,b,c,d'},
  ],
)
def test_multihost_is_missing(monkeypatch, environment):
  for key, value in environment.items():
    monkeypatch.setenv(key, value)
  with pytest.raises(
    UserError, match='--multihost is missing.* of 4 '
  ) as error:
    distributed.initialize(False)
  assert next(iter(environment)) in str(error.value)


@pytest.mark.parametrize(
  'environment',
  [
    {},
    {'JAX_NUM_PROCESSES': '1', 'JAX_PROCESS_ID': '0'},
    # The script of a batch job, and a step of one process.
    {'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'},
    {'SLURM_NTASKS': '1', 'SLURM_STEP_NODELIST': 'node1'},
    {'TPU_WORKER_HOSTNAMES': 'localhost'},
  ],
)
def test_alone(monkeypatch, environment):
  for key, value in environment.items():
    monkeypatch.setenv(key, value)
  distributed.initialize(False)
