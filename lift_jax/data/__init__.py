"""Videos and records in, training batches out."""
