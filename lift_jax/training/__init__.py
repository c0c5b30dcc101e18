"""Training: objectives, steps, state, validation and the loop."""
