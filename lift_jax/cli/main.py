"""The `lift` command: `lift JOB --config=FILE.py[:variant] --workdir=DIR`."""

import errno
import functools
import importlib
import logging
import os
import sys

# One line per job; the module of the same name in `jobs/` runs it. There are no
# heavy imports here, so that `lift --help` is fast.
JOBS = {
  'demo': 'nothing -> the whole pipeline at toy size, with a report',
  'sample': 'text-to-video model + prompts -> mp4 files',
  'train_critic': 'videos + human ratings -> LiFT-Critic',
  'score': 'LiFT-Critic + videos -> a reward for each, with rationales',
  'evaluate': 'critic scores + human ratings -> how far to trust the critic',
  'prepare': 'videos, captions and scores -> cached latents and embeddings',
  'align': 'text-to-video model + prepared, scored videos -> aligned model',
  'plan': 'config + TPUs or GPUs, possibly absent -> memory, FLOPs, time',
  'convert': 'diffusers folders <-> our checkpoints, both ways',
}

# Errors of the file system that a user can fix.
_FILE_ERRORS = frozenset(
  (
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
  )
)


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

  def hook_without_closed_loops(unraisable) -> None:
    if str(unraisable.exc_value) != 'Event loop is closed':
      hook(unraisable)

  sys.unraisablehook = hook_without_closed_loops


def main(argv: list[str] | None = None) -> int:
  """Runs one job.

  Returns:
    The exit status: 0 success, 2 bad input, 130 interrupted, 143 stopped by
    SIGTERM before it was complete.
  """
  argv = sys.argv[1:] if argv is None else argv
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(usage())
    return 0 if argv else 2
  if argv[0] == '--version':
    from lift_jax import __version__

    print(__version__)
    return 0
  if argv[0] not in JOBS:
    print(f'lift: no job {argv[0]!r}; see lift --help', file=sys.stderr)
    return 2
  job = importlib.import_module(f'lift_jax.jobs.{argv[0]}')
  if {'-h', '--help'} & set(argv[1:]):
    print((job.__doc__ or '').strip())  # python -OO strips docstrings
    return 0

  # transformers would warn about missing PyTorch, which tokenizers do not need.
  os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')

  silence_libraries()

  from absl import flags

  from lift_jax.errors import UserError
  from lift_jax.runtime import shutdown

  try:
    return job.main(argv[1:])
  except (UserError, flags.Error) as error:
    message = str(error)
  except OSError as error:
    if error.errno not in _FILE_ERRORS:
      raise
    message = f'{error.filename or "a file"}: {error.strerror}'
  except shutdown.Stopped:
    return shutdown.STATUS  # the job has logged it
  except KeyboardInterrupt:
    print(f'lift {argv[0]}: interrupted', file=sys.stderr)
    return 130  # as shells do for SIGINT
  print(f'lift {argv[0]}: error: {" ".join(message.split())}', file=sys.stderr)
  return 2


if __name__ == '__main__':
  sys.exit(main())
