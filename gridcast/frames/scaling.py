"""Anomalies to numbers of order one and back: fitted on training dates, invertible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Scaler:
    """Division by a standard deviation.

    Attributes:
      deviation: units of the series; one value for the variable, or one for each cell. A series
        (or cell) that never varies keeps a deviation of 1.
    """

    deviation: Float[np.ndarray, "#lat #lon"]

    @classmethod
    def fit(
        cls,
        anomaly: Float[np.ndarray, "time lat lon"],
        weight: Float[np.ndarray, "lat lon"],
        *,
        scaling: Literal["variable", "cell"] = "variable",
    ) -> Scaler:
        """Root mean square of training anomalies; over the grid it is weighted by `weight`.

        Args:
          anomaly: hand over training dates only; NaN where `weight` is 0 or nothing was observed.
          weight: relative cell area, 0 off the mask, summing to 1.
        """
        return cls.of(mean_square(anomaly, weight > 0), weight, scaling)

    @classmethod
    def of(
        cls,
        square: Float[np.ndarray, "lat lon"],
        weight: Float[np.ndarray, "lat lon"],
        scaling: Literal["variable", "cell"],
    ) -> Scaler:
        """From the mean square of each cell, 0 off the mask; `weight` as in `fit`."""
        if scaling == "variable":
            square = (square * weight).sum(keepdims=True)
        deviation = np.sqrt(square)
        return cls(np.where(deviation > 0, deviation, 1.0))

    def rows(self, rows: slice) -> Scaler:
        """Of some rows of the grid only."""
        return self if len(self.deviation) == 1 else Scaler(self.deviation[rows])

    def scale(self, anomaly: np.ndarray) -> np.ndarray:
        return anomaly / self.deviation

    def unscale(self, scaled: np.ndarray) -> np.ndarray:
        return scaled * self.deviation


def mean_square(
    anomaly: Float[np.ndarray, "time lat lon"], inside: Bool[np.ndarray, "lat lon"]
) -> Float[np.ndarray, "lat lon"]:
    """Over the dates that each cell was observed on; 0 where `inside` is False."""
    square = np.square(np.where(inside, anomaly, 0.0).astype(np.float64))
    # The mean over all dates and the mean over observed ones are equal bits without gaps.
    return np.nanmean(square, axis=0) if np.isnan(square).any() else square.mean(axis=0)
