"""A model for the tests of preprocess: pictures with boxes and captions."""
