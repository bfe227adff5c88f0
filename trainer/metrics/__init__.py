"""Metrics used by two models or more, in NumPy on the host."""
