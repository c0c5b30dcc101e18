"""A browser without a window, where one is installed."""

import pathlib
import shutil
import subprocess

_BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')


def find() -> str | None:
  """The path of Chromium or its like."""
  return next(filter(None, map(shutil.which, _BROWSERS)), None)


def run(
  browser: str, page: pathlib.Path, profile: pathlib.Path, *flags: str
) -> subprocess.CompletedProcess:
  """Opens a page; what went wrong in it is in stderr after 'CONSOLE'.

  Args:
    browser: what `find` returned.
    page: of the file.
    profile: a folder for the browser, which is removed afterwards.
    *flags: such as '--dump-dom'.
  """
  try:
    return subprocess.run(
      [
        browser, '--headless', '--no-sandbox', '--disable-gpu',
        '--disable-dev-shm-usage', f'--user-data-dir={profile}',
        '--enable-logging=stderr', *flags, f'file://{page}',
      ],
      text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
  finally:
    shutil.rmtree(profile, ignore_errors=True)
