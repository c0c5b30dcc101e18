"""One kind of input, and what may come of a malformed one."""

import collections
from collections.abc import Callable
import dataclasses
from typing import Any

import hypothesis
from hypothesis import strategies as st
from malformed_parts.mutations import dump, json_file

from lift_jax.cli import failures


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


def json_target(
  good: Any, read: Callable[[bytes], Any], check: Callable[[bytes, Any], None]
) -> Target:
  """The target of a JSON file."""
  return Target(dump(good), json_file(good), read, check)


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
