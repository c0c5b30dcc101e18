"""Comparison of video models by their clips."""
