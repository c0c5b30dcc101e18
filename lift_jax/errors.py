"""Errors that users can fix."""


class UserError(ValueError):
  """Bad input; the message is one line with file, record and remedy.

  The command line prints it without a traceback and exits with status 2.
  """


def listing(names, limit: int = 8) -> str:
  """Lists the first `limit` names, sorted, and the number of the others."""
  names = sorted(names)
  more = f' and {len(names) - limit} more' if len(names) > limit else ''
  return ', '.join(names[:limit]) + more
