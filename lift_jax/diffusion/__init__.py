"""Noise schedules and what is computed from them."""
