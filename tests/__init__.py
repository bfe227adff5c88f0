"""Promises of the whole: every model, every pipeline, every command."""
