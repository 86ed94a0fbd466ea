"""Scores of anomaly forecasts: arrays in, one number for each lead out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from gridcast.errors import DataError
from gridcast.scratch import lead_blocks

Fields = Float[np.ndarray, "window lead lat lon"]
# Of forecast and observed anomalies.
Score = Callable[[Fields, Fields], Fields]


@dataclass(frozen=True)
class Pairs:
    """Forecast and observed anomalies, and which of them are judged.

    Attributes:
      forecast, observed: units of the series, 0 or NaN off the mask. Inside it an observation may
        be NaN where `gaps` says so: then the cell does not count at that date.
      verified: True where the window's forecast at this lead is judged; each lead judges the same
        number of dates.
      weight: relative cell area, 0 off the mask.
    """

    forecast: Fields
    observed: Fields
    verified: Bool[np.ndarray, "window lead"]
    weight: Float[np.ndarray, "lat lon"]
    gaps: bool = False

    def __post_init__(self) -> None:
        if not self.verified.any(axis=0).all():
            raise DataError("there is a lead without any verification date")
        for leads, rows in lead_blocks(self.observed.shape):
            inside = (self.weight[rows] > 0) & self.verified[:, leads, None, None]
            if not np.isfinite(self.forecast[:, leads, rows][inside]).all():
                raise DataError("a forecast is not finite inside the mask")
            if not self.gaps and not np.isfinite(self.observed[:, leads, rows][inside]).all():
                raise DataError("an observation is missing inside the mask")

    def counted(self, leads: slice, rows: slice) -> Bool[np.ndarray, "window lead lat lon"]:
        """What is judged of some leads and rows."""
        counted = self.verified[:, leads, None, None] & (self.weight[rows] > 0)
        return counted & np.isfinite(self.observed[:, leads, rows]) if self.gaps else counted

    @cached_property
    def _dates(self) -> Int[np.ndarray, "lead lat lon"]:
        dates = np.zeros(self.observed.shape[1:], int)
        for leads, rows in lead_blocks(self.observed.shape):
            dates[leads, rows] = self.counted(leads, rows).sum(axis=0)
        return dates

    def mean(self, score: Score) -> Float[np.ndarray, "lead lat lon"]:
        """Mean over the verification dates of each lead, per cell; 0 where there is none."""

        def of(leads: slice, rows: slice) -> Fields:
            return score(self.forecast[:, leads, rows], self.observed[:, leads, rows])

        return self.mean_of(of)

    def mean_of(
        self, values: Callable[[slice, slice], Fields], itemsize: int = 8
    ) -> Float[np.ndarray, "lead lat lon"]:
        """As `mean`, of what `values` gives for some leads and rows.

        Args:
          itemsize: bytes that it needs for one cell of one window.
        """
        total = np.zeros(self.observed.shape[1:])
        for leads, rows in lead_blocks(self.observed.shape, itemsize):
            fields = np.where(self.counted(leads, rows), values(leads, rows), 0.0)
            total[leads, rows] = fields.sum(axis=0, dtype=np.float64)
        return total / np.maximum(self._dates, 1)

    def area_mean(self, fields: Float[np.ndarray, "lead lat lon"]) -> Float[np.ndarray, " lead"]:
        """Mean over area, each cell by as many dates as it was observed on; NaN without any."""
        weight = self.weight * self._dates
        total, area = np.einsum("lxy,lxy->l", fields, weight), weight.sum(axis=(1, 2))
        return np.divide(total, area, out=np.full_like(total, np.nan), where=area > 0)


def rmse(pairs: Pairs) -> Float[np.ndarray, " lead"]:
    """Root mean square error: the mean square is pooled over dates and area before the root."""
    return np.sqrt(pairs.area_mean(squared_error(pairs)))


def mae(pairs: Pairs) -> Float[np.ndarray, " lead"]:
    """Mean absolute error."""
    return pairs.area_mean(pairs.mean(lambda ours, theirs: np.abs(ours - theirs)))


def bias(pairs: Pairs) -> Float[np.ndarray, " lead"]:
    """Mean of forecast minus observed."""
    return pairs.area_mean(pairs.mean(lambda ours, theirs: ours - theirs))


def acc(pairs: Pairs) -> Float[np.ndarray, " lead"]:
    """Anomaly correlation, uncentred and pooled over dates and area; NaN for a zero forecast.

    Jolliffe & Stephenson (2012), Forecast Verification; anomalies against the training climatology.
    """
    product, ours, theirs = (
        pairs.area_mean(pairs.mean(score))
        for score in (
            lambda ours, theirs: ours * theirs,
            lambda ours, _: ours * ours,
            lambda _, theirs: theirs * theirs,
        )
    )
    return np.divide(
        product, np.sqrt(ours * theirs), out=np.full_like(product, np.nan), where=ours * theirs > 0
    )


def squared_error(pairs: Pairs) -> Float[np.ndarray, "lead lat lon"]:
    """Mean square error over dates, per cell; 0 off the mask."""
    return pairs.mean(lambda ours, theirs: (ours - theirs) ** 2)


METRICS = {"rmse": rmse, "mae": mae, "bias": bias, "acc": acc}
