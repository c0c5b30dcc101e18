"""`python -m lift_jax` is `lift`."""

import sys

from lift_jax.cli.main import main

if __name__ == '__main__':
  sys.exit(main())
