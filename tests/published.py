"""Files in the forms in which LiFT and VBench publish theirs.

`OURS` was written for these tests and is always there; `THEIRS` holds the
published files themselves, on machines that have them beside the repository.
Both folders have the same layout:

  critic_prompts.json         questions and templates of critics
  vidgen-data.json            human feedback, one question a video
  vbench_full_info_opt.json   prompts, some of them under two dimensions
  lift_sample/                hra.json and alignment.json of the same videos/,
    reference/                what critics answered
"""

import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
OURS = REPOSITORY / 'tests' / 'fixtures' / 'published'
THEIRS = REPOSITORY.parent / 'shared' / 'data'


def require(root: pathlib.Path) -> None:
  """Skips the test where this folder is not at hand."""
  if not root.is_dir():
    pytest.skip('the published files are not here')
