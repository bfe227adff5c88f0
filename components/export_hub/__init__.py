"""The step that makes a checkpoint fit for a Hub."""
