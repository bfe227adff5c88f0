"""Two datasets with the same classes, as two domains of pictures."""
