"""Generative adversarial network of Goodfellow et al. (2014)."""
