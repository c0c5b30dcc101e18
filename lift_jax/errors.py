"""Errors that a user can mend."""


class UserError(ValueError):
  """Bad input: one line that names the file, the record and the remedy.

  The command line prints the message without a traceback and exits with 2.
  """


def listing(names, limit: int = 8) -> str:
  """The first `limit` names, sorted, on one line, and how many more."""
  names = sorted(names)
  more = f' and {len(names) - limit} more' if len(names) > limit else ''
  return ', '.join(names[:limit]) + more
