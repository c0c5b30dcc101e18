"""The jobs of `lift`, one per file: its config, `main` and `run`."""
