"""What people bring: lists of records, and clips."""

import json
import math
import pathlib
from typing import Any

from malformed_parts.mutations import damaged, damaged_boxes, dump, json_file
from malformed_parts.target import Target, json_target
import numpy as np

from lift_jax.data import hra, prompts, records, video
from lift_jax.data.video_write import write_mp4
from lift_jax.evaluation import scores


def record_targets(folder: pathlib.Path) -> dict[str, Target]:
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


def video_targets(folder: pathlib.Path) -> dict[str, Target]:
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


def _clip(folder: pathlib.Path, name: str) -> pathlib.Path:
  path = folder / name
  frames_thw3 = np.random.default_rng(0).integers(
    0, 256, (9, 16, 32, 3), np.uint8
  )
  write_mp4(path, frames_thw3)
  return path
