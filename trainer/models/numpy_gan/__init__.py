"""A generative adversarial network whose passes are written in plain NumPy."""
