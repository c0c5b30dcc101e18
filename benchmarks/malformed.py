"""Malformed inputs: each one is refused in one line, or read rightly.

  python benchmarks/malformed.py [--cases=12000] [--seed=0] [--target=NAME]

Good inputs of each kind are mutated, by Hypothesis: JSON values are replaced,
removed and repeated, bytes are flipped, zeroed, cut and inserted. `Malformed`
holds the kinds; the tests put fewer cases of each to the same checks. Printed
are the cases of each kind, and how many were read and refused.
"""

import argparse
import collections
from collections.abc import Callable, Collection, Iterator, Mapping
import contextlib
import copy
import dataclasses
import functools
import json
import math
import pathlib
import struct
import tempfile
from typing import Any

import hypothesis
from hypothesis import strategies as st
import numpy as np
import safetensors.numpy

from lift_jax.cli import failures, job_flags
from lift_jax.data import cache, hra, prompts, records, video
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from lift_jax.evaluation import scores
from lift_jax.jobs import sample, score, train_critic
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.models import (
  adapter_files,
  critic_config,
  critics,
  generator_folder,
  generators,
)
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.vila import folder as vila_folder
from lift_jax.sampling import clips
from lift_jax.sampling.manifest import Manifest
from lift_jax.weights import safetensors_files

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / 'configs'

# Numbers, texts and structures at which readers tend to fail.
_SCALARS = [
  None, True, False, 0, -1, 1, 2.5, -0.0, math.nan, math.inf, -math.inf,
  1e308, 10**30, 2**63, '', ' ', '1', 'nan', 'None', '../x', '/etc/passwd',
  '~', '~nosuchuser', '\0', '\ud800', 'a\nb', '\u2028', '\u202e', 'e\u0323',
  'x' * 5000, [], {}, [[]], [None], {'': None}, [0, 0], [-1], {'a': [1, 2]},
]  # fmt: skip
_JUNK = st.one_of(
  st.sampled_from(_SCALARS).map(copy.deepcopy),
  st.integers(),
  st.floats(),
  st.text(max_size=8),
  st.lists(st.integers(-2, 2), max_size=3),
)


@dataclasses.dataclass(frozen=True)
class Target:
  """One kind of input.

  Attributes:
    good: content of a good file.
    inputs: malformed ones.
    read: reads the file of this content.
    check: raises an AssertionError if what was read is not what the content
      says.
  """

  good: Any
  inputs: st.SearchStrategy
  read: Callable[[Any], Any]
  check: Callable[[Any, Any], None]


def outcome(target: Target, content: Any) -> str:
  """'read' or 'refused'; anything else is an error."""
  try:
    value = target.read(content)
  except Exception as error:
    if not failures.one_line(error):  # then it is an internal error
      raise
    return 'refused'
  target.check(content, value)
  return 'read'


def _paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
  """Paths to all values within a JSON value, of keys and indices."""
  yield path
  items: Any = ()
  if isinstance(value, dict):
    items = value.items()
  elif isinstance(value, list):
    items = enumerate(value)
  for key, item in items:
    yield from _paths(item, (*path, key))


@st.composite
def mutated_json(draw: st.DrawFn, value: Any) -> Any:
  """A JSON value with one to three changes."""
  value = copy.deepcopy(value)
  for _ in range(draw(st.integers(1, 3))):
    paths = [path for path in _paths(value) if path]
    if not paths:
      return draw(_JUNK)
    *parents, key = draw(st.sampled_from(paths))
    parent = functools.reduce(lambda item, key: item[key], parents, value)
    change = draw(st.sampled_from(['replace', 'remove', 'repeat', 'rename']))
    if change == 'remove':
      del parent[key]
    elif change == 'repeat' and isinstance(parent, list):
      parent.insert(key, copy.deepcopy(parent[key]))
    elif change == 'rename' and isinstance(parent, dict):
      parent[draw(st.text(max_size=4))] = parent.pop(key)
    else:
      parent[key] = draw(_JUNK)
  return value


