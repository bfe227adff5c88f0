"""The steps of a pipeline, one folder each: a plain function, its KFP interface, its command line."""
