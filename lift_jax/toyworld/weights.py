"""The models of the toy world that come with the package.

They lie in `data/toyworld` of the repository, to which `files` here is a link,
so that a wheel holds them too.
"""

import pathlib

_FILES = pathlib.Path(__file__).with_name('files').resolve()

# As `toyworld.pretraining` makes them.
T2V = _FILES / 't2v'
CRITIC = _FILES / 'critic'
