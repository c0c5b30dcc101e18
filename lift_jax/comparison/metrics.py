"""Metrics of clips, and what computes them.

A `ClipMeasure` computes one or more metrics from the frames of a clip. To add
one, `register` it: its metrics then have a row in tables and pages, and are
part of the statistics. One that needs weights names them in `needs`; their
folders are given in the config, and without them its metrics are listed as not
measured.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib

import numpy as np

from lift_jax.comparison import block_motion
from lift_jax.data.suites import SuitePrompt
from lift_jax.evaluation import motion

HIGHER, LOWER, NEITHER = 1, -1, 0


@dataclasses.dataclass(frozen=True)
class Metric:
  """A number per clip, or per prompt, whose mean is compared.

  Attributes:
    name: as in files.
    title: as in tables, which add '%' for a share.
    group: heading of its part of the table.
    better: `HIGHER` or `LOWER` values are better; `NEITHER` where that depends.
    is_share: whether it is in [0, 1] and written in percent.
  """

  name: str
  title: str
  group: str
  better: int
  is_share: bool = True


# From the folders of weights, by name, to a function from the frames of a clip,
# uint8 [T, H, W, 3] with T > 1, to the value of each metric. A measure that has
# a text gets it after the frames.
Opener = Callable[[Mapping[str, pathlib.Path]], Callable[..., Sequence[float]]]


@dataclasses.dataclass(frozen=True)
class ClipMeasure:
  """Computes metrics from the frames of a clip.

  Attributes:
    metrics: in the order of the values.
    open: loads what it needs; called once.
    needs: names of folders of weights in `metrics.weights` of the config.
    dimension: of VBench, whose prompts alone the metrics are about in suites
      that have dimensions; '' for all prompts.
    text: of a prompt, what its clips are compared with; '' if the metrics are
      not about this prompt. None for metrics of the frames alone.
  """

  metrics: tuple[Metric, ...]
  open: Opener
  needs: tuple[str, ...] = ()
  dimension: str = ''
  text: Callable[[SuitePrompt], str] | None = None

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(metric.name for metric in self.metrics)

  def is_about(self, prompt: SuitePrompt) -> bool:
    """Whether the clips of a prompt are measured."""
    in_dimension = (
      not self.dimension
      or not prompt.dimensions
      or self.dimension in prompt.dimensions
    )
    return in_dimension and (self.text is None or bool(self.text(prompt)))


_MEASURES: list[ClipMeasure] = []


def register(measure: ClipMeasure) -> ClipMeasure:
  """Adds a measure; returns it."""
  taken = {name for known in _MEASURES for name in known.names}
  if twice := taken & set(measure.names):
    raise ValueError(f'metrics {sorted(twice)} are registered already')
  _MEASURES.append(measure)
  return measure


def measures() -> tuple[ClipMeasure, ...]:
  """All that are registered."""
  return tuple(_MEASURES)


def temporal_flickering(frames_thw3: np.ndarray) -> float:
  """VBench's temporal flickering: (255 - mean |change|) / 255, in [0, 1].

  The change is that of consecutive frames, averaged over the pixels of each
  pair and then over pairs. VBench averages in float32, so the last digits may
  differ.
  """
  changes = [
    np.abs(later.astype(np.int16) - earlier).mean(dtype=np.float64)
    for earlier, later in zip(frames_thw3[:-1], frames_thw3[1:], strict=True)
  ]
  return (255 - float(np.mean(changes))) / 255


def _flicker(frames_thw3: np.ndarray) -> tuple[float]:
  return (temporal_flickering(frames_thw3),)


def _frame_motion(frames_thw3: np.ndarray) -> tuple[float, float]:
  measured = motion.measure(frames_thw3)
  return measured.difference, float(measured.is_static)


FLICKER = 'own_temporal_flickering'
_FLICKER_AND_MOTION = 'Flicker and motion, measured here'

register(
  ClipMeasure(
    (
      Metric(
        FLICKER,
        'temporal flickering, unfiltered',
        _FLICKER_AND_MOTION,
        HIGHER,
      ),
    ),
    lambda _: _flicker,
    dimension='temporal_flickering',
  )
)
STATIC = 'static'
BLOCK_MOTION = 'block_motion'
register(
  ClipMeasure(
    (
      Metric(
        'frame_difference', 'frame difference', _FLICKER_AND_MOTION, NEITHER
      ),
      Metric(STATIC, 'static clips', _FLICKER_AND_MOTION, LOWER),
    ),
    lambda _: _frame_motion,
  )
)
register(
  ClipMeasure(
    (
      Metric(
        BLOCK_MOTION,
        'block motion',
        _FLICKER_AND_MOTION,
        NEITHER,
      ),
      Metric(
        'block_motion_p95',
        'block motion, 95th percentile',
        _FLICKER_AND_MOTION,
        NEITHER,
      ),
    ),
    lambda _: block_motion.mean_and_p95,
  )
)

DIVERSITY = Metric(
  'diversity', 'diversity of the clips of a prompt', 'Diversity', HIGHER, False
)
