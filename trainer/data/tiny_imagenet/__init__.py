"""Tiny ImageNet: 200 classes of ImageNet at 64 × 64 pixels, with a box for each image."""
