"""Labels of all questions about all clips, as `lift score` finds them.

A clip and its caption are read once, and then the questions.
"""

from collections.abc import Callable
import pathlib

from cpu_parts import critic as critic_parts
from cpu_parts.rows import Results
import jax
import numpy as np

from lift_jax import partitioning
from lift_jax.models import critics
from lift_jax.runtime.files import read_json
from lift_jax.scoring.scorer import Prompts, Scorer


def write(folder: pathlib.Path, tiny: bool, rounds: int) -> dict[str, float]:
  """Makes a critic; every round has the same clips."""
  del rounds
  critic_parts.write(folder, tiny)
  return {}


class Ours:
  def __init__(self, folder: pathlib.Path):
    mesh = partitioning.make_mesh(
      partitioning.MeshConfig(), jax.local_devices()[:1]
    )
    labels = ('Good', 'Normal', 'Bad')
    self._scorer = Scorer(
      critics.open_critic(folder / 'critic'),
      mesh,
      'float32',
      'auto',
      label_ids=dict(zip(labels, critic_parts.LABEL_IDS, strict=True)),
      stop_ids=(1,),
      pad_id=0,
    )
    self._arrays = dict(np.load(folder / 'inputs.npz'))
    self._batch = read_json(folder / 'settings.json')['batch']

  def __call__(self, number: int) -> Callable[[], Results]:
    del number
    return self._score

  def _score(self) -> Results:
    arrays, found = self._arrays, []
    for first in range(0, len(arrays['patches']), self._batch):
      clips = slice(first, first + self._batch)
      prefix_bn = arrays['prefix_bn'][clips]
      question_bqm = arrays['question_bqm'][clips]
      prompts = Prompts(
        prefix_bn,
        np.full(len(prefix_bn), prefix_bn.shape[1], np.int32),
        question_bqm,
        np.full(question_bqm.shape[:2], question_bqm.shape[2], np.int32),
      )
      found.append(
        self._scorer(critic_parts.frames_of(arrays, clips), prompts, 0)
      )
    return {
      'probabilities': np.concatenate([one.probabilities_bql for one in found])
    }