def dump(value: Any) -> bytes:
  return json.dumps(value).encode()


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
  """Bytes with one to three changes."""
  for _ in range(draw(st.integers(1, 3))):
    start = draw(st.integers(0, len(data)))
    size = draw(st.sampled_from([1, 2, 4, 8, 64]))
    old = data[start : start + size]
    new = draw(
      st.one_of(
        st.binary(max_size=size),
        st.sampled_from([
          b'', bytes(len(old)), old + old, bytes(255 - byte for byte in old),
          b'\xef\xbb\xbf', b'{', b']', b'"', b'\\u0000', b'1e999', b',',
        ]),
      )
    )  # fmt: skip
    data = data[:start] + new + data[start + len(old) :]
    if draw(st.integers(0, 9)) == 0:
      data = data[:start]
  return data


def json_file(value: Any) -> st.SearchStrategy[bytes]:
  """Malformed files of a JSON value."""
  duplicate_key = dump(value).replace(b'": ', b'": 0, "x": 1, "x": ', 1)
  return st.one_of(
    mutated_json(value).map(dump),
    damaged(dump(value)),
    st.sampled_from([
      b'', b'\xff\xfe', dump(value).decode().encode('utf-16'), duplicate_key,
      b'[' * 2000, dump(value) * 2, b'\xef\xbb\xbf' + dump(value),
      b'9' * 5000,
    ]),
  )  # fmt: skip


def json_target(
  good: Any, read: Callable[[bytes], Any], check: Callable[[bytes, Any], None]
) -> Target:
  """The target of a JSON file."""
  return Target(dump(good), json_file(good), read, check)


def parsed_items(content: bytes) -> list[Any]:
  """The items of a JSON list, of its `data`, or of JSON lines."""
  text = content.decode('utf-8-sig')
  try:
    value = json.loads(text)
  except ValueError:
    return [json.loads(line) for line in text.split('\n') if line.strip()]
  if isinstance(value, dict) and isinstance(value.get('data'), list):
    return value['data']
  return value if isinstance(value, list) else [value]


def _check_alignment(content: bytes, result: Any) -> None:
  """Each record is that of an item of the file."""
  items = [
    (item['caption'], item['score'], pathlib.PurePath(item['video']).name)
    for item in parsed_items(content)
    if isinstance(item, dict) and item.keys() >= {'caption', 'score', 'video'}
  ]
  for record in result.records:
    name = pathlib.PurePath(record.video).name
    assert (record.caption, record.reward, name) in items


def _check_scores(content: bytes, result: Any) -> None:
  captions = [
    str(item.get('caption')).strip() for item in parsed_items(content)
  ]
  labels = [item.get('labels', {}) for item in parsed_items(content)]
  for record in result.records:
    assert record.caption in captions
    for dimension, answer in record.answers.items():
      name = scores.CLASSES[answer.label]
      assert not any(labels) or name in [of.get(dimension) for of in labels]


def _check_feedback(content: bytes, result: Any) -> None:
  for record in result.records:
    assert record.label in hra.LABELS and record.dimension in hra.DIMENSIONS
    text = content.decode('utf-8-sig')
    turns = [
      json.dumps(record.caption),
      json.dumps(record.caption, ensure_ascii=False),
    ]
    assert any(turn[1:-1] in text for turn in turns) or '\\' in text


def _check_prompts(content: bytes, result: Any) -> None:
  texts = [prompt.text for prompt in result[0]]
  assert all(text.strip() and '\n' not in text for text in texts)


def _clip(folder: pathlib.Path, name: str) -> pathlib.Path:
  path = folder / name
  frames_thw3 = np.random.default_rng(0).integers(
    0, 256, (9, 16, 32, 3), np.uint8
  )
  write_mp4(path, frames_thw3)
  return path


