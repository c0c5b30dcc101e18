"""Frames of training examples; a clip that fails is replaced by another.

The choice depends on the seed and the example alone, not on the time or on what
other threads and hosts do. So a run that resumes makes the same batches again.
"""

from collections.abc import Callable, Sequence
import concurrent.futures
import hashlib
from typing import Any

from lift_jax.data.critic_examples import (
  Example,
  FramePreprocessor,
  decode_selected,
)
from lift_jax.errors import UserError

# `report(failed, substitute, reason)`: the second example is used in place of
# the first one. Called in threads, each time.
Report = Callable[[Example, Example, str], None]


class ExampleReader:
  """Decodes the clips of examples, in threads.

  Args:
    examples: all of them.
    frames: of the critic.
    num_threads: threads that decode.
    seed: of the choice of substitutes.
    report: called for each clip that fails and is replaced; None raises the
      error instead.
  """

  def __init__(
    self,
    examples: Sequence[Example],
    frames: FramePreprocessor,
    num_threads: int,
    seed: int,
    report: Report | None,
  ):
    self._examples = examples
    self._frames = frames
    self._seed = seed
    self._report = report
    # Shared between batches, so that no batch waits for a thread while later
    # batches have several.
    self._pool = concurrent.futures.ThreadPoolExecutor(num_threads)

  def read(self, indices: Sequence[int]) -> list[tuple[int, Any]]:
    """Which example each index stands for now, and its preprocessed frames.

    Raises:
      UserError: a clip cannot be decoded, and is not replaced; or no example of
        its shape can be decoded.
    """
    return list(self._pool.map(self._read, indices))

  def _read(self, index: int) -> tuple[int, Any]:
    failed = self._examples[index]
    try:
      return index, self._decode(failed)
    except UserError as error:
      reason, _, _ = str(error).rpartition('; ')  # without the remedy
    if self._report is None:
      raise UserError(
        f'{reason}; restore the file, or set data.on_bad_record to '
        "'skip' to go on with another clip in its place"
      )
    for other in self._substitutes(index):
      substitute = self._examples[other]
      try:
        frames = self._decode(substitute)
      except UserError:
        continue  # reported when it is its turn
      self._report(failed, substitute, reason)
      return other, frames
    raise UserError(
      f'{reason}, and no clip that could take its place can be decoded; '
      'restore the files'
    )

  def _decode(self, example: Example) -> Any:
    decoded = decode_selected(
      example.path,
      example.clip,
      example.selection,
      self._frames,
      example.record.where,
    )
    return self._frames.preprocess(decoded.frames, example.selection)

  def _substitutes(self, index: int) -> list[int]:
    """Other examples of the same shape; first those of the same kind."""
    failed = self._examples[index]

    def rank(other: int) -> tuple[bool, bytes]:
      text = f'{self._seed} {index} {other}'
      is_of_other_kind = self._examples[other].is_real != failed.is_real
      return is_of_other_kind, hashlib.sha256(text.encode()).digest()

    return sorted(
      (
        other
        for other, example in enumerate(self._examples)
        if example.shape == failed.shape and example.path != failed.path
      ),
      key=rank,
    )
