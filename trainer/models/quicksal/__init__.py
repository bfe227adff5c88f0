"""QUICKSAL, a small network that finds what stands out in a picture."""
