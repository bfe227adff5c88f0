"""The training engine: input, training, checkpoints, evaluation and export of any recipe."""
