"""State, loss, step and loop of fine-tuning."""
