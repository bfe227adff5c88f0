"""Keras optimizers of our own."""
