"""What keeps a job going: hosts, shutdown, progress, work journal, batching."""
