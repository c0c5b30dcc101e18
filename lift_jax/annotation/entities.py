"""What the annotation store accepts and returns."""

from collections.abc import Mapping
import dataclasses

from lift_jax.data.rubric import Rubric
from lift_jax.errors import UserError

RATER, LEAD = 'rater', 'lead'
ROLES = (RATER, LEAD)

CLIP, PAIR = 'clip', 'pair'

# Causes of skipping a task.
SKIP_CAUSES = ('unclear prompt', 'broken clip', 'unknown term')

# Labels of a pair: the clip shown first, compared with the other one.
PAIR_LABELS = ('better', 'same', 'worse')
# Named as the rater of a critic's label among votes; no person has this name.
CRITIC = 'critic'

# The dimension of a pair next to those of the rubric.
OVERALL = 'overall'


@dataclasses.dataclass(frozen=True)
class Person:
  """Somebody who takes part in a project.

  Attributes:
    id: number in the store.
    name: unique in the project.
    role: `RATER` or `LEAD`; a lead may rate, too.
  """

  id: int
  name: str
  role: str


@dataclasses.dataclass(frozen=True)
class Task:
  """A clip to rate, or two clips of one prompt to compare, as shown.

  Nothing in it distinguishes a gold task from others.

  Attributes:
    id: hexadecimal digits.
    kind: `CLIP` or `PAIR`.
    caption: what the clips should show.
    clips: ids of one or two clips, in the order in which this person sees them.
    dimensions: to be rated, in order; of a pair also `OVERALL`.
    labels: to choose from in each dimension, from the best to the worst; of a
      pair `PAIR_LABELS`.
  """

  id: str
  kind: str
  caption: str
  clips: tuple[str, ...]
  dimensions: tuple[str, ...]
  labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Answer:
  """One person's answer to a task: labels and reasons, or a skip.

  Attributes:
    id: random text made by the client, 16 to 64 letters, digits, '-' or '_'.
      The same id again is the same answer, and has no further effect.
    task: id of the task.
    labels: by dimension, one of `Task.labels` for each of `Task.dimensions`;
      empty if the task is skipped.
    reasons: by dimension; missing ones are ''.
    seconds: that the person took.
    skip: one of `SKIP_CAUSES`, or '' if the task is answered.
    replaces: id of the person's earlier answer to this task that this one
      corrects; '' for a first answer.
  """

  id: str
  task: str
  labels: Mapping[str, str]
  reasons: Mapping[str, str]
  seconds: float
  skip: str = ''
  replaces: str = ''


@dataclasses.dataclass(frozen=True)
class GivenAnswer:
  """An answer that was saved, with its task as this person saw it.

  Attributes:
    task: of the answer.
    answer: as it was given; to correct it, save one whose `replaces` is its id.
    time: when it was saved, seconds since 1970.
  """

  task: Task
  answer: Answer
  time: float


@dataclasses.dataclass(frozen=True)
class Pace:
  """How far a person is.

  Attributes:
    answered: tasks that the person answered or skipped.
    left: tasks that are still open to the person, estimated: the number falls
      by one with each answer, and faster if others take tasks.
    seconds_per_task: median over the person's last answers; None without any.
  """

  answered: int
  left: int
  seconds_per_task: float | None


@dataclasses.dataclass(frozen=True)
class Vote:
  """One person's label of a task in one dimension.

  Attributes:
    rater: name of the person, or `CRITIC`.
    label: of a pair, from the view of the first clip of `Disagreement.task`.
    reason: may be empty.
    seconds: that the person took for the complete task.
    time: when it was saved, seconds since 1970.
  """

  rater: str
  label: str
  reason: str
  seconds: float
  time: float


@dataclasses.dataclass(frozen=True)
class Disagreement:
  """A task whose votes differ in some dimension.

  Attributes:
    task: whose clips are in their canonical order.
    votes: all votes, by dimension.
    disputed: dimensions in which they differ.
    proposed: by dimension, the label that counts without a decision: that of
      the majority, in a tie the worse one.
    decided: by dimension, the label and the reason of a lead; may be empty.
  """

  task: Task
  votes: Mapping[str, tuple[Vote, ...]]
  disputed: tuple[str, ...]
  proposed: Mapping[str, str]
  decided: Mapping[str, tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Setback:
  """A task that was skipped, or whose clip is missing.

  Attributes:
    task: the task.
    causes: number of skips by cause.
    broken: what is wrong with a clip, or ''. Such a task is given to nobody.
  """

  task: Task
  causes: Mapping[str, int]
  broken: str


@dataclasses.dataclass(frozen=True)
class GuidelineExample:
  """An example clip of the guideline.

  Attributes:
    dimension: that it is an example of.
    label: that it is an example of.
    clip: id of the clip.
  """

  dimension: str
  label: str
  clip: str


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of a project.

  Attributes:
    rubric: dimensions, questions, labels and guideline.
    root: absolute path of the folder that the paths of clips are relative to.
    follow_links: see `clip_paths.ClipFolder`.
    raters_per_clip: people who rate each clip or pair, but for gold tasks.
    gold_rate: share of gold tasks in the work of a person, in [0, 0.5].
    lease_seconds: after which an unanswered task is given to somebody else.
  """

  rubric: Rubric
  root: str
  follow_links: str = 'hub'
  raters_per_clip: int = 3
  gold_rate: float = 0.0
  lease_seconds: float = 1800.0

  def __post_init__(self):
    if self.raters_per_clip < 1:
      raise UserError('raters_per_clip must be at least 1')
    if not 0 <= self.gold_rate <= 0.5:
      raise UserError('gold.rate must be between 0 and 0.5')
    if not self.lease_seconds > 0:
      raise UserError('lease_seconds must be above 0')
    if OVERALL in self.rubric.questions:
      raise UserError(
        f'the dimension {OVERALL!r} is kept for pairs; rename it in the '
        'questions file'
      )
