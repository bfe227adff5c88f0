"""Networks that others begin with, and the weights they were published with."""
