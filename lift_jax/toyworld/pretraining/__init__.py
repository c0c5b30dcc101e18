"""Pretraining of the toy world's shipped models, from scratch."""
