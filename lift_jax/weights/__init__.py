"""Published weights, our checkpoints, and tables between them."""
