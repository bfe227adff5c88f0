"""A run on one page that needs nothing else: what was done when, what came of it, and why not.

words, tasks and artifacts (what is known) > head, timeline, findings, embedded and table (a section
each) > page (all of them in the template `page.html`).
"""

from pipelines.local.report.page import template, write_report

__all__ = ["template", "write_report"]
