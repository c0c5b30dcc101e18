"""Fixtures that several tests of `data` share."""

import pathlib

import pytest

from tests.data import critic_clips


@pytest.fixture(scope='session')
def rated_clips(tmp_path_factory) -> pathlib.Path:
  """The folder of `critic_clips`; a test that changes it must restore it."""
  root = tmp_path_factory.mktemp('rated_clips')
  critic_clips.write(root)
  return root
