"""LiFT in JAX: human feedback turned into better text-to-video models."""

__version__ = '0.1.0'
