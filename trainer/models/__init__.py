"""Models, one folder each: a paper's facts, its preprocessing, its recipe and what we measured."""
