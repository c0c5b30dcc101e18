"""Eight simulated devices, strict promotion, a cache of compiled programs."""

import gc
import logging
import os
import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

# Before JAX starts: it reads these once.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    # Most of a test's time is the compiler's; this takes a third of it away.
    '--xla_backend_optimization_level=0',
    # And this a third of the rest.
    '--xla_cpu_opt_preset=FAST_COMPILE',
    # Eight devices share few cores: one may come to a collective long after
    # the first, and XLA would give up after 40 seconds.
    '--xla_cpu_collective_call_terminate_timeout_seconds=600',
  ]
)
# All workers share a cache: which of them runs a file differs from run to run.
# JAX does not write an entry in one go; one that is read half written fails its
# checksum, and is compiled (see the warning that pyproject.toml allows).
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(REPOSITORY / '.cache/jax')
# Also the hundred small programs that draw a random model and copy arrays:
# files forget them, and processes that tests start have never seen them.
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ.setdefault('HF_HUB_OFFLINE', '1')
# Else each worker, and each process that a test starts, would compile every
# module that it imports.
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
sys.dont_write_bytecode = False

# Traces are made of so many objects that Python would look for cycles all the
# time, and JAX has it call the runtime each time.
gc.set_threshold(100_000, 10, 10)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='module', autouse=True)
def _forget_programs():
  """A worker keeps the programs of one file at a time.

  All of them together would take gigabytes, and more mappings than Linux
  allows a process.
  """
  yield
  jax.clear_caches()


@pytest.fixture(autouse=True)
def _fresh_logger():
  """A handler writes to the stdout of the test that made it, so it goes too."""
  yield
  logger = logging.getLogger('lift')
  logger.handlers.clear()
  logger.propagate = True


def pytest_collection_finish():
  """What is imported and collected stays: nobody looks for cycles in it."""
  gc.collect()
  gc.freeze()


# Rooms whose files take longest, which `make test` starts with: a worker that
# came to one of them at the end would work on alone.
_SLOW = ('jobs', 'toyworld', 'models', 'training', 'sampling')


def pytest_collection_modifyitems(items):
  def rank(item):
    room = item.path.relative_to(REPOSITORY / 'tests').parts[0]
    return _SLOW.index(room) if room in _SLOW else len(_SLOW)

  items.sort(key=rank)
