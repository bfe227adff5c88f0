"""The step that tells a person what a run did."""
