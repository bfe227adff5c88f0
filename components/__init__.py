"""The steps: one folder each, with the function, its KFP interface and its command line."""
