"""The demo's config, which is part of the package: see there.

lift demo --config=configs/demo.py --workdir=DIR
"""

from lift_jax.toyworld.demo_config import get_config

__all__ = ('get_config',)
