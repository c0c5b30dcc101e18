"""A small model with encoded clips, made once for all tests of the jobs."""

import dataclasses
import pathlib

import pytest

from tests.jobs import jobs, runs


@dataclasses.dataclass(frozen=True)
class World:
  """Clips, and the workdir of the `lift prepare` that encoded them.

  Attributes:
    root: the clips with all.json and wide.json.
    workdir: holds `model` and `cache`.
    outcome: of that job.
  """

  root: pathlib.Path
  workdir: pathlib.Path
  outcome: jobs.Outcome

  def align(self, workdir: pathlib.Path, **settings) -> list[str]:
    """Arguments of a `lift align` on the wide clips, from the cache."""
    return [
      'align',
      *jobs.flags(
        workdir,
        **{
          'model__path': self.workdir / 'model',
          'data__root': self.root,
          'data__cache': self.workdir / 'cache',
          'data__synthetic': 'wide.json',
        }
        | settings,
      ),
    ]


@pytest.fixture(scope='session')
def world(tmp_path_factory) -> World:
  root = tmp_path_factory.mktemp('clips')
  jobs.make_clips(root)
  workdir = tmp_path_factory.mktemp('prepared')
  outcome = jobs.lift(
    'prepare', *jobs.flags(workdir, data__root=root, data__synthetic='all.json')
  )
  return World(root, workdir, outcome)


@pytest.fixture(scope='session')
def whole(world, tmp_path_factory) -> pathlib.Path:
  """The workdir of a `lift align` that nothing disturbed."""
  workdir = tmp_path_factory.mktemp('whole')
  with runs.known_peak():
    assert jobs.lift(*world.align(workdir)).status == 0
  return workdir
