"""Jobs of the `lift` command, one file each."""
