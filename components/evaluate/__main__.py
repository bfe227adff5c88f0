"""The command line of evaluate."""

from components import command
from components.evaluate.evaluate import evaluate

command.run(evaluate)
