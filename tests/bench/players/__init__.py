"""The players of each model, written by hand: a file for each model that has a row.

Each file offers

- `SETTINGS`, what differs from the model's defaults where it is measured;
- `SMALL`, what differs besides where the loops are compared with our engine;
- `STEPS`, steps of a turn, about a second on two processors;
- `examples(config, random)`, one batch of invented examples, without noise;
- `players(config)`, which train the model on it.
"""
