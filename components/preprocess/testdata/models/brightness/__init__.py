"""A model for the tests of preprocess: how bright pictures are, with one pass over the data."""
