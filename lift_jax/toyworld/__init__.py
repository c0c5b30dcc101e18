"""A synthetic world of moving shapes with known ground truth."""
