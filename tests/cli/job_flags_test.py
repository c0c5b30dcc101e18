"""What jobs do with their config."""

import logging
from unittest import mock

import ml_collections
import pytest

from lift_jax.cli import job_flags

pytestmark = pytest.mark.fast


def _write(workdir, **settings):
  """Writes a config; returns the warnings."""
  source = ml_collections.ConfigDict({'train': {'steps': 4} | settings})
  call = job_flags.Invocation(None, source, workdir)
  with mock.patch.object(logging.getLogger('lift'), 'warning') as warning:
    job_flags.write_config(call, 'align')
  return [args[0] % args[1:] for args, _ in warning.call_args_list]


def test_changes_are_logged(tmp_path):
  """A run that resumes with other settings says so, once for each."""
  assert not _write(tmp_path, rate=0.1, fixed=1)
  assert not _write(tmp_path, rate=0.1, fixed=1)
  assert _write(tmp_path, rate=0.2, fixed=1, more=None) == [
    'align: train.rate is 0.2 and was 0.1 in the last run here'
  ]
  assert not _write(tmp_path, rate=0.2, fixed=1)
