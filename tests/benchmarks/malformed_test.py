"""Malformed inputs of every kind; `benchmarks/malformed.py` runs more of them.

A failure shows the smallest input that is neither refused in one line nor read
rightly.
"""

import dataclasses

import malformed
from malformed_parts.target import outcome, run
import pytest

NAMES = [
  'alignment records',
  'human feedback',
  'scores',
  'questions',
  'prompts',
  'prompts, lines',
  'transformer/config.json',
  'vae/config.json',
  'text_encoder/config.json',
  'scheduler/scheduler_config.json',
  'model_index.json',
  'llm/config.json',
  'vision_tower/config.json',
  'mm_projector/config.json',
  'critic config.json',
  'safetensors header',
  'safetensors bytes',
  'mp4 boxes',
  'mp4 bytes',
  'adapter_config.json',
  'manifest',
  'made_by.json',
  'config overrides',
]

pytestmark = pytest.mark.fast


@pytest.fixture(scope='module')
def targets(tmp_path_factory):
  return malformed.targets(tmp_path_factory.mktemp('malformed'))


def test_names(targets):
  assert list(targets) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_good(targets, name):
  """Otherwise every case would be refused for another reason."""
  assert outcome(targets[name], targets[name].good) == 'read'


@pytest.mark.parametrize('name', NAMES)
def test_malformed(targets, name):
  outcomes = run(targets[name], 15, seed=1)
  assert outcomes['refused']


def test_failures_are_seen(targets):
  """A reader that raises anything else, or reads something else."""
  target = targets['prompts']

  def raises(content):
    raise KeyError('prompt')

  for broken in (
    dataclasses.replace(target, read=raises),
    dataclasses.replace(
      target,
      read=lambda content: ([], 0),
      check=lambda content, value: pytest.fail('wrong'),
    ),
  ):
    with pytest.raises((KeyError, pytest.fail.Exception)):
      run(broken, 5, seed=0)
