"""The command line of export_hub."""

from components import command
from components.export_hub.export_hub import export_hub

command.run(export_hub)
