"""Datasets, one folder each, and how their examples are kept on disk."""
