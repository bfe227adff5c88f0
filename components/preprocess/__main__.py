"""The command line of preprocess."""

from components import command
from components.preprocess.preprocess import preprocess

command.run(preprocess)
