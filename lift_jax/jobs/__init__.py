"""One file for each job of `lift`: its config and its `run`."""
