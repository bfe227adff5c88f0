"""The step that scores a checkpoint."""
