"""The benchmark of many raters: what they do, and what it compares."""

import asyncio
import contextlib
import random
import shutil
import sqlite3

import annotate
import pytest

from lift_jax.annotation.store import NAME, Store
from tests.annotation.web import projects


@pytest.fixture(scope='module')
def rated(tmp_path_factory):
  """A project in which two raters have answered three tasks each."""
  workdir = tmp_path_factory.mktemp('project')
  links = annotate.make_project(workdir, num_raters=2, num_answers=3)
  load = annotate.Load()

  async def rate(url):
    raters = [
      annotate.Rater(url, link, load, random.Random(seed))
      for seed, link in enumerate(links)
    ]
    await asyncio.gather(*(rater.rate(3, think=0.0) for rater in raters))

  with Store.open(workdir) as store, projects.serving(store) as url:
    asyncio.run(rate(url))
  assert len(load.seconds['answer']) == 6
  assert load.repeated == 0
  return workdir, load.confirmed


def test_all_there(rated):
  assert annotate.compare(*rated) == (0, 0, 0)


@pytest.mark.parametrize(
  'change, expected',
  [
    ('DELETE FROM votes; DELETE FROM answers WHERE rowid = 1', (1, 0, 0)),
    ("UPDATE answers SET id = 'other' WHERE rowid = 1", (1, 1, 0)),
    (
      "INSERT INTO answers SELECT 'twice', task, person, skip, seconds, time, "
      '0 FROM answers WHERE rowid = 1',
      (0, 1, 1),
    ),
  ],
)
def test_found(rated, tmp_path, change, expected):
  folder, confirmed = rated
  shutil.copyfile(folder / NAME, tmp_path / NAME)
  with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as db:
    db.executescript(change)
  assert annotate.compare(tmp_path, confirmed) == expected
