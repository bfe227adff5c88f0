"""The step that turns raw examples into what networks take, by Beam and TF Transform."""
