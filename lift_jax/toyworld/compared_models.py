"""Clips of two simulated models, with scores and people's preferences.

`write_models` makes the data of `lift compare` if it is given none:

  folder/before, folder/after    as workdirs of lift sample
    scores.jsonl                 scores by a simulated critic
    held_out_scores.jsonl        scores by another one
  folder/pairs.json              pairs that a simulated person compared

The clips of 'after' have fewer flaws.
"""

import json
import pathlib
from typing import Any

import numpy as np

from lift_jax.data.prompts import Prompt
from lift_jax.data.rubric import DIMENSIONS, LABELS, LIFT
from lift_jax.data.video_write import write_mp4
from lift_jax.rewards.weights import video_reward
from lift_jax.runtime.files import write_json, write_text
from lift_jax.sampling.clips import Clip, make_clips
from lift_jax.sampling.manifest import VIDEOS, Manifest
from lift_jax.toyworld import checkers, flaws, scenes, simulated_critic
from lift_jax.toyworld.flaws import ToyClip
from lift_jax.toyworld.measures import truth_of

MODELS = ('before', 'after')
SCORES, HELD_OUT_SCORES = 'scores.jsonl', 'held_out_scores.jsonl'
PAIRS = 'pairs.json'

_NUM_CLIPS = 2  # of each prompt
_FLAWLESS_SHARE = {'before': 0.0, 'after': 0.6}


def write_models(folder: pathlib.Path, num_prompts: int, seed: int = 0) -> None:
  """Writes the clips of both models, scores and pairs.

  Args:
    folder: the folder to write; what it contains is written again.
    num_prompts: number of prompts, each with two clips of each model.
    seed: of everything that is random.
  """
  training = scenes.training_scenes()
  order = np.random.default_rng(seed).permutation(len(training))
  shown = {
    scene.caption: scene for scene in (training[i] for i in order[:num_prompts])
  }
  prompts = [
    Prompt(caption, caption, caption, 'the toy world') for caption in shown
  ]
  clips, _ = make_clips(prompts, _NUM_CLIPS, seed, '{prompt}-{index}')
  drawn: dict[str, list[ToyClip]] = {}
  for model in MODELS:
    drawn[model] = []
    workdir = folder / model
    (workdir / VIDEOS).mkdir(parents=True, exist_ok=True)
    with Manifest(workdir, {'model': model}) as manifest:
      for clip in clips:
        toy = _draw(shown[clip.prompt.text], clip, model)
        write_mp4(manifest.file(clip, VIDEOS), toy.frames_thw3, flaws.FPS)
        manifest.add(clip)
        drawn[model].append(toy)
    manifest.gather(clips)
    for number, name in enumerate((SCORES, HELD_OUT_SCORES)):
      scores = [
        _score(clip, toy, number)
        for clip, toy in zip(clips, drawn[model], strict=True)
      ]
      lines = [json.dumps(record) + '\n' for record in scores]
      write_text(workdir / name, ''.join(lines))
  write_json(folder / PAIRS, _pairs(clips, drawn))


def _draw(scene: scenes.Scene, clip: Clip, model: str) -> ToyClip:
  rng = np.random.default_rng(clip.seed)
  is_flawless = rng.random() < _FLAWLESS_SHARE[model]
  labels = dict.fromkeys(DIMENSIONS, 'Good') if is_flawless else None
  return flaws.draw_clip(scene, rng, labels)


def _score(clip: Clip, toy: ToyClip, number: int) -> dict[str, Any]:
  """The record of one of the simulated critics."""
  verdicts = checkers.judge(
    toy.asked, truth_of(toy.shown, toy.fidelity, toy.motion)
  )
  record = simulated_critic.score(
    f'{VIDEOS}/{clip.stem}.mp4',
    clip.prompt.text,
    verdicts,
    np.random.default_rng((clip.seed, number)),
  )
  return record | {'critic': f'{record["critic"]} {number}'}


def _pairs(
  clips: list[Clip], drawn: dict[str, list[ToyClip]]
) -> list[dict[str, Any]]:
  """What a person who sees every flaw prefers."""
  pairs = []
  for clip, *both in zip(clips, *drawn.values(), strict=True):
    labels = [toy.labels for toy in both]
    rewards = [video_reward(one, LIFT) for one in labels]
    pairs.append(
      {
        'caption': clip.prompt.text,
        'videos': [f'{model}/{VIDEOS}/{clip.stem}.mp4' for model in MODELS],
        'overall': _preference(*rewards),
        'dimensions': {
          name: _preference(*(-LABELS.index(one[name]) for one in labels))
          for name in DIMENSIONS
        },
      }
    )
  return pairs


def _preference(first: float, second: float) -> str:
  return 'same' if first == second else 'first' if first > second else 'second'
