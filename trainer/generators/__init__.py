"""What models that draw pictures from noise have in common."""
