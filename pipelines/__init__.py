"""Operations: the pipeline of each model, and the ways to compile and run it."""
