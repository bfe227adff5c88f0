"""Runs a compiled pipeline on this machine, each step as a process of its own.

Works over the compiled YAML alone and needs neither KFP nor Docker:
graph (what the file says) > placeholders and executor (what a step is called with and gives back)
> process (one step as a group of processes) > run (the order of things) > progress, display.
"""
