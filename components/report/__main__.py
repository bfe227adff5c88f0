"""The command line of report."""

from components import command
from components.report.report import report

command.run(report)
