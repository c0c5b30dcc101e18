"""Services of a running job: hosts, shutdown, progress, journal, files."""
