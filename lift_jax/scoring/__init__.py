"""Rating videos with a critic."""
