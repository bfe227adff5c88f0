"""The command line of train."""

from components import command
from components.train.train import train

command.run(train)
