"""A model for benchmarks: pictures are decoded, resized and encoded again."""
