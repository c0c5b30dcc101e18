"""Models: Flax NNX modules, run as pure functions."""
