"""Learning-rate schedules that Keras lacks and two models or more may use.

| what a paper says | what to take |
|---|---|
| half a cosine to 0 | `keras.optimizers.schedules.CosineDecay(peak, steps)` |
| half cosines, begun again | `keras.optimizers.schedules.CosineDecayRestarts` |
| times 0.1 after step n (or epoch e: n = e times the steps of an epoch) | \
`keras.optimizers.schedules.PiecewiseConstantDecay([n - 1], [rate, 0.1 * rate])`: steps count \
from 0, and a boundary still has the value before it |
| linear ("poly") to 0 | `keras.optimizers.schedules.PolynomialDecay(rate, steps, 0.0)` |
| cyclic, triangular | `TriangularCycles` |
| a linear warm-up | `LinearWarmUp` around any of these |

A schedule is a pure function of the optimizer's step, so a training that is resumed has the rates
of one that was not.
"""
