"""Scores of anomaly forecasts: arrays in, one number for each lead out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from gridcast.errors import DataError

Fields = Float[np.ndarray, "window lead lat lon"]


@dataclass(frozen=True)
class Pairs:
    """Forecast and observed anomalies, and which of them are judged.

    Attributes:
      forecast, observed: units of the series, 0 or NaN off the mask.
      verified: True where the window's forecast at this lead is judged; each lead judges the same
        number of dates.
      weight: relative cell area, 0 off the mask.
    """

    forecast: Fields
    observed: Fields
    verified: Bool[np.ndarray, "window lead"]
    weight: Float[np.ndarray, "lat lon"]

    def __post_init__(self) -> None:
        if not self.verified.any(axis=0).all():
            raise DataError("there is a lead without any verification date")
        inside = (self.weight > 0) & self.verified[:, :, None, None]
        if not np.isfinite(self.forecast[inside]).all():
            raise DataError("a forecast is not finite inside the mask")
        if not np.isfinite(self.observed[inside]).all():
            raise DataError("an observation is missing inside the mask")

    def mean(self, fields: Fields) -> Float[np.ndarray, "lead lat lon"]:
        """Mean over the verification dates of each lead, per cell; 0 off the mask."""
        verified = self.verified[:, :, None, None]
        judged = np.where(verified & (self.weight > 0), fields, 0.0)
        return judged.sum(axis=0, dtype=np.float64) / verified.sum(axis=0)

    def area_mean(self, fields: Float[np.ndarray, "lead lat lon"]) -> Float[np.ndarray, " lead"]:
        return np.einsum("lxy,xy->l", fields, self.weight) / self.weight.sum()


def rmse(pairs: Pairs) -> Float[np.ndarray, " lead"]:
    """Root mean square error: the mean square is pooled over dates and area before the root."""
    return np.sqrt(pairs.area_mean(squared_error(pairs)))


def mae(pairs: Pairs) -> Float[np.ndarray, " lead"]:
    """Mean absolute error."""
    return pairs.area_mean(pairs.mean(np.abs(pairs.forecast - pairs.observed)))


def bias(pairs: Pairs) -> Float[np.ndarray, " lead"]:
    """Mean of forecast minus observed."""
    return pairs.area_mean(pairs.mean(pairs.forecast - pairs.observed))


def acc(pairs: Pairs) -> Float[np.ndarray, " lead"]:
    """Anomaly correlation, uncentred and pooled over dates and area; NaN for a zero forecast.

    Jolliffe & Stephenson (2012), Forecast Verification; anomalies against the training climatology.
    """
    product, ours, theirs = (
        pairs.area_mean(pairs.mean(a * b))
        for a, b in (
            (pairs.forecast, pairs.observed),
            (pairs.forecast, pairs.forecast),
            (pairs.observed, pairs.observed),
        )
    )
    return np.divide(
        product, np.sqrt(ours * theirs), out=np.full_like(product, np.nan), where=ours * theirs > 0
    )


def squared_error(pairs: Pairs) -> Float[np.ndarray, "lead lat lon"]:
    """Mean square error over dates, per cell; 0 off the mask."""
    return pairs.mean((pairs.forecast - pairs.observed) ** 2)


METRICS = {"rmse": rmse, "mae": mae, "bias": bias, "acc": acc}
