"""Networks: declared in Flax NNX, executed as pure functions."""
