"""Several hosts as threads of this process, which meet at every barrier.

For code that shares its work by `jax.process_index` and waits for the others
through `runtime.distributed`.
"""

from collections.abc import Callable
import signal
import threading
from typing import Any
from unittest import mock

import jax

from lift_jax.runtime import distributed


def run(num_hosts: int, work: Callable[[int], Any]) -> list[Any]:
  """What `work(host)` returns on each host; asserts that none raises."""
  gate, index = threading.Barrier(num_hosts), threading.local()
  results, errors = [None] * num_hosts, []
  values = [True] * num_hosts

  def host(number: int) -> None:
    index.value = number
    try:
      results[number] = work(number)
    except BaseException as error:
      errors.append(error)
      gate.abort()

  def raise_together(error: Exception | None) -> None:
    gate.wait()
    assert error is None

  def true_everywhere(value: bool) -> bool:
    values[index.value] = value
    gate.wait()
    together = all(values)
    gate.wait()  # before any of them is set again
    return together

  with (
    mock.patch.multiple(
      distributed,
      is_primary=lambda: index.value == 0,
      barrier=lambda name: gate.wait(),
      wait_for_all=lambda name: gate.wait(),
      raise_together=raise_together,
      true_everywhere=true_everywhere,
    ),
    mock.patch.multiple(
      jax,
      process_index=lambda: index.value,
      process_count=lambda: num_hosts,
    ),
    # Handlers can only be set in the main thread.
    mock.patch.object(signal, 'getsignal', return_value=signal.SIG_IGN),
  ):
    threads = [
      threading.Thread(target=host, args=(n,)) for n in range(num_hosts)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert errors == []
  return results
