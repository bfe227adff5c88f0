"""Pairs of pictures, each pair side by side in one file, as for pix2pix."""
