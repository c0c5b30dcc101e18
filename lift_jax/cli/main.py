"""The `lift` command: `lift JOB --config=FILE.py[:variant] --workdir=DIR`."""

import functools
import importlib
import logging
import os
import signal
import sys

from lift_jax.runtime import shutdown

# One line per job; the module of the same name in `jobs/` runs it. There are no
# heavy imports here, so that `lift --help` is fast.
JOBS = {
  'demo': 'nothing -> the whole pipeline at toy size, with a report',
  'sample': 'text-to-video model + prompts -> mp4 files',
  'calibrate': 'text-to-video model + prompts -> steps that may be skipped',
  'annotate': 'videos -> human ratings, from a page that people open',
  'train_critic': 'videos + human ratings -> LiFT-Critic',
  'score': 'LiFT-Critic + videos -> a reward for each, with rationales',
  'evaluate': 'critic scores + human ratings -> how far to trust the critic',
  'compare': 'clips of two or more models -> which is better, and how sure',
  'prepare': 'videos, captions and scores -> cached latents and embeddings',
  'align': 'text-to-video model + prepared, scored videos -> aligned model',
  'rounds': 'model + critic + prompts -> rounds of all that, with guards',
  'plan': 'config + TPUs or GPUs, possibly absent -> memory, FLOPs, time',
  'convert': 'diffusers folders <-> our checkpoints, both ways',
}


def usage() -> str:
  lines = [
    'usage: lift JOB [flags]        (see lift JOB --help)',
    '',
    'Human feedback turned into better text-to-video models.',
    '',
    'jobs:',
  ]
  width = max(map(len, JOBS))
  lines += [f'  {job:<{width}}  {text}' for job, text in JOBS.items()]
  return '\n'.join(lines)


def hide_torch() -> None:
  """Hides torch from the libraries of this process; no job uses it.

  Where it is installed, transformers and tensorboardX import it whenever they
  are imported themselves, which takes longer than all other imports.
  """
  # None makes an import fail, as Python documents; the stub has modules alone.
  # pyrefly: ignore[no-matching-overload]
  sys.modules.setdefault('torch', None)


@functools.cache
def silence_libraries() -> None:
  """Leaves it to `main` to report the errors of this process, in one line.

  Orbax logs a failed save at length, through absl and asyncio, before it raises
  the error. Other files that TensorStore has under way then fail in threads of
  its own, even after the job has ended, as Orbax has closed the event loop that
  they report to.
  """
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  hook = sys.unraisablehook

  def selective_hook(unraisable) -> None:
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
      shutdown.repeat_interrupt()
    elif str(unraisable.exc_value) != 'Event loop is closed':
      hook(unraisable)

  sys.unraisablehook = selective_hook


def main(argv: list[str] | None = None) -> int:
  """Runs one job.

  Args:
    argv: by default that of this process, which must end afterwards.

  Returns:
    The exit status: 0 success, 2 bad input, 70 an internal error, 130 stopped
    by Ctrl-C, 143 stopped by SIGTERM before it was complete.
  """
  before = shutdown.end_on_interrupt()
  if argv is None:
    hide_torch()
  try:
    return _main(sys.argv[1:] if argv is None else argv)
  finally:
    if argv is not None:
      signal.signal(signal.SIGINT, before)


def _main(argv: list[str]) -> int:
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(usage())
    return 0 if argv else 2
  if argv[0] == '--version':
    from lift_jax import __version__

    print(__version__)
    return 0
  name, *argv = argv
  if name not in JOBS:
    print(f'lift: no job {name!r}; see lift --help', file=sys.stderr)
    return 2
  try:
    return _run(name, argv)
  except shutdown.Stopped:
    return shutdown.status()  # the job has logged it
  except KeyboardInterrupt:
    print(f'lift {name}: interrupted', file=sys.stderr)
    return shutdown.INTERRUPTED
  except Exception as error:
    from lift_jax.cli import failures

    message = failures.one_line(error)
    if message is None:
      print(failures.report(name, argv, error), file=sys.stderr)
      return failures.STATUS
  print(f'lift {name}: error: {message}', file=sys.stderr)
  return 2


def _run(name: str, argv: list[str]) -> int:
  """Imports and runs a job; returns its exit status."""
  job = importlib.import_module(f'lift_jax.jobs.{name}')
  if {'-h', '--help'} & set(argv):
    print((job.__doc__ or '').strip())  # python -OO strips docstrings
    return 0
  # transformers would warn about missing PyTorch, which tokenizers do not need.
  os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')
  silence_libraries()
  with shutdown.Interruptible():
    return job.main(argv)


if __name__ == '__main__':
  sys.exit(main())
