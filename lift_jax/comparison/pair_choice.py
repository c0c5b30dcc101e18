"""Which pairs of clips a report shows."""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from lift_jax.comparison import flow
from lift_jax.comparison.clip_sets import Key
from lift_jax.comparison.metrics import DIVERSITY, NEITHER
from lift_jax.comparison.model_comparison import MetricValues
from lift_jax.data.suites import FLICKER

GAIN, LOSS, RANDOM = 'gain', 'loss', 'random'
KINDS = (GAIN, LOSS, RANDOM)

# Not of the same clips: VBench numbers those anew that its filter keeps, and
# diversity is that of a prompt.
_NOT_OF_CLIPS = (FLICKER, flow.FLICKER.name, DIVERSITY.name)


@dataclasses.dataclass(frozen=True)
class ChosenPair:
  """Two clips of one prompt and index.

  Attributes:
    key: of both.
    reasons: (name of a metric, 'gain' or 'loss') and ('', 'random').
  """

  key: Key
  reasons: tuple[tuple[str, str], ...]


def is_of_clips(measured: MetricValues) -> bool:
  """Whether its largest differences are those of clips that can be shown."""
  return measured.metric.name not in _NOT_OF_CLIPS


def choose_pairs(
  measured: Sequence[MetricValues],
  model: int,
  keys: Sequence[Key],
  count: int,
  seed: int,
) -> list[ChosenPair]:
  """Pairs with the largest gains and losses of each metric, and random ones.

  Args:
    measured: the metrics.
    model: the one that is compared with the first.
    keys: of the clips that both have.
    count: pairs of each kind.
    seed: of the random ones.

  Returns:
    Each pair once, the random ones first, then those of one metric after the
    other.
  """
  rng = np.random.default_rng(seed)
  order = rng.permutation(len(keys))[:count]
  reasons: dict[Key, list[tuple[str, str]]] = {
    keys[index]: [('', RANDOM)] for index in order
  }
  shown = set(keys)
  for one in measured:
    if is_of_clips(one):
      for key, kind in _extremes(one, model, shown, count):
        reasons.setdefault(key, []).append((one.metric.name, kind))
  return [ChosenPair(key, tuple(why)) for key, why in reasons.items()]


def _extremes(
  one: MetricValues, model: int, shown: set[Key], count: int
) -> Iterator[tuple[Key, str]]:
  """The largest gains, then the largest losses, of a metric."""
  base, other = one.values[0], one.values[model]
  sign = 1 if one.metric.better == NEITHER else one.metric.better
  gains = {
    key: sign * (other[key] - base[key])
    for key in one.common_keys(model)
    if key in shown
  }
  by_gain = sorted(gains, key=lambda key: gains[key], reverse=True)
  yield from ((key, GAIN) for key in by_gain[:count] if gains[key] > 0)
  yield from ((key, LOSS) for key in by_gain[::-1][:count] if gains[key] < 0)