def _record_targets(folder: pathlib.Path) -> dict[str, Target]:
  """Lists of records whose clips are in `folder`."""
  _clip(folder, 'a.mp4')
  (folder / 'b.mp4').write_bytes((folder / 'a.mp4').read_bytes())

  def file(suffix: str, content: bytes) -> pathlib.Path:
    path = folder / f'input{suffix}'
    path.write_bytes(content)
    return path

  alignment = [
    {'video': 'a.mp4', 'caption': 'a red ball', 'score': 0.5},
    {'video': 'b.mp4', 'caption': 'two dogs', 'score': 1},
  ]
  questions = (
    'Rate the semantic consistency.',
    'Rate the motion smoothness.',
    'Rate the fidelity of the video.',
  )
  feedback = [
    {
      'video': name,
      'conversations': [
        {'from': 'human', 'value': f'<video>\nA red ball rolls. {question}'},
        {'from': 'gpt', 'value': f'{label}. The ball is red.'},
      ],
    }
    for name, question, label in zip(
      ('a.mp4', 'b.mp4', 'a.mp4'), questions, hra.LABELS, strict=True
    )
  ]
  scored = [
    {
      'video': 'a.mp4',
      'caption': 'a red ball',
      'score': 0.5,
      'critic': 'c',
      'flags': [],
      'labels': {'semantic': 'Good', 'motion': 'Bad', 'fidelity': 'Normal'},
      'probabilities': {
        'semantic': {'Good': 0.5, 'Normal': 0.25, 'Bad': 0.25},
        'motion': {'Good': 0.0, 'Normal': 0.25, 'Bad': 0.75},
        'fidelity': {'Good': 0.25, 'Normal': 0.5, 'Bad': 0.25},
      },
    }
  ]
  texts = [
    {'id': 'x', 'prompt_en': 'a red ball', 'name': 'ball'},
    {'id': 'y', 'prompt_en': 'two dogs', 'dimension': ['color']},
  ]
  by_dimension = dict(zip(hra.DIMENSIONS, questions, strict=True))
  return {
    'alignment records': json_target(
      alignment,
      lambda content: records.read_alignment(
        folder, [str(file('.json', content))]
      ),
      _check_alignment,
    ),
    'human feedback': json_target(
      feedback,
      lambda content: hra.read_hra(
        folder, [str(file('.json', content))], by_dimension
      ),
      _check_feedback,
    ),
    'scores': json_target(
      scored,
      lambda content: scores.read_scores(folder, [str(file('.json', content))]),
      _check_scores,
    ),
    'questions': json_target(
      {'questions': {name: f' {text}' for name, text in by_dimension.items()}},
      lambda content: hra.read_questions(file('.json', content)),
      lambda content, value: None,
    ),
    'prompts': json_target(
      texts,
      lambda content: prompts.read_prompts(file('.json', content)),
      _check_prompts,
    ),
    'prompts, lines': Target(
      b'\n'.join(map(dump, texts)),
      json_file(texts).map(lambda data: data.replace(b'}, ', b'}\n')),
      lambda content: prompts.read_prompts(file('.jsonl', content)),
      _check_prompts,
    ),
  }


def _config_targets(folder: pathlib.Path) -> dict[str, Target]:
  """Config files of published models, without weights."""
  model_folder, critic_folder = folder / 'model', folder / 'critic'
  aligning, _ = job_flags.read_config(
    str(CONFIGS / 'align_sample.py'), (), AlignConfig
  )
  sizes = aligning.model.random
  assert sizes is not None
  generator_folder.write_configs(generators.from_sizes(sizes), model_folder)
  scoring, _ = job_flags.read_config(
    str(CONFIGS / 'critic_tiny.py'), (), train_critic.TrainCriticConfig
  )
  critic = critic_config.declare_chosen(scoring.model)
  vila_folder.write_draft(critic_folder, critic.config, 0)

  def target(
    root: pathlib.Path, file: str, read: Callable[[pathlib.Path], Any]
  ) -> Target:
    good = (root / file).read_bytes()

    def read_with(content: bytes) -> Any:
      (root / file).write_bytes(content)
      try:
        return read(root)
      finally:
        (root / file).write_bytes(good)

    # Keys at whose values the reader does not look.
    value = json.loads(good)
    ignored = set()
    for key in value:
      with contextlib.suppress(UserError):
        read_with(dump(value | {key: {'no such': ['value']}}))
        ignored.add(key)
    check = functools.partial(_check_config, ignored)
    return json_target(value, read_with, check)

  def part_of(part: str) -> Callable[[pathlib.Path], Any]:
    return lambda root: getattr(generators.open_model(root), part).to_json()

  targets = {
    f'{file}': target(model_folder, file, part_of(part))
    for part, file in generators.CONFIG_FILES.items()
  }
  targets['model_index.json'] = target(
    model_folder,
    generators.INDEX,
    lambda root: generators.open_model(root) and {},
  )
  for name, part in vila_folder.PARTS.items():
    targets[f'{name}/config.json'] = target(
      critic_folder,
      f'{name}/config.json',
      lambda root, part=part: getattr(
        critics.open_critic(root).config, part
      ).to_json(),
    )
  targets['critic config.json'] = target(
    critic_folder,
    'config.json',
    lambda root: critics.open_critic(root) and {},
  )
  return targets


