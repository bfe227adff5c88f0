"""Pipelines of our own that show, feature by feature, what KFP's format means."""
