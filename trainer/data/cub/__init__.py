"""CUB-200-2011: birds with boxes and captions."""
