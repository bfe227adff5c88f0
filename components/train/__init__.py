"""The step that trains a model's networks."""
