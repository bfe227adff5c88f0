"""MNIST and Fashion-MNIST in their idx files."""
