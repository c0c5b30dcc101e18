"""Paths of the toy world's models that are shipped with the package.

They are stored in `data/toyworld` of the repository; `files` in this folder is
a link to it, so that a wheel contains them too.
"""

import pathlib

_FILES = pathlib.Path(__file__).with_name('files').resolve()

# As `toyworld.pretraining` makes them.
T2V = _FILES / 't2v'
CRITIC = _FILES / 'critic'
