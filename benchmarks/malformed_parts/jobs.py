"""What jobs are told, and what they write and read again."""

from collections.abc import Iterator
import functools
import json
import math
import pathlib
from typing import Any

from hypothesis import strategies as st
from malformed_parts.mutations import SCALARS, damaged, dump, mutated_json
from malformed_parts.target import Target, json_target

from lift_jax.cli import job_flags
from lift_jax.data import cache, prompts
from lift_jax.jobs import sample, score, train_critic
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.sampling import clips
from lift_jax.sampling.manifest import Manifest

_CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


def state_targets(folder: pathlib.Path) -> dict[str, Target]:
  """Files that jobs write and read again."""
  workdir = folder / 'workdir'
  (workdir / 'videos').mkdir(parents=True)
  prompt = prompts.Prompt('x', 'a red ball', 'ball', 'prompts.txt line 1')
  made = clips.make_clips([prompt], 2, 0, '{id}-{index}')[0]
  manifest = Manifest(workdir, {'steps': 2, 'model': {'hash': 'abc'}})
  with manifest:
    for clip in made:
      manifest.file(clip, 'videos').write_bytes(clip.stem.encode())
      manifest.add(clip)
  path = workdir / 'manifest.jsonl'
  lines = path.read_bytes()

  def read_manifest(content: bytes) -> Any:
    path.write_bytes(content)
    return manifest.finished(made)

  def check_manifest(content: bytes, stems: Any) -> None:
    """A clip counts as finished only by a line that it would write itself."""
    texts = content.decode(errors='replace').split('\n')
    valid = [json.loads(line) for line in lines.decode().split('\n') if line]
    for stem in stems:
      (line,) = [v for v in valid if f'videos/{stem}.mp4' in v['files']]
      assert any(_same_json(text, line) for text in texts)

  cache_folder = folder / 'cache'
  fingerprint = {'vae': 'abc', 'sizes': [[16, 32]], 'fps': None}
  cache.LatentCache(cache_folder, fingerprint).start()
  made_by = cache_folder / 'made_by.json'

  def read_made_by(content: bytes) -> Any:
    made_by.write_bytes(content)
    return cache.LatentCache(cache_folder, fingerprint)

  def check_made_by(content: bytes, value: Any) -> None:
    assert (
      json.loads(content.decode('utf-8-sig'))['made_by'] == value.fingerprint
    )

  return {
    'manifest': Target(
      lines,
      st.one_of(
        damaged(lines),
        mutated_json([json.loads(line) for line in lines.splitlines()])
        .filter(lambda value: isinstance(value, list))
        .map(lambda items: b''.join(dump(item) + b'\n' for item in items)),
      ),
      read_manifest,
      check_manifest,
    ),
    'made_by.json': json_target(
      json.loads(made_by.read_bytes()), read_made_by, check_made_by
    ),
  }


def _same_json(text: str, value: Any) -> bool:
  """Equal JSON values; a missing key is as good as null."""
  try:
    return _without_null(json.loads(text)) == _without_null(value)
  except (ValueError, RecursionError):
    return False


def _without_null(value: Any) -> Any:
  if not isinstance(value, dict):
    return value
  return {
    key: _without_null(item) for key, item in value.items() if item is not None
  }


def override_target() -> dict[str, Target]:
  """Values of config fields, as given on the command line."""
  jobs = {
    'align_sample.py': AlignConfig,
    'sample.py': sample.SampleConfig,
    'score.py': score.ScoreConfig,
    'critic_tiny.py': train_critic.TrainCriticConfig,
  }
  fields = [
    (file, name)
    for file in jobs
    for name in _fields(
      job_flags.read_config(str(_CONFIGS / file), (), jobs[file])[1]
    )
  ]
  values = st.one_of(
    st.sampled_from(SCALARS).map(lambda value: json.dumps(value)),
    st.sampled_from(SCALARS).map(str),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=8),
  )

  def read(content: tuple[tuple[str, str], str]) -> Any:
    (file, name), value = content
    return job_flags.read_config(
      str(_CONFIGS / file), [f'--config.{name}={value}'], jobs[file]
    )[1]

  def check(content: tuple[tuple[str, str], str], source: Any) -> None:
    """What was set is what was given."""
    (_, name), value = content
    field = functools.reduce(
      lambda item, key: item[key], name.split('.'), source
    )
    if isinstance(field, bool):
      assert value.lower() in ('true', 'false', '1', '0', 't', 'f')
    elif isinstance(field, int | float):
      is_same = field == float(value) or str(field) == value.strip()
      assert is_same or math.isnan(float(value))
    elif isinstance(field, str):
      assert field == value

  return {
    'config overrides': Target(
      (('align_sample.py', 'data.on_bad_record'), 'skip'),
      st.tuples(st.sampled_from(fields), values),
      read,
      check,
    )
  }


def _fields(config: Any, prefix: str = '') -> Iterator[str]:
  for key in config:
    value = config[key]
    if hasattr(value, 'keys'):
      yield from _fields(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}'
