"""The mean of the years up to each date: what is normal in a climate that drifts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from gridcast.timeaxis import TimeAxis

_STEPS_A_YEAR = {"year": 1.0, "month": 12.0, "day": 365.2425, "hour": 8765.82, "minute": 525949.2}


def steps_of(years: int, axis: TimeAxis) -> int:
    """How many steps of the series so many years are."""
    return max(1, round(years * _STEPS_A_YEAR[axis.unit] / axis.every))


def trailing_mean(
    frames: Float[np.ndarray, "time lat lon variable"], axis: TimeAxis, years: int
) -> Float[np.ndarray, "time lat lon variable"]:
    """The mean anomaly of the `years` up to each date, itself included.

    Nothing after a date is in its mean. Dates before the record, and values that were not
    observed, count as the climatology, an anomaly of 0: a short past says little about the drift.
    """
    steps = steps_of(years, axis)
    found = np.zeros(frames.shape, np.float32)
    total = np.zeros(frames.shape[1:], np.float64)
    seen, oldest = np.nan_to_num(frames), 0
    for i, step in enumerate(axis.steps):
        total += seen[i]
        while axis.steps[oldest] <= step - steps:
            total -= seen[oldest]
            oldest += 1
        found[i] = total / steps
    return found
