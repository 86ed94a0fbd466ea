"""Two runs of classes on the dates of both: their ranked probability scores and hit rates."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from gridcast.errors import DataError
from gridcast.report.contents import Subject
from gridcast.verification.categories import CategoryPairs, ClassSums, class_sums
from gridcast.verification.class_significance import compare_classes

_LEAD, _START = "forecast_period", "forecast_reference_time"


def class_scores(
    names: tuple[str, str],
    both: tuple[Subject, Subject],
    dates: np.ndarray,
    leads: int,
    mask: Bool[np.ndarray, "lat lon"],
) -> dict[str, Any]:
    """What `PairedClasses` tells of the scores.

    Args:
      dates: in order of time, that both runs forecast at all `leads`.
      mask: cells of both.

    Raises:
      DataError: other classes, by name or by what came.
    """
    variable = both[0].variable
    forecasts = [_probability(one) for one in both]
    labels = [one["category"].values.astype(str).tolist() for one in forecasts]
    if labels[0] != labels[1]:
        raise _other_classes(names, f"{names[0]} has {labels[0]}, {names[1]} has {labels[1]}")
    came = [_came(one).sel(time=dates).values for one in both]
    known = np.isfinite(came[0]) & np.isfinite(came[1]) & mask
    if not known.any():
        raise DataError(f"{names[0]} and {names[1]} have no observation of {variable} in common")
    if apart := int((came[0] != came[1])[known].sum()):
        share = f"in {apart} of {int(known.sum())} cases another class of {variable} came"
        raise _other_classes(names, share)
    weight = np.where(mask, both[0].grid.area, 0.0)
    observed = np.where(known, came[0], np.nan)
    sums = [_sums(one, dates, leads, observed, weight) for one in forecasts]
    rps, hit_rate = (
        np.stack([one[part].sum(axis=0) / one.area.sum(axis=0) for one in sums])
        for part in range(2)
    )
    compared = compare_classes(*sums)
    return {"classes": labels[0], "rps": rps, "hit_rate": hit_rate, "compared": compared}


def _probability(subject: Subject) -> xr.DataArray:
    assert subject.run.hindcast is not None
    return subject.run.hindcast[f"{subject.variable}_probability"]


def _came(subject: Subject) -> xr.DataArray:
    assert subject.run.observations is not None
    return subject.run.observations[f"{subject.variable}_class"]


def _other_classes(names: tuple[str, str], found: str) -> DataError:
    return DataError(
        f"{names[0]} and {names[1]} were judged by different classes\n  found: {found}\n"
        "  expected: the same thresholds, or terciles of the same training years, of one series\n"
        "  fix: train both with the same target.classes and splits.train"
    )


def _sums(
    forecast: xr.DataArray,
    dates: np.ndarray,
    leads: int,
    observed: Float[np.ndarray, "date lat lon"],
    weight: Float[np.ndarray, "lat lon"],
) -> ClassSums:
    """Of the forecasts of these dates; one lead is in memory at a time."""
    judged, parts = np.ones((len(dates), 1), bool), []
    for lead in range(leads):
        odds = at_dates(forecast, lead, dates).transpose(..., "category").values
        pairs = CategoryPairs(odds[:, None], observed[:, None], judged, weight)
        parts.append(class_sums(pairs))
    return ClassSums(*(np.concatenate(one, axis=1) for one in zip(*parts, strict=True)))


def at_dates(field: xr.DataArray, lead: int, dates: np.ndarray) -> xr.DataArray:
    """The forecasts for these dates at the place of a lead, in order of time."""
    here = field["time"].values[:, lead]
    windows = np.flatnonzero(np.isin(here, dates))
    windows = windows[np.argsort(here[windows], kind="stable")]
    return field.isel({_LEAD: lead, _START: windows})
