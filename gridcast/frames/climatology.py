"""The seasonal cycle that anomalies are taken against: fitted on training dates, invertible."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from gridcast.errors import DataError
from gridcast.timeaxis import Unit, season_fields

# Combinations of terms that the dates determine this much worse than others are left open.
_OPEN = 1e-3


@dataclass(frozen=True)
class Climatology:
    """A mean seasonal cycle per cell, with a linear trend if asked for.

    Attributes:
      kind: "harmonics" (a mean and annual harmonics), "monthly" (a mean for each calendar month)
        or "mean".
      harmonics: how many annual harmonics, where kind is "harmonics".
      trend: whether the last coefficient is a trend, units per year.
      middle: the year from which the trend counts.
      unit: the unit of the series' step, which decides how dates count within the year.
      coefficients: units of the series; 0 off the mask.
    """

    kind: Literal["harmonics", "monthly", "mean"]
    harmonics: int
    trend: bool
    middle: float
    unit: Unit
    coefficients: Float[np.ndarray, "term lat lon"]

    @classmethod
    def fit(
        cls,
        values: Float[np.ndarray, "time lat lon"],
        times: np.ndarray,
        mask: Bool[np.ndarray, "lat lon"],
        *,
        unit: Unit,
        kind: Literal["harmonics", "monthly", "mean"] = "harmonics",
        harmonics: int = 3,
        trend: bool = False,
    ) -> Climatology:
        """Least squares per cell over `times`: hand over training dates only.

        Args:
          values: NaN off the mask, and where there is no observation.

        Raises:
          DataError: fewer dates than coefficients, or (monthly) a calendar month without dates.
        """
        if unit == "year":
            kind = "mean"  # a yearly series has no season
        _, month, decimal_year = season_fields(times, unit)
        absent = sorted(set(range(1, 13)) - set(month.tolist()))
        if kind == "monthly" and absent:
            raise DataError(
                f"monthly climatology: the training dates hold no month {absent}\n"
                "  fix: longer training, or frames.climatology.kind: harmonics"
            )
        empty = np.zeros((0, *mask.shape))
        draft = cls(kind, harmonics, trend, float(decimal_year.mean()), unit, empty)
        terms = draft.terms(times)
        if terms.shape[0] < terms.shape[1]:
            raise DataError(
                f"a climatology of {terms.shape[1]} coefficients needs as many training dates, "
                f"found {terms.shape[0]}\n  fix: longer training, or fewer harmonics"
            )
        coefficients = np.zeros((terms.shape[1], *mask.shape))
        coefficients[:, mask] = _least_squares(terms, values[:, mask].astype(np.float64), kind)
        return cls(kind, harmonics, trend, draft.middle, unit, coefficients)

    def rows(self, rows: slice) -> Climatology:
        """Of some rows of the grid only."""
        return replace(self, coefficients=self.coefficients[:, rows])

    def at(self, times: np.ndarray) -> Float[np.ndarray, "time lat lon"]:
        """The seasonal cycle at any dates, in the units of the series."""
        return np.tensordot(self.terms(times), self.coefficients, axes=1)

    def terms(self, times: np.ndarray) -> Float[np.ndarray, "time term"]:
        """What each coefficient is multiplied by; with a trend the last by years since `middle`."""
        phase, month, decimal_year = season_fields(times, self.unit)
        if self.kind == "monthly":
            columns = [(month == m).astype(np.float64) for m in range(1, 13)]
        else:
            columns = [np.ones_like(phase)]
            for k in range(1, self.harmonics + 1 if self.kind == "harmonics" else 1):
                columns += [np.cos(2 * np.pi * k * phase), np.sin(2 * np.pi * k * phase)]
        if self.trend:
            columns.append(decimal_year - self.middle)
        return np.stack(columns, axis=1)


def _least_squares(
    terms: Float[np.ndarray, "time term"], values: Float[np.ndarray, "time cell"], kind: str
) -> Float[np.ndarray, "term cell"]:
    """Of each cell over the dates that it was observed on.

    A season that was never observed leaves a part of the coefficients open: of all solutions the
    one is taken that departs least from the cell's mean.
    """
    seen = np.isfinite(values)
    fewest = int(seen.sum(axis=0).min())
    if fewest < terms.shape[1]:
        raise DataError(
            f"a climatology of {terms.shape[1]} coefficients needs as many observations in each "
            f"cell, one has {fewest} in training\n"
            "  fix: longer training, fewer harmonics, or cut the cell out with data.region"
        )
    mean = np.nanmean(values, axis=0)
    departure = values - mean
    if seen.all():
        solution = np.linalg.lstsq(terms, departure, rcond=_OPEN)[0]
    else:
        normal = np.einsum("tc,ti,tj->cij", seen.astype(np.float64), terms, terms, optimize=True)
        right = np.where(seen, departure, 0.0).T @ terms
        inverse = np.linalg.pinv(normal, rcond=_OPEN**2, hermitian=True)
        solution = np.einsum("cij,cj->ic", inverse, right)
    solution[: 12 if kind == "monthly" else 1] += mean
    return solution
