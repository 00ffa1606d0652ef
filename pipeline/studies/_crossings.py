"""When a curve of a run first crosses a level, between the epochs at which it was measured."""

import math

import pandas as pd


def crossing(values: pd.Series, level: float, *, falling: bool, log: bool = False) -> float:
    """The epoch at which a curve first is at a level or beyond; NaN if it never is, or has no values.

    Args:
        values: by epoch, in order.
        falling: whether the level is reached from above.
        log: interpolate over the logarithm of the epoch, as records are spaced; never between epoch 0 and the next.
    """
    before: tuple[float, float] | None = None
    for epoch, value in values.items():
        if value <= level if falling else value >= level:
            if before is None or before[1] == value or not math.isfinite(value):
                return float(epoch)
            share = (level - before[1]) / (value - before[1])
            if log:
                return float(epoch) if before[0] == 0 else before[0] * (epoch / before[0]) ** share
            return before[0] + share * (epoch - before[0])
        before = (float(epoch), float(value)) if math.isfinite(value) else None
    return math.nan
