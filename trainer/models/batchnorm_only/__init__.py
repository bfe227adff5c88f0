"""Training batch normalisation and nothing else."""
