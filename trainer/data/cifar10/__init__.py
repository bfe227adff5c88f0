"""CIFAR-10 in its binary and its Python version."""
