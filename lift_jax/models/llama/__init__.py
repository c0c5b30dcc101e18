"""Llama decoder: the language model of the critic."""
