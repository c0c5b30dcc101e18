"""A warning when preferred clips become less likely than they were.

Where an objective compares clips, the loss also falls if all of them become
less likely, as long as the worse ones do so faster (see `docs/align.md`).
"""

from collections.abc import Mapping
import logging
from typing import Any


class DriftWarning:
  """Watches the error of preferred clips against the reference's.

  Args:
    metric: its name, see `Objective.drift_metric`.
    window: warns once it has been above 0 in this many steps, without one at
      or below 0 in between; and again after as many more.
    logger: gets the warnings.
  """

  def __init__(self, metric: str, window: int, logger: logging.Logger):
    self._metric, self._window, self._logger = metric, window, logger
    self._steps_above = 0

  def __call__(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Takes the metrics of a step, on the host."""
    if not metrics[f'count/{self._metric}']:
      return
    is_above = metrics[f'sum/{self._metric}'] > 0
    self._steps_above = self._steps_above + 1 if is_above else 0
    if self._steps_above < self._window:
      return
    self._steps_above = 0
    self._logger.warning(
      '%s has been above 0 in %d steps up to step %d: preferred clips become '
      'less likely than in the reference; lower optimizer.learning_rate, raise '
      'beta, or give preferred or real clips a weight of their own '
      '(sft_weight, real_weight)',
      self._metric,
      self._window,
      step,
    )