def _check_config(
  ignored: Collection[str], content: bytes, config: Mapping[str, Any]
) -> None:
  """A key that was read has the value that the file gives."""
  given = json.loads(content.decode('utf-8-sig'))
  for key, value in config.items():
    if key in given and key not in ignored:
      assert given[key] == value, f'{key} is {given[key]!r}, read as {value!r}'
      assert isinstance(given[key], bool) == isinstance(value, bool), key


def _weight_targets(folder: pathlib.Path) -> dict[str, Target]:
  """A file of tensors: its header, its data, and its index."""
  path = folder / 'model.safetensors'
  arrays = {
    'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b.bias': np.arange(4, dtype=np.float16),
  }
  safetensors_files.write(
    path, [(name, a.shape, a.dtype, a.copy) for name, a in arrays.items()]
  )
  good = path.read_bytes()
  size = struct.unpack('<Q', good[:8])[0]
  header = json.loads(good[8 : 8 + size])

  def with_header(text: bytes) -> bytes:
    return struct.pack('<Q', len(text)) + text + good[8 + size :]

  def read(content: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(content)
    tensors = safetensors_files.open_tensors(path, 'model')
    return {name: tensor[...] for name, tensor in tensors.items()}

  def check(content: bytes, tensors: Mapping[str, np.ndarray]) -> None:
    """As the safetensors library reads it."""
    expected = safetensors.numpy.load(content)
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
      assert tensor.dtype == expected[name].dtype
      np.testing.assert_array_equal(tensor, expected[name])

  return {
    'safetensors header': Target(
      good, json_file(header).map(with_header), read, check
    ),
    'safetensors bytes': Target(good, damaged(good), read, check),
  }


def _boxes(data: bytes, start: int = 0, end: int | None = None) -> list[int]:
  """Offsets of the boxes of an mp4 file, nested ones included."""
  offsets = []
  end = len(data) if end is None else end
  while start + 8 <= min(end, len(data)):
    size, kind = struct.unpack('>I4s', data[start : start + 8])
    offsets.append(start)
    if kind in (b'moov', b'trak', b'edts', b'mdia', b'minf', b'dinf', b'stbl'):
      offsets += _boxes(data, start + 8, start + size)
    if size < 8:
      break
    start += size
  return offsets


@st.composite
def damaged_boxes(draw: st.DrawFn, data: bytes) -> bytes:
  """An mp4 file, one to three of whose boxes have changed fields."""
  for _ in range(draw(st.integers(1, 3))):
    start = draw(st.sampled_from(_boxes(data) or [0]))
    offset = start + 4 * draw(st.integers(0, 16))
    field = draw(
      st.sampled_from([
        bytes(4), b'\xff' * 4, b'\x7f\xff\xff\xff', b'\0\0\0\1', b'free',
        b'\0\0\xff\xff', b'\0\1\0\0',
      ])
    )  # fmt: skip
    data = data[:offset] + field + data[offset + 4 :]
  return data


def _video_targets(folder: pathlib.Path) -> dict[str, Target]:
  good = _clip(folder, 'clip.mp4').read_bytes()
  path = folder / 'input.mp4'

  def read(content: bytes) -> tuple[Any, Any]:
    path.write_bytes(content)
    probed = video.probe(path, where='clip')
    return probed, video.decode(
      path, 9, where='clip', sizes=[(16, 32), (32, 16)]
    )

  def check(content: bytes, value: tuple[Any, Any]) -> None:
    probed, clip = value
    assert probed.num_frames > 0
    assert clip.frames.shape in [
      (num, *size, 3) for num in (1, 5, 9) for size in ((16, 32), (32, 16))
    ]
    assert len(clip.frames) <= clip.num_source_frames
    assert 0 <= clip.fps < math.inf

  return {
    'mp4 boxes': Target(good, damaged_boxes(good), read, check),
    'mp4 bytes': Target(good, damaged(good), read, check),
  }


def _adapter_targets(folder: pathlib.Path) -> dict[str, Target]:
  path = folder / 'adapter_config.json'
  safetensors.numpy.save_file(
    {
      'x.lora_A.weight': np.zeros((2, 4), np.float32),
      'x.lora_B.weight': np.zeros((6, 2), np.float32),
    },
    folder / 'adapter_model.safetensors',
  )
  sites = {'x': (adapter_files.Site('x', 0, (6, 4)),)}
  good = {
    'peft_type': 'LORA',
    'r': 2,
    'lora_alpha': 4,
    'use_dora': False,
    'rank_pattern': {},
    'target_modules': ['x'],
  }

  def read(content: bytes) -> Any:
    path.write_bytes(content)
    return adapter_files.open_adapter(AdapterConfig(str(folder)), sites)

  def check(content: bytes, adapter: Any) -> None:
    scale = adapter.updates['x'][0].scale
    assert math.isfinite(scale)
    given = json.loads(content.decode('utf-8-sig'))
    if not given.get('alpha_pattern') and not given.get('use_rslora'):
      assert scale == given['lora_alpha'] / 2

  return {'adapter_config.json': json_target(good, read, check)}


def _state_targets(folder: pathlib.Path) -> dict[str, Target]:
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


def _override_target() -> dict[str, Target]:
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
      job_flags.read_config(str(CONFIGS / file), (), jobs[file])[1]
    )
  ]
  values = st.one_of(
    st.sampled_from(_SCALARS).map(lambda value: json.dumps(value)),
    st.sampled_from(_SCALARS).map(str),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=8),
  )

  def read(content: tuple[tuple[str, str], str]) -> Any:
    (file, name), value = content
    return job_flags.read_config(
      str(CONFIGS / file), [f'--config.{name}={value}'], jobs[file]
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


def targets(folder: pathlib.Path) -> dict[str, Target]:
  """All kinds of inputs; their files are in `folder`."""
  found = {}
  for make in (
    _record_targets,
    _config_targets,
    _weight_targets,
    _video_targets,
    _adapter_targets,
    _state_targets,
  ):
    own = folder / make.__name__
    own.mkdir()
    found |= make(own)
  return found | _override_target()


def run(target: Target, num_cases: int, seed: int) -> collections.Counter:
  """Puts cases to a target; the outcomes.

  Raises:
    Exception: of the smallest case that is neither refused nor right.
  """
  outcomes = collections.Counter()

  @hypothesis.seed(seed)
  @hypothesis.settings(
    max_examples=num_cases,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(target.inputs)
  def check(content):
    outcomes[outcome(target, content)] += 1

  check()
  return outcomes


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--cases', type=int, default=12_000, help='of all kinds')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--target', default='', help='only this kind')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    known = targets(pathlib.Path(folder))
    chosen = {args.target: known[args.target]} if args.target else known
    num_cases = -(-args.cases // len(chosen))
    print(f'{"input":34} {"cases":>6} {"read":>6} {"refused":>7}')
    total = 0
    for name, target in chosen.items():
      outcomes = run(target, num_cases, args.seed)
      num = outcomes.total()
      total += num
      print(
        f'{name:34} {num:6} {outcomes["read"]:6} {outcomes["refused"]:7}',
        flush=True,
      )
  print(f'{total} cases, seed {args.seed}')


if __name__ == '__main__':
  main()
