"""RegNetY 200MF to 800MF of Radosavovic et al. (2020)."""
