"""Losses used by two models or more."""
