"""Terciles of the training climatology, and what came in thirds of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from gridcast.config.frames import ClassesConfig
from gridcast.frames.classes import Classes

CLASSES = ClassesConfig(kind="terciles")


@dataclass(frozen=True)
class Terciles:
    """Of each cell and calendar month, as `Classes`, but of anomalies in the units of the series.

    Attributes:
      row: which of the rows holds for each forecast: that of the month that it is for, and, in a
        cross-validation, of the training years of its model.
      edges: NaN in a month without training dates.
      odds: how often each class occurred in the training years.
    """

    row: Int[np.ndarray, "window lead"]
    edges: Float32[np.ndarray, "row boundary lat lon target"]
    odds: Float32[np.ndarray, "row class lat lon target"]

    @classmethod
    def fit(
        cls,
        anomalies: Float[np.ndarray, "time lat lon target"],
        training_months: Int[np.ndarray, " time"],
        mask: Bool[np.ndarray, "lat lon"],
        months: Int[np.ndarray, "window lead"],
    ) -> Terciles:
        """
        Args:
          anomalies: of training dates, NaN where nothing was observed.
          training_months: calendar month of each, 1 to 12.
          mask: where anything is forecast.
          months: that forecasts are for.
        """
        fitted = Classes.fit(CLASSES, anomalies, training_months, mask, None)
        return cls(months - 1, fitted.edges, fitted.odds)

    @classmethod
    def joined(cls, parts: Sequence[Terciles]) -> Terciles:
        """Of the windows of all parts, one after another."""
        first = np.cumsum([0, *(len(part.edges) for part in parts)])
        return cls(
            np.concatenate([k + part.row for k, part in zip(first, parts, strict=False)]),
            np.concatenate([part.edges for part in parts]),
            np.concatenate([part.odds for part in parts]),
        )
