"""What a step on a CPU spends its time on, by the profilers of JAX and torch.

Times are those of operations themselves, without what they call. XLA names a
fusion after its operations; `ynn_fusion` and `dot` are matrix products.
"""

import collections
from collections.abc import Callable, Iterator
import pathlib
import re
import tempfile

# Python's frames, and what waits for operations.
_NO_OPERATIONS = re.compile(r'\$|.*Thunk|.*Executor|end: ')
_NUMBER = re.compile(r'(\.\d+)+$')


def of_jax(step: Callable[[], object]) -> dict[str, float]:
  """Seconds of each kind of operation, the largest first."""
  import jax

  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      step()
    (file,) = pathlib.Path(folder).rglob('*.xplane.pb')
    data = jax.profiler.ProfileData.from_file(str(file))
  seconds = collections.Counter()
  for plane in data.planes:
    for line in plane.lines:
      for name, nanoseconds in _own_times(line.events):
        if not _NO_OPERATIONS.match(name):
          seconds[_NUMBER.sub('', name)] += nanoseconds / 1e9
  return dict(seconds.most_common())


def _own_times(events) -> Iterator[tuple[str, float]]:
  """(name, nanoseconds), in parts: what an event calls is taken off it."""
  running = []  # (end, name), the innermost last
  for start, length, name in sorted(
    ((event.start_ns, event.duration_ns, event.name) for event in events),
    key=lambda each: (each[0], -each[1]),
  ):
    while running and start >= running[-1][0]:
      running.pop()
    if running:
      yield running[-1][1], -length
    yield name, length
    running.append((start + length, name))


def of_torch(step: Callable[[], object]) -> dict[str, float]:
  """Seconds of each kind of operation, the largest first."""
  from torch import profiler

  with profiler.profile(activities=[profiler.ProfilerActivity.CPU]) as found:
    step()
  seconds = collections.Counter({
    each.key: each.self_cpu_time_total / 1e6 for each in found.key_averages()
  })  # fmt: skip
  return dict(seconds.most_common())


OF = {'ours': of_jax, 'torch': of_torch}


def markdown(seconds: dict[str, dict[str, float]], number: int) -> list[str]:
  """A table of the `number` largest kinds of each side."""
  lines = []
  for side, kinds in seconds.items():
    total = sum(kinds.values())
    lines += ['', f'| {side} | s | % |', '|---|---|---|']
    for name, value in [*kinds.items()][:number]:
      lines.append(f'| {name} | {value:.3f} | {100 * value / total:.1f} |')
    lines.append(f'| all | {total:.3f} | 100 |')
  return lines
