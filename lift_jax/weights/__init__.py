"""Published weights, our checkpoints, and conversion between them."""
