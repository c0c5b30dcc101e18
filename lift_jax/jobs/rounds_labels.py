"""Labels of the clips of a round: those of critics and those of people."""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import pathlib
from typing import Any

from lift_jax.data import hra
from lift_jax.data.rubric import LIFT, Rubric, Scale
from lift_jax.errors import UserError, listing
from lift_jax.jobs.rounds_config import CRITICS, RoundsConfig
from lift_jax.jobs.rounds_state import vote_stages
from lift_jax.runtime import storage
from lift_jax.runtime.files import parse_json
from lift_jax.scoring import corrections
from lift_jax.scoring.corrections import Labels, key_of_record

Records = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class RoundLabels:
  """The labels of a round.

  Attributes:
    folder: of the round; its stages `score` and vote_1, ... are finished.
    config: of the job.
    rubric: of the training critic, and of all others.
    people: file of people's labels, or None.
  """

  folder: pathlib.Path
  config: RoundsConfig
  rubric: Rubric
  people: pathlib.Path | None = None

  @functools.cached_property
  def scale(self) -> Scale:
    return self.config.score.reward.reward_map().scale(self.rubric)

  def chosen(self) -> Records:
    """Video and caption of the clips to correct."""
    votes, share = self._votes(), self.config.correction.share
    return [
      {key: votes[index][0][key] for key in ('video', 'caption')}
      for index in corrections.choose(votes, share, self.scale)
    ]

  def corrected(self, chosen: Records, root: pathlib.Path) -> Records:
    """Records to train on, with the paths of clips relative to the root."""
    votes, listed = self._votes(), set(map(key_of_record, chosen))
    records = corrections.correct(
      votes,
      [i for i, (own, *_) in enumerate(votes) if key_of_record(own) in listed],
      self._labels_of_people(),
      self.scale,
      self.config.score.reward.decimals,
    )
    clips = (self.folder / 'sample').relative_to(root).as_posix()
    return [
      record | {'video': f'{clips}/{record["video"]}'} for record in records
    ]

  def feedback(self, seed: int) -> Records:
    """Human feedback (HRA) to train the critic on.

    It consists of the labels of people and of pseudo-labels of critics that
    agree.

    Args:
      seed: of sampled answers.

    Raises:
      UserError: there is none in a dimension.
    """
    agreed = list(self._agreed(seed))
    rated = {name for _, labels in agreed for name in labels}
    if missing := [n for n in self.scale.dimensions if n not in rated]:
      raise UserError(
        f'{self.folder.name}: no label of the critic agrees in '
        f'{listing(missing)}, so that it has nothing to learn from; set '
        'critic_training.enabled = False'
      )
    questions = self.rubric.questions
    return [
      hra.conversation(
        record['video'], record['caption'], questions[name], label, ''
      )
      for record, labels in agreed
      for name, label in labels.items()
    ]

  def _agreed(self, seed: int) -> Iterator[tuple[dict[str, Any], Labels]]:
    """Yields the record of each clip, and the labels to learn from."""
    config, people = self.config.critic_training, self._labels_of_people()
    for votes in self._votes():
      if config.agreement == CRITICS:
        labels = corrections.agreed_between_critics(votes)
      else:
        labels = corrections.agreed_between_temperatures(
          votes[0], config.temperatures, seed, self.scale
        )
      yield votes[0], labels | people.get(key_of_record(votes[0]), {})

  def _votes(self) -> list[Records]:
    """The records of all critics for each clip, the training critic first."""
    first, *others = (
      read_list(self.folder / stage / 'scores.json')
      for stage in ('score', *vote_stages(self.config))
    )
    by_key = [{key_of_record(record): record for record in o} for o in others]
    return [
      [record, *(other[key_of_record(record)] for other in by_key)]
      for record in first
    ]

  def _labels_of_people(self) -> dict[str, Labels]:
    if self.people is None:
      return {}
    found = hra.read_hra(
      self.folder / 'sample',
      [str(self.people)],
      self._questions_of_people(),
      labels=self.scale.labels,
    )
    return corrections.labels_of_people(found.records, self.scale)

  def _questions_of_people(self) -> Mapping[str, str] | None:
    """None for those in their file, which LiFT's dimensions are found in."""
    if path := self.config.correction.questions:
      return hra.read_questions(path)
    is_lift = set(self.scale.dimensions) <= set(LIFT.dimensions)
    return None if is_lift else self.rubric.questions


def read_list(path: pathlib.Path) -> Records:
  """A JSON list that another stage has written."""
  return parse_json(storage.read_text(path))
