"""`python -m pipelines` is the command `paper2hub`."""

from pipelines.cli import main

main()
