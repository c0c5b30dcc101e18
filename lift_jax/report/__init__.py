"""Pages for people: HTML and pictures that need nothing else."""
