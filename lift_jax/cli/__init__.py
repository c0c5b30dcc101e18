"""Command line of `lift`: entry point, flags, config files."""
